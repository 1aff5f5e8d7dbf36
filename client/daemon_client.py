"""The call of the Luna documents: `DaemonClient(host, port).submit_async("save_images_async", {...})`,
answered by a dict.

The same road as `FarmClient`, under the names that their callers know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from luna_farm.errors import FarmError, FarmUnavailable, InvalidRequest
from luna_farm_client.farm_client import FarmClient
from luna_farm_client.requests import SaveImage, SaveRequest

REQUEST_FIELDS = frozenset(row.name for row in fields(SaveRequest)) - {"images"}


class DaemonConnectionError(FarmUnavailable):
    """The farm is not there, or does not answer."""


class DaemonClient:
    """A farm at `host`:`port`, for programs written for the Luna daemon. None: from LUNA_FARM_HOST and
    _PORT, luna-farm.toml, or 127.0.0.1:19283."""

    def __init__(self, host: str | None = None, port: int | None = None, timeout: float = 30.0) -> None:
        self._farm = FarmClient(host, port, timeout=timeout)

    def submit_async(self, cmd: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a save and return the farm's answer: success, job_id, message, num_images, paths.

        `cmd` is "save_images_async"; `data` holds the fields of docs/protocol.md, `images` a list of
        {"image": array or tensor, "affix", "format", "subdir"}. A request that is refused returns {"error",
        "code", "job_id"}. Raises DaemonConnectionError.
        """
        try:
            if cmd != "save_images_async":
                raise InvalidRequest.of("cmd", cmd, "save_images_async")
            receipt = self._farm.submit(_request(data))
        except FarmUnavailable as error:
            raise DaemonConnectionError(str(error), error.host, error.port) from error
        except FarmError as error:
            return {"error": str(error), "code": error.code, "job_id": ""}
        return {
            "success": True,
            "job_id": receipt.job_id,
            "message": receipt.message,
            "num_images": receipt.num_images,
            "paths": list(receipt.paths),
            "warnings": list(receipt.warnings),
        }

    def close(self) -> None:
        """Close the connection."""
        self._farm.close()


def _request(data: Mapping[str, Any]) -> SaveRequest:
    fields = {name: value for name, value in data.items() if name in REQUEST_FIELDS}
    unknown = sorted(set(data) - REQUEST_FIELDS - {"cmd", "images", "embed_workflow"})
    if unknown:
        raise InvalidRequest.of(
            "data", unknown[0], ", ".join(sorted(REQUEST_FIELDS | {"images", "embed_workflow"}))
        )
    if data.get("embed_workflow", True) is False:
        fields["embed"] = "none"
    images = data.get("images")
    if not isinstance(images, list) or not all(
        isinstance(image, Mapping) and "image" in image for image in images
    ):
        raise InvalidRequest.of("images", images, 'a list of {"image": array, "affix", "format", "subdir"}')
    for name in ("custom_metadata",):
        if name in fields and not isinstance(fields[name], str | Mapping | None):
            fields[name] = json.dumps(fields[name])
    return SaveRequest(
        images=[
            SaveImage(i["image"], i.get("affix", ""), i.get("format", "png"), bool(i.get("subdir", False)))
            for i in images
        ],
        **fields,
    )
