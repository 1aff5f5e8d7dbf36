"""`save`: one image, one path. Through the farm if one runs, else in this process."""

from __future__ import annotations

import os
from typing import Any

from luna_farm.errors import FarmUnavailable, Unauthorized
from luna_farm_client.farm_client import FarmClient
from luna_farm_client.requests import path_of, request_for


def save(pixels: Any, path: str | os.PathLike[str], **options: Any) -> str:
    """Save one image and return its path once the file is there; a name that exists gets a number.

    pixels: as in SaveImage, one image. path: its ending names the format; a URL such as s3://bucket/a.png
    needs a farm. options: those of SaveRequest, such as `png_compression=9`. Through the farm if one runs,
    else in this process. Raises InvalidRequest, EncodeError, and DiskError where the folder cannot be
    written: a farm keeps the image then and goes on trying, and the error names the job.
    """
    from luna_farm_client.in_process import save_here

    request = request_for(pixels, path, options)
    with FarmClient(restart_s=0.0) as farm:
        try:
            farm.ping()
        except (FarmUnavailable, Unauthorized):
            return path_of(save_here(request))
        return farm.save(pixels, path, **options)
