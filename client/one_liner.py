"""`save`: one image, one path. Through the farm if one runs, else in this process."""

from __future__ import annotations

import os
from typing import Any

from luna_farm.core.messages import FORMAT_NAMES
from luna_farm.errors import EncodeError, FarmUnavailable, InvalidRequest, Unauthorized
from luna_farm_client.requests import JobReport, SaveImage, SaveRequest


def request_for(pixels: Any, path: str | os.PathLike[str], options: dict[str, Any]) -> SaveRequest:
    """Return the request that saves `pixels` as `path`; its ending names the format. Raises
    InvalidRequest."""
    if not isinstance(path, str | os.PathLike):
        raise InvalidRequest.of("path", path, "a path as text or os.PathLike")
    folder, name = os.path.split(os.path.abspath(os.path.expanduser(os.fspath(path))))
    stem, _, ending = name.rpartition(".")
    image_format = FORMAT_NAMES.get(ending.lower())
    if not stem or image_format is None:
        raise InvalidRequest.of("path", os.fspath(path), f"a name that ends in .{', .'.join(FORMAT_NAMES)}")
    unknown = sorted(set(options) & {"images", "output_dir", "filename", "save_path"})
    if unknown:
        raise InvalidRequest.of(unknown[0], options[unknown[0]], "nothing: the path says it")
    return SaveRequest([SaveImage(pixels, format=image_format)], output_dir=folder, filename=stem, **options)


def path_of(report: JobReport) -> str:
    """Return the path of the one file of a report. Raises EncodeError when there is none."""
    (image,) = report.images
    if image.state not in ("saved", "discarded"):
        raise EncodeError(f"{image.path} was not saved: {image.error or image.state}")
    return image.path


def save(pixels: Any, path: str | os.PathLike[str], **options: Any) -> str:
    """Save one image and return its path once the file is there; a name that exists gets a number.

    pixels: as in SaveImage. path: its ending names the format. options: those of SaveRequest, such as
    `png_compression=9`. Through the farm if one runs, else in this process. Raises InvalidRequest,
    EncodeError, DiskError.
    """
    from luna_farm_client.farm_client import FarmClient
    from luna_farm_client.in_process import save_here

    request = request_for(pixels, path, options)
    with FarmClient(restart_s=0.0) as farm:
        try:
            farm.ping()
        except (FarmUnavailable, Unauthorized):
            return path_of(save_here(request))
        return path_of(farm.wait(farm.submit(request)))
