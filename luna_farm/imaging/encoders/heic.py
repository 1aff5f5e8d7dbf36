"""HEIC of 8 and 10 bits, by pillow-heif (libheif with x265), an optional package whose wheels are GPL 2.

This module must never be imported where HEIC is not asked for, and never use more than one core.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from luna_farm.core.formats import FULL_COLOUR_FROM
from luna_farm.core.messages import SaveOptions
from luna_farm.imaging import metadata_exif
from luna_farm.imaging.depth import Pixels
from luna_farm.imaging.encoders import Encoded, needed
from luna_farm.imaging.marks import Marks
from luna_farm.imaging.metadata import Embedded

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def encode(pixels: Pixels, options: SaveOptions, embedded: Embedded, marked: Marks) -> Encoded:
    """Encode [H, W, C] uint8, or uint16 of full range in 10 bits, as HEIC of quality `lossy_quality`."""
    try:
        import pillow_heif
    except ImportError as error:
        raise needed("heic", "pillow-heif") from error
    height, width, channels = pixels.shape
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    deep = pixels.dtype == np.uint16
    mode = _MODES[channels] + (";16" if deep else "")
    image = pillow_heif.from_bytes(mode, (width, height), pixels.tobytes())
    colour = marked.colour
    how: dict[str, Any] = {
        "quality": options.lossy_quality,
        "chroma": 444 if options.lossy_quality >= FULL_COLOUR_FROM else 420,
        "matrix_coefficients": colour.matrix,
        "color_primaries": colour.primaries,
        "transfer_characteristics": colour.transfer,
        "full_range_flag": 1,
        "enc_params": {"x265:pools": "none", "x265:frame-threads": "1"},
    }
    exif = metadata_exif.block(embedded)
    if exif:
        how["exif"] = b"Exif\0\0" + exif
    if marked.xmp:
        how["xmp"] = marked.xmp
    if marked.icc:
        info: dict[str, Any] = image[0].info
        info |= {"icc_profile": marked.icc, "icc_profile_type": "prof"}
    out = io.BytesIO()
    image.save(out, **how)
    return Encoded([out.getbuffer()])
