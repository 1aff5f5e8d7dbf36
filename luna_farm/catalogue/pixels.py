"""What only the pixels of a file say: its scores and its perceptual hash. Needs numpy and Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from luna_farm.errors import InvalidRequest
from luna_farm.imaging import checksum, scores
from luna_farm.imaging.unreadable import check_kind, unreadable

ALLOWED = "an image"


def read(path: str) -> dict[str, Any]:
    """Return the fields of a row that are computed from a whole file; {} for one that cannot be decoded."""
    try:
        data = Path(path).read_bytes()
        found = scores.measure(decoded(path))
    except (OSError, InvalidRequest):
        return {}
    return {"crc32": checksum.crc32([data]), **found.to_map()}


def phash_of(path: str) -> str:
    """Return the perceptual hash of an image file. Raises InvalidRequest for what is none."""
    return scores.measure(decoded(path)).phash


def phash_of_array(pixels: Any) -> str:
    """Return the perceptual hash of an array or tensor, [H, W], [H, W, C] or [1, H, W, C], uint8, uint16 or
    floats (1.0 is full). Raises InvalidRequest."""
    array = np.asarray(pixels.cpu() if hasattr(pixels, "cpu") else pixels)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    array = array[:, :, None] if array.ndim == 2 else array
    known = array.dtype in (np.uint8, np.uint16) or array.dtype.kind == "f"
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not known or not array.size:
        allowed = "a path, or pixels [H, W, C], C = 1, 3 or 4, uint8, uint16 or floats"
        raise InvalidRequest.of("similar", f"{array.dtype} {array.shape}", allowed)
    wanted = array.astype(np.float32) if array.dtype.kind == "f" else array
    return scores.measure(np.ascontiguousarray(wanted)).phash


def decoded(path: str) -> Any:
    """Return the pixels of an image file, [H, W, C] uint8 or uint16. Raises InvalidRequest."""
    from PIL import Image, UnidentifiedImageError

    try:
        check_kind(path, ALLOWED)
        with Image.open(path) as image:
            mode = "RGBA" if image.has_transparency_data else "RGB"
            wanted = image if image.mode in ("L", "RGB", "RGBA", "I;16") else image.convert(mode)
            pixels = np.asarray(wanted)
    except InvalidRequest:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, ValueError, OSError, SyntaxError) as error:
        raise unreadable(path, error, ALLOWED) from error
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[:, :, None])
