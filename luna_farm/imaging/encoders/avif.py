"""AVIF of 8 and 10 bits. It must never use more than one core: the farm runs several workers.

Two libraries on the same libavif: imagecodecs, an optional package, wherever it is installed, since it takes
four fifths of Pillow's time for the same quality and offers what Pillow does not (10 bits, quality 100, which
is exact, HLG and PQ); Pillow, which is always there, for the rest.

Speed 8 of 0..10 unless `avif_speed` says otherwise, measured (docs/formats.md). Colour is stored in full from
quality 90 on (4:4:4), below it at half the resolution (4:2:0). ComfyUI's frontend reads the workflow from the
same EXIF as in WebP.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from luna_farm.core.formats import FULL_COLOUR_FROM
from luna_farm.core.messages import SaveOptions
from luna_farm.errors import EncodeError
from luna_farm.imaging import metadata_exif
from luna_farm.imaging.depth import Pixels, to_bits
from luna_farm.imaging.encoders import Encoded, isobmff, needed
from luna_farm.imaging.marks import Marks
from luna_farm.imaging.metadata import Embedded

EXACT = 100
_BITS = 10
_RGB = 0
"""The matrix (H.273 table 4) that leaves RGB as it is, the only exact one."""


def encode(pixels: Pixels, options: SaveOptions, embedded: Embedded, marked: Marks) -> Encoded:
    """Encode [H, W, C] uint8, or uint16 of full range in 10 bits, as AVIF of quality `options.quality`."""
    exif = metadata_exif.block(embedded)
    plain = pixels.dtype == np.uint8 and options.quality < EXACT and not marked.hdr
    if plain and (pixels.shape[2] == 1 or not _has_imagecodecs()):
        return Encoded([_by_pillow(pixels, options, exif, marked)])
    file = _by_imagecodecs(pixels, options, marked)
    return Encoded(isobmff.with_items(file, exif=exif, xmp=marked.xmp, icc=marked.icc))


def _has_imagecodecs() -> bool:
    try:
        import imagecodecs
    except ImportError:
        return False
    return bool(imagecodecs.AVIF.available)


def subsampling(quality: int) -> str:
    """Return how colour is stored, in Pillow's words."""
    return "4:4:4" if quality >= FULL_COLOUR_FROM else "4:2:0"


def check_pillow() -> None:
    """Raise EncodeError if this Pillow writes no AVIF."""
    from PIL import features

    if not features.check("avif"):
        raise EncodeError(
            "this Pillow writes no AVIF; allowed: pillow>=11.3 from its wheels, or another format"
        )


def _by_pillow(pixels: Pixels, options: SaveOptions, exif: bytes, marked: Marks) -> bytes:
    from PIL import Image

    check_pillow()
    gray = pixels.shape[2] == 1
    how: dict[str, Any] = {} if gray else {"subsampling": subsampling(options.quality)}
    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if gray else pixels).save(
        out,
        "AVIF",
        quality=options.quality,
        speed=options.avif_speed,
        max_threads=1,
        exif=exif,
        xmp=marked.xmp,
        icc_profile=marked.icc,
        **how,
    )
    return out.getvalue()


def _by_imagecodecs(pixels: Pixels, options: SaveOptions, marked: Marks) -> bytes:
    """Return an AVIF without metadata, exact at quality 100; uint16 pixels are stored in 10 bits."""
    try:
        import imagecodecs
    except ImportError as error:
        raise needed("avif", "imagecodecs for 10 bits, quality 100, HLG and PQ") from error
    quality = options.quality
    deep = pixels.dtype == np.uint16
    values = to_bits(pixels, _BITS) if deep else pixels
    gray = values.shape[2] == 1
    if gray and quality < EXACT:
        values = np.repeat(values, 3, axis=2)  # imagecodecs stores one channel exactly, whatever the quality
        gray = False
    colour = marked.colour
    name = "YUV400" if gray else f"YUV{subsampling(quality).replace(':', '')}"
    try:
        file = imagecodecs.avif_encode(
            values[:, :, 0] if gray else values,
            quality,
            speed=options.avif_speed,
            bitspersample=_BITS if deep else 8,
            pixelformat=imagecodecs.AVIF.PIXEL_FORMAT[name],
            primaries=colour.primaries,
            transfer=colour.transfer,
            matrix=colour.matrix if gray or quality < EXACT else _RGB,
            numthreads=1,
        )
    except TypeError as error:  # releases for Python 3.10 do not know what colours mean
        raise needed("avif", f"a newer imagecodecs than {imagecodecs.__version__} (Python 3.11)") from error
    return bytes(file)
