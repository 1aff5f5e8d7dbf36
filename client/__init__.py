"""The client of Luna Farm: hands images over and reports what became of them.

    with FarmClient() as farm:
        receipt = farm.submit(SaveRequest(images=[SaveImage(pixels, affix="RAW")], filename="a"))
        report = farm.wait(receipt.job_id)

Names are loaded when they are first used: importing this package costs a millisecond and never fails for a
missing library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luna_farm.catalogue.rows import CatalogueRow
    from luna_farm.core.outputs import Output
    from luna_farm.errors import (
        CatalogueUnavailable,
        FarmBusy,
        FarmDraining,
        FarmError,
        FarmUnavailable,
        InvalidRequest,
        NotInTime,
        NotPossible,
        ProtocolError,
        StaleLease,
        TooLarge,
        Unauthorized,
        UnknownJob,
    )
    from luna_farm_client.aio import AsyncFarmClient
    from luna_farm_client.daemon_client import DaemonClient, DaemonConnectionError
    from luna_farm_client.farm_client import FarmClient
    from luna_farm_client.finding import find
    from luna_farm_client.in_process import save_here
    from luna_farm_client.one_liner import save
    from luna_farm_client.requests import (
        ImageReport,
        JobReport,
        PauseReport,
        Receipt,
        SaveImage,
        SaveRequest,
    )

_HOMES = {
    "luna_farm.catalogue.rows": ("CatalogueRow",),
    "luna_farm.core.outputs": ("Output",),
    "luna_farm.errors": (
        "CatalogueUnavailable",
        "FarmBusy",
        "FarmDraining",
        "FarmError",
        "FarmUnavailable",
        "InvalidRequest",
        "NotInTime",
        "NotPossible",
        "ProtocolError",
        "StaleLease",
        "TooLarge",
        "Unauthorized",
        "UnknownJob",
    ),
    "luna_farm_client.aio": ("AsyncFarmClient",),
    "luna_farm_client.daemon_client": ("DaemonClient", "DaemonConnectionError"),
    "luna_farm_client.farm_client": ("FarmClient",),
    "luna_farm_client.in_process": ("save_here",),
    "luna_farm_client.finding": ("find",),
    "luna_farm_client.one_liner": ("save",),
    "luna_farm_client.requests": (
        "ImageReport",
        "JobReport",
        "PauseReport",
        "Receipt",
        "SaveImage",
        "SaveRequest",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncFarmClient",
    "CatalogueRow",
    "CatalogueUnavailable",
    "DaemonClient",
    "DaemonConnectionError",
    "FarmBusy",
    "FarmClient",
    "FarmDraining",
    "FarmError",
    "FarmUnavailable",
    "ImageReport",
    "InvalidRequest",
    "JobReport",
    "NotInTime",
    "NotPossible",
    "Output",
    "PauseReport",
    "ProtocolError",
    "Receipt",
    "SaveImage",
    "SaveRequest",
    "StaleLease",
    "TooLarge",
    "Unauthorized",
    "UnknownJob",
    "find",
    "save",
    "save_here",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value
