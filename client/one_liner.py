"""`save`: one image, one path. Through the farm if one runs, else in this process."""

from __future__ import annotations

import os
from typing import Any

from luna_farm.errors import FarmUnavailable, Unauthorized
from luna_farm_client.farm_client import FarmClient
from luna_farm_client.policy import seconds
from luna_farm_client.requests import path_of, request_for

ANSWER_S = 30.0
"""How long one answer of a farm may take."""


def save(pixels: Any, path: str | os.PathLike[str], *, timeout: float | None = None, **options: Any) -> str:
    """Save one image and return its path once the file is there; a name that exists gets a number.

    pixels: as in SaveImage, one image. path: its ending names the format; a URL such as s3://bucket/a.png
    needs a farm. timeout: seconds that a farm may take. options: those of SaveRequest, such as
    `png_compression=9`. Through the farm if one runs, else in this process. Raises InvalidRequest,
    EncodeError, DiskError where the folder cannot be written, NotPossible where the farm is paused, and
    NotInTime: a farm keeps the image then and goes on trying, and the error names the job.
    """
    from luna_farm_client.in_process import save_here

    request = request_for(pixels, path, options)
    answer_s = ANSWER_S if timeout is None else min(ANSWER_S, seconds("timeout", timeout))
    with FarmClient(timeout=answer_s, restart_s=0.0) as farm:
        try:
            farm.ping()
        except (FarmUnavailable, Unauthorized):
            return path_of(save_here(request))
        return farm.save(pixels, path, timeout=timeout, **options)
