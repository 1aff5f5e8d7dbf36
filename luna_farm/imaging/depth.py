"""Pixels of one depth into those of another, for encoders that store less or more than they are given.

uint8, uint16 and floats mean the same range: 255, 65535 and 1.0 are full. Floats become 8-bit values by
truncation, as in ComfyUI, and 16-bit values by rounding; integers are rounded. This module must never change
the pixels it is given, and never copies what has the right depth already.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.imaging.quantize import quantize, round_to_16

Pixels = NDArray[Any]
"""[H, W, C], C-contiguous, uint8, uint16, float16 or float32."""

_FULL = {"uint8": 255, "uint16": 65535}
_DTYPES = {"8": np.uint8, "10": np.uint16, "16": np.uint16, "half": np.float16, "float": np.float32}


def convert(pixels: Pixels, depth: str) -> Pixels:
    """Return `pixels` in `depth`, one of `core.formats.DEPTHS`.

    The 10 bits of AVIF and HEIC come as uint16 of full range here: see `to_bits`.
    """
    target = np.dtype(_DTYPES[depth])
    if pixels.dtype == target:
        return pixels
    if target.kind == "f":
        return to_floats(pixels, target)
    if pixels.dtype.kind == "f":
        out = np.empty(pixels.shape, target)
        if target == np.uint8:
            quantize(pixels, out)
        else:
            round_to_16(pixels.astype(np.float32), out)
        return out
    return _scaled(pixels, _FULL[pixels.dtype.name], _FULL[target.name]).astype(target)


def to_bits(pixels: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Return uint16 of full range as values of `bits` bits, rounded: 65535 becomes 2**bits - 1."""
    return _scaled(pixels, 65535, 2**bits - 1).astype(np.uint16)


def to_floats(pixels: Pixels, dtype: np.dtype[Any] | type = np.float32) -> Pixels:
    """Return floats of which 1.0 is full. float32 values beyond the range of half floats are clipped."""
    wanted = np.dtype(dtype)
    if pixels.dtype == wanted:
        return pixels
    floats = pixels.astype(np.float32)
    if pixels.dtype.kind == "u":
        floats /= np.float32(_FULL[pixels.dtype.name])
    if wanted == np.float16:
        largest = float(np.finfo(np.float16).max)
        np.clip(floats, -largest, largest, out=floats)
    return floats.astype(wanted, copy=False)


def _scaled(values: Pixels, full: int, wanted: int) -> NDArray[np.uint32]:
    return (values.astype(np.uint32) * np.uint32(wanted) + np.uint32(full // 2)) // np.uint32(full)
