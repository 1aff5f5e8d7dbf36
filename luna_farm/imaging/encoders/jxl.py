"""JPEG XL of 8 and 16 bits, by imagecodecs (libjxl, BSD), an optional package (`luna-farm[formats]`).

This module puts the compressed image into a container of its own when there is metadata. It must never use
more than one core: the farm runs several workers.

Quality 100 is lossless, the rest libjxl's own scale from quality to distance. Efforts, measured
(docs/formats.md): lossless 1 is quicker than any PNG of its size; lossy 3 (`jxl_effort`) is as quick as 1
and 7 % smaller.
Format: ISO/IEC 18181-2 (boxes).
"""

from __future__ import annotations

import struct
from typing import Any

from luna_farm.core.messages import SaveOptions
from luna_farm.imaging import metadata_exif
from luna_farm.imaging.depth import Pixels
from luna_farm.imaging.encoders import Encoded, colour_warning, needed
from luna_farm.imaging.marks import Marks
from luna_farm.imaging.metadata import Embedded

_LOSSLESS_EFFORT = 1
_SIGNATURE = struct.pack(">I4sI", 12, b"JXL ", 0x0D0A870A)
_FILE_TYPE = struct.pack(">I4s4sI4s", 20, b"ftyp", b"jxl ", 0, b"jxl ")


def encode(pixels: Pixels, options: SaveOptions, embedded: Embedded, marked: Marks) -> Encoded:
    """Encode [H, W, C] uint8 or uint16 as JPEG XL of quality `options.quality`, exact at 100."""
    try:
        import imagecodecs
    except ImportError as error:
        raise needed("jxl", "imagecodecs") from error
    image = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    quality = options.quality
    how: dict[str, Any]
    if quality >= 100:
        how = {"lossless": True, "effort": _LOSSLESS_EFFORT}
    else:
        how = {"distance": distance(quality), "effort": options.jxl_effort}
    stream = bytes(imagecodecs.jpegxl_encode(image, usecontainer=False, numthreads=1, **how))
    warnings = colour_warning("JPEG XL", marked, icc=False, cicp=False)
    exif = metadata_exif.block(embedded)
    if not exif and not marked.xmp:
        return Encoded([stream], warnings=warnings)
    head, codestream = _opened(stream)
    parts: list[bytes | memoryview] = [_SIGNATURE + _FILE_TYPE + head]
    if exif:
        # The box begins with the offset of the TIFF header in what follows: none.
        parts += [_box(b"Exif", 4 + len(exif)) + bytes(4), exif]
    if marked.xmp:
        parts += [_box(b"xml ", len(marked.xmp)), marked.xmp]
    return Encoded([*parts, *codestream], warnings=warnings)


def _opened(stream: bytes) -> tuple[bytes, list[bytes | memoryview]]:
    """Return what stands before the codestream in a container (its level), and the codestream in a box.

    libjxl makes a container by itself where a codestream needs level 10, as 16 bits without loss do.
    """
    if not stream.startswith(_SIGNATURE):
        return b"", [_box(b"jxlc", len(stream)), stream]
    at = len(_SIGNATURE + _FILE_TYPE)
    length = int.from_bytes(stream[at : at + 4], "big")
    level = stream[at : at + length] if stream[at + 4 : at + 8] == b"jxll" else b""
    return level, [memoryview(stream)[at + len(level) :]]


def distance(quality: int) -> float:
    """Return libjxl's distance for a quality of 1..99, as its JxlEncoderDistanceFromQuality: 1.0 at 90."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53.0 / 3000.0 * quality * quality - 23.0 / 20.0 * quality + 25.0


def _box(kind: bytes, length: int) -> bytes:
    if length + 8 < 2**32:
        return struct.pack(">I4s", length + 8, kind)
    return struct.pack(">I4sQ", 1, kind, length + 16)
