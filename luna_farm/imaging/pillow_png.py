"""Pillow's PNG writer with this project's encoder inside, for `luna_farm.png.register_pillow`.

Metadata is left to Pillow: its own writer saves a 1x1 image with the same options, and everything but the
size and the pixels is taken from that. So options and chunks are those of the installed Pillow, whatever
its version.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image, PngImagePlugin

from luna_farm.imaging.encoders import png

_pillow_save = PngImagePlugin._save
_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
# What makes Pillow write something else than the pixels as they are, or by zlib's own ways.
_NOT_OURS = ("bits", "dictionary", "compress_type", "save_all", "append_images")
_LEVEL, _OPTIMIZED_LEVEL = 4, 9


def register() -> None:
    """Make this Pillow's writer of PNG."""
    Image.preinit()
    Image.register_save(PngImagePlugin.PngImageFile.format, _save)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    options: dict[str, Any] = image.encoderinfo
    level = options.get("compress_level", -1)
    if hasattr(level, "__index__"):  # bool, or a number of numpy: Pillow takes them for numbers
        level = int(level)
    if (
        image.mode not in _MODES
        or 0 in image.size
        or any(name in options for name in _NOT_OURS)
        or level not in range(-1, 10)
    ):
        _pillow_save(image, file, filename)
        return
    level = _OPTIMIZED_LEVEL if options.get("optimize") else _LEVEL if level == -1 else level
    before, after = _metadata(image)
    pixels = np.asarray(image)
    pixels = np.ascontiguousarray(pixels.reshape(image.height, image.width, -1))
    head, *data, end = png.encode(pixels, level=level, chunks=before)
    for part in (head, *data, *after, end):
        file.write(part)
    if hasattr(file, "flush"):
        file.flush()


def _metadata(image: Image.Image) -> tuple[list[bytes], list[bytes]]:
    """The whole chunks that Pillow writes before and after the pixels, without header and end."""
    tiny = Image.new(image.mode, (1, 1))
    tiny.info, tiny.encoderinfo = image.info, image.encoderinfo
    file = io.BytesIO()
    _pillow_save(tiny, file, "")
    before: list[bytes] = []
    after: list[bytes] = []
    seen = before
    for kind, whole in _chunks_of(file.getvalue()):
        if kind == b"IDAT":
            seen = after
        elif kind not in (b"IHDR", b"IEND"):
            seen.append(whole)
    return before, after


def _chunks_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(png.SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + 12 + length]
        at += 12 + length
