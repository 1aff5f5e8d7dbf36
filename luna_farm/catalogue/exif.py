"""The texts of image files that are no PNG: from their EXIF block, their TIFF description, or their sidecar.

ASCII entries are `key:text`, as ComfyUI writes them; UserComment holds the A1111 text. It must never raise
for what a block holds.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
from typing import Any

from luna_farm.catalogue import facts

_EXIF_IFD, _USER_COMMENT, _DESCRIPTION = 0x8769, 0x9286, 0x010E
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_JXL_BOXES = b"\0\0\0\x0cJXL \r\n\x87\n"


def read(path: str, head: bytes, kind: str) -> tuple[int, int, dict[str, str]]:
    """Return width, height and texts of a file; sizes are 0 where no library here knows its format. Raises
    OSError and ValueError for what is no image."""
    if kind in ("jxl", "exr"):
        block = _jxl_exif(path, head) if kind == "jxl" else b""
        return *_size_of(block), texts_of(block)
    from PIL import Image, UnidentifiedImageError

    try:
        if kind == "heic":
            import pillow_heif

            pillow_heif.register_heif_opener()
        with Image.open(path) as image:
            tags = image.getexif()
            texts = _texts(tags)
            return *image.size, texts
    except ImportError:
        return 0, 0, {}
    except UnidentifiedImageError:
        if kind in ("avif", "heic"):  # a Pillow that does not know the format
            return 0, 0, {}
        raise
    except (SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def texts_of(block: bytes) -> dict[str, str]:
    """Return the texts of an EXIF block, with or without "Exif" before it."""
    return _texts(_loaded(block)) if block else {}


def _loaded(block: bytes) -> Any:
    from PIL import Image

    tags = Image.Exif()
    with contextlib.suppress(Exception):  # untrusted bytes: a block that cannot be read says nothing
        tags.load(block)
    return tags


def _size_of(block: bytes) -> tuple[int, int]:
    if not block:
        return 0, 0
    with contextlib.suppress(Exception):
        inner = _loaded(block).get_ifd(_EXIF_IFD)
        return int(inner.get(_PIXEL_WIDTH, 0)), int(inner.get(_PIXEL_HEIGHT, 0))
    return 0, 0


def _texts(tags: Any) -> dict[str, str]:
    texts: dict[str, str] = {}
    with contextlib.suppress(Exception):
        for tag, value in tags.items():
            if not isinstance(value, str):
                continue
            if tag == _DESCRIPTION and value.lstrip().startswith("{"):
                texts.update(facts.as_texts(json.loads(value.rstrip("\0"))))
                continue
            key, separator, text = value.rstrip("\0").partition(":")
            if separator and key == "more":
                texts.update(facts.as_texts(json.loads(text)))
            elif separator:
                texts.setdefault(key, _utf8(text))
    with contextlib.suppress(Exception):
        comment = _comment(tags.get_ifd(_EXIF_IFD).get(_USER_COMMENT, b""))
        if comment:
            texts.setdefault("parameters", comment)
    return texts


def _utf8(text: str) -> str:
    """Return a text that Pillow has read as Latin-1 and is UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _comment(value: Any) -> str:
    """Return the text of a UserComment: 8 bytes that name its code, then the text."""
    if isinstance(value, str):
        return value
    code, data = bytes(value[:8]), bytes(value[8:])
    if code.startswith(b"UNICODE"):
        # The standard leaves the order of bytes open: the one is right that gives the most ASCII.
        texts = [data.decode(name, "replace") for name in ("utf-16-be", "utf-16-le")]
        return max(texts, key=lambda text: sum(sign < "\x7f" for sign in text)).strip("\0")
    return data.decode("utf-8", "replace").strip("\0")


def _jxl_exif(path: str, head: bytes) -> bytes:
    """Return the EXIF block of a JPEG XL file in boxes, b"" for one without."""
    if not head.startswith(_JXL_BOXES):
        return b""
    with open(path, "rb") as file:
        while len(header := file.read(8)) == 8:
            length, kind = int.from_bytes(header[:4], "big"), header[4:]
            left = length - 8
            if length == 1:
                left = int.from_bytes(file.read(8), "big") - 16
            if kind == b"Exif" and 4 < left < 16 * 2**20:
                block = file.read(left)
                return block[4 + int.from_bytes(block[:4], "big") :]
            if length == 0 or left < 0:
                return b""
            file.seek(left, io.SEEK_CUR)
    return b""
