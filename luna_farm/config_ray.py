"""What a farm is told about a Ray cluster: plain data, passed from the configuration to the bridge."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luna_farm.config_destinations import Destination

SEND_S = 15.0
ENGINES = ("local", "ray", "auto")
ADDRESS = "auto, or HOST:PORT of the head (not ray://, whose proxy would copy every pixel)"
RESOURCES = 'a JSON object of names and amounts above 0, such as {"luna": 1}'


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A cluster and what its workers take of it.

    `address`: "auto" or HOST:PORT of the head. `num_cpus` and `resources`: what one worker needs.
    `bytes_in_flight`: pixels that may be on their way at a time. `farm`: a name that no other farm on
    the cluster has.
    """

    address: str = "auto"
    num_cpus: float = 1.0
    resources: Mapping[str, float] = field(default_factory=dict)
    bytes_in_flight: int = 512 * 2**20
    farm: str = "luna-farm"
    destinations: tuple[Destination, ...] = ()
    """Where workers may send files by themselves; without secrets, which nodes have of their own."""
    send_s: float = SEND_S
    """How long a worker tries to send a file. Then the farm sends it."""


def read_address(value: Any, _: Path) -> str:
    """Read the address of a head."""
    if value != "auto" and not (isinstance(value, str) and is_address(value)):
        raise ValueError(value)
    return str(value)


def is_address(text: str) -> bool:
    """Whether a text is HOST:PORT."""
    found = re.fullmatch(r"[^/\s]+:(\d{1,5})", text)
    return found is not None and 0 < int(found[1]) < 65536


def read_resources(value: Any, _: Path) -> dict[str, float]:
    """Read resources, a map or its JSON; "" for none."""
    given = json.loads(value or "{}") if isinstance(value, str) else value
    if not isinstance(given, dict) or not all(_is_amount(amount) for amount in given.values()):
        raise ValueError(value)
    return {str(name): float(amount) for name, amount in given.items()}


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9


def missing_ray() -> str:
    """Return a sentence if Ray is not installed; nothing is imported."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed. Install it with pip install 'luna-farm[ray]', or use --engine local."
    return ""
