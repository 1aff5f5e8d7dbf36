"""A small JPEG of an image, for the dashboard. It must never read more than a fraction of the pixels."""

from __future__ import annotations

import io

import numpy as np

from luna_farm.imaging.depth import Pixels, convert

LONGEST_SIDE = 160
_QUALITY = 70
_OVERSAMPLING = 2  # pixels read for each one kept, in either direction: enough to look smooth


def thumbnail(pixels: Pixels) -> bytes:
    """Return a JPEG of at most 160 pixels on its longest side (never enlarged, at least 1 on the other).

    pixels: [H, W, C], C = 1, 3 or 4, uint8, uint16 or floats (1.0 is full); alpha is left out.
    """
    from PIL import Image

    height, width, channels = pixels.shape
    step = max(1, max(height, width) // (LONGEST_SIDE * _OVERSAMPLING))
    sample = pixels[::step, ::step]
    # An extreme format would lose its short side: an image of one row is still one row.
    colours = np.ascontiguousarray(sample[:, :, :1] if channels == 1 else sample[:, :, :3])
    shown = convert(colours, "8")
    image = Image.fromarray(shown[:, :, 0] if channels == 1 else shown)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
