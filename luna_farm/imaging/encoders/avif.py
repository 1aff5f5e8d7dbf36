"""AVIF, by the codec that Pillow brings along. It must never use more than one core: the farm runs several
workers.

Speed 8 of 0..10, measured (docs/formats.md). ComfyUI's frontend reads the workflow from the same EXIF as in
WebP.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from luna_farm.core.messages import SaveOptions
from luna_farm.errors import EncodeError
from luna_farm.imaging import metadata_exif
from luna_farm.imaging.encoders import Encoded
from luna_farm.imaging.metadata import Embedded

_SPEED = 8


def encode(pixels: NDArray[np.uint8], options: SaveOptions, embedded: Embedded) -> Encoded:
    """Encode [H, W, C] uint8 as AVIF of quality `options.lossy_quality`."""
    from PIL import Image, features

    if not features.check("avif"):
        raise EncodeError(
            "this Pillow writes no AVIF; allowed: pillow>=11.3 from its wheels, or another format"
        )
    colours = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels  # Pillow's AVIF knows no gray
    out = io.BytesIO()
    Image.fromarray(colours).save(
        out,
        "AVIF",
        quality=options.lossy_quality,
        speed=_SPEED,
        max_threads=1,
        exif=metadata_exif.block(embedded),
    )
    return Encoded([out.getvalue()])
