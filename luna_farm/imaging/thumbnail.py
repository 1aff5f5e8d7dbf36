"""Small JPEGs of images, for the dashboard, in two steps: `sample` copies some rows while the pixels are
there, `encode` makes the file of them later.

A sample reads twice as many rows as the thumbnail has: the copy costs a twentieth of a millisecond for
1024x1024, the JPEG half of one. This module must never read all pixels of a large image.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from luna_farm.imaging.depth import Pixels, convert
from luna_farm.imaging.resize import size_within

if TYPE_CHECKING:
    from PIL import Image

KEPT_SIDE = 256
"""Longest side of the thumbnails that are kept."""
LIVE_SIDE = 160
"""Of those that the feed sends along."""
_QUALITY = 75
_READ = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")
_OVERSAMPLING = 2  # rows read for each one kept: enough to look smooth
_MOST_COLUMNS = 8 * KEPT_SIDE


@dataclass(frozen=True, slots=True)
class Sample:
    """Some rows of an image of `height` x `width`: evenly spread, with all or evenly spread columns."""

    rows: Pixels
    height: int
    width: int


def sample(pixels: Pixels) -> Sample:
    """Return a copy of some rows of an image, [H, W, C], C = 1, 3 or 4, uint8, uint16 or floats (1.0 is
    full)."""
    height, width = pixels.shape[:2]
    wanted = _OVERSAMPLING * size_within(height, width, KEPT_SIDE)[0]
    rows = pixels
    if wanted < height:
        rows = pixels.take(((np.arange(wanted) + 0.5) * (height / wanted)).astype(np.intp), axis=0)
    step = max(1, width // _MOST_COLUMNS)
    copied = rows[:, ::step].copy() if step > 1 or rows is pixels else rows
    return Sample(copied, height, width)


def encode(taken: Sample, side: int) -> bytes:
    """Return a JPEG of at most `side` pixels on its longest side (never enlarged, at least 1 on the other);
    alpha is left out."""
    from PIL import Image

    grey = taken.rows.shape[2] == 1
    shown = np.ascontiguousarray(convert(taken.rows[:, :, : 1 if grey else 3], "8"))
    image = Image.fromarray(shown[:, :, 0] if grey else shown)
    return _jpeg(image, taken.height, taken.width, side)


def of_file(file: BinaryIO, size: int) -> bytes:
    """Return the thumbnail of an open image file of `size` bytes, for when its pixels are gone; b"" of a file
    of another size, or one that Pillow does not open."""
    from PIL import Image

    try:
        if os.fstat(file.fileno()).st_size != size:
            return b""
        with Image.open(file, formats=_READ) as found:
            height, width = found.height, found.width
            found.draft("RGB", (2 * KEPT_SIDE, 2 * KEPT_SIDE))  # JPEG: decodes a part of the frequencies only
            image = found.convert("L" if found.mode in ("1", "L", "I;16") else "RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return b""
    return _jpeg(image, height, width, KEPT_SIDE)


def _jpeg(image: Image.Image, height: int, width: int, side: int) -> bytes:
    from PIL import Image

    height, width = size_within(height, width, side)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=1.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
