"""Reads metadata out of files as other programs do: for tests of what the farm writes, here and in your
program.

`png_texts`, `webp_texts` and `avif_texts` behave as ComfyUI's frontend 1.27.10 does (its bundled code was
read), with its faults: it passes over the pad bytes of WebP chunks, takes the offset field of an EXIF entry
for an offset however short the text is, and knows no compressed or international text. What it cannot load,
they cannot. `parameters` reads as A1111's web UI does, by way of piexif. All raise ValueError for what is no
such file or is cut off.
"""

from __future__ import annotations

import json
import struct
from typing import Any

_ASCII = 2


def png_texts(file: bytes) -> dict[str, str]:
    """Return keyword -> text of a PNG as the frontend sees it: tEXt as UTF-8, iTXt with its flags."""
    if file[:4] != b"\x89PNG":
        raise ValueError("not a PNG file")
    texts, at = {}, 8
    while at < len(file):
        length = _number(file, at, ">I")
        if file[at + 4 : at + 8] in (b"tEXt", b"comf", b"iTXt"):
            keyword, _, text = file[at + 8 : at + 8 + length].partition(b"\0")
            texts[keyword.decode("latin-1")] = text.decode("utf-8", "replace")
        at += 12 + length
    return texts


def webp_texts(file: bytes) -> dict[str, str]:
    """Return what the frontend finds in the EXIF of a WebP: the part before the first colon -> the rest."""
    if file[:4] != b"RIFF" or file[8:12] != b"WEBP":
        raise ValueError("not a WebP file")
    at = 12
    while at < len(file):
        length = _number(file, at + 4, "<I")
        if file[at : at + 4] == b"EXIF":
            start = at + 8 + (6 if file[at + 8 : at + 14] == b"Exif\0\0" else 0)
            return _pairs(exif_texts(file[start : start + length]))
        at += 8 + length  # the frontend does not step over the pad byte
    return {}


def avif_texts(file: bytes) -> dict[str, Any]:
    """Return `prompt` and `workflow` of an AVIF, parsed, as the frontend finds them."""
    if file[4:12] != b"ftypavif":
        raise ValueError("not an AVIF file")
    meta = _box(file, 0, len(file), b"meta")
    item = _exif_item(file, _box(file, meta[0] + 4, meta[1], b"iinf"))
    start, length = _extent(file, _box(file, meta[0] + 4, meta[1], b"iloc"), item)
    exif = file[start : start + length]
    begins = [place for place in (exif.find(b"MM\0*"), exif.find(b"II*\0")) if place >= 0]
    if not begins:
        return {}
    pairs = _pairs(exif_texts(exif[min(begins) :]))
    return {
        key.lower(): json.loads(text) for key, text in pairs.items() if key.lower() in ("prompt", "workflow")
    }


def exif_texts(block: bytes) -> dict[int, str]:
    """Return tag -> text of the ASCII entries in the first directory of an EXIF block."""
    order = "<" if block[:2] == b"II" else ">"
    at = _number(block, 4, f"{order}I")
    texts = {}
    for entry in range(at + 2, at + 2 + 12 * _number(block, at, f"{order}H"), 12):
        tag, kind = _number(block, entry, f"{order}H"), _number(block, entry + 2, f"{order}H")
        count, start = _number(block, entry + 4, f"{order}I"), _number(block, entry + 8, f"{order}I")
        if kind == _ASCII:
            texts[tag] = block[start : start + count - 1].decode("utf-8", "replace")
    return texts


def jpeg_exif(file: bytes) -> bytes:
    """Return the EXIF block of a JPEG from its TIFF header on, b"" where there is none."""
    if file[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG file")
    at = 2
    while file[at : at + 1] == b"\xff" and file[at + 1 : at + 2] != b"\xda":  # until the image begins
        length = _number(file, at + 2, ">H")
        if file[at + 1 : at + 2] == b"\xe1" and file[at + 4 : at + 10] == b"Exif\0\0":
            return file[at + 10 : at + 2 + length]
        at += 2 + length
    return b""


def parameters(block: bytes) -> str:
    """Return the A1111 text in the UserComment of an EXIF block, "" where there is none."""
    order = "<" if block[:2] == b"II" else ">"
    at = _number(block, 4, f"{order}I")
    for tag in (0x8769, 0x9286):  # the EXIF directory, the comment in it
        entries = range(at + 2, at + 2 + 12 * _number(block, at, f"{order}H"), 12)
        found = [entry for entry in entries if _number(block, entry, f"{order}H") == tag]
        if not found:
            return ""
        count, at = _number(block, found[0] + 4, f"{order}I"), _number(block, found[0] + 8, f"{order}I")
    comment = block[at : at + count]
    if comment[:8] != b"UNICODE\0":
        raise ValueError(f"a UserComment in {comment[:8]!r}, not UNICODE")
    return comment[8:].decode("utf-16-be")  # piexif takes big-endian, whatever the header says


def _pairs(texts: dict[int, str]) -> dict[str, str]:
    pairs = {}
    for tag in sorted(texts):  # JavaScript walks whole-number keys in this order
        key, _, text = texts[tag].partition(":")
        pairs[key] = text
    return pairs


def _number(data: bytes, at: int, layout: str) -> int:
    try:
        return int(struct.unpack_from(layout, data, at)[0])
    except struct.error as error:
        raise ValueError(f"cut off at byte {at}") from error


def _box(file: bytes, start: int, end: int, kind: bytes) -> tuple[int, int]:
    """Return where the contents of the first box of a kind begin and end."""
    while start + 8 <= end:
        length = _number(file, start, ">I")
        if file[start + 4 : start + 8] == kind:
            return start + 8, start + length
        start += max(length, 8)
    raise ValueError(f"no box {kind!r}")


def _exif_item(file: bytes, iinf: tuple[int, int]) -> int:
    """Return the number of the item that is EXIF."""
    version = _number(file, iinf[0], ">B")
    at = iinf[0] + (6 if version == 0 else 8)
    while at + 8 <= iinf[1]:
        length = _number(file, at, ">I")
        body = file[at + 8 : at + length]
        wide = _number(body, 0, ">B") >= 3
        if body[8 + 2 * wide : 12 + 2 * wide] == b"Exif":
            return _number(body, 4, ">I" if wide else ">H")
        at += max(length, 8)
    raise ValueError("no EXIF item")


def _extent(file: bytes, iloc: tuple[int, int], wanted: int) -> tuple[int, int]:
    """Return where an item begins and how long it is; offsets and lengths of 4 bytes, no base."""
    version, at = _number(file, iloc[0], ">B"), iloc[0] + 6
    wide = version >= 2
    count = _number(file, at, ">I" if wide else ">H")
    at += 4 if wide else 2
    for _ in range(count):
        item = _number(file, at, ">I" if wide else ">H")
        at += (4 if wide else 2) + (2 if version else 0) + 2  # number, construction method, data reference
        extents = _number(file, at, ">H")
        if item == wanted and extents:
            return _number(file, at + 2, ">I"), _number(file, at + 6, ">I")
        at += 2 + 8 * extents
    raise ValueError("the EXIF item lies nowhere")
