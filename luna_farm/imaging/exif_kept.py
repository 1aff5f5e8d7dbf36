"""The EXIF of another file: the texts that ComfyUI and this farm put there, and of the rest what stays true
when the image is saved again.

Kept are camera, lens, exposure, place, people and dates. Left out is what describes the old file (sides,
strips, orientation, thumbnail) or breaks when it is moved (maker notes), and what the new file says itself
(colour space, resolution). This module must never raise for what a foreign file holds.

Format: TIFF 6.0 section 2; CIPA DC-008 (EXIF 2.32) 4.6.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

ASCII, UNDEFINED = 2, 7
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_UNITS = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8}
"""Bytes of a number by its kind, where the order of bytes counts."""
_POINTER_EXIF, _POINTER_GPS, _USER_COMMENT = 0x8769, 0x8825, 0x9286
OWN_KEYS = frozenset(
    (
        *("prompt", "workflow", "parameters", "generation_metadata", "custom_metadata", "image_type"),
        *("model_name", "model_path", "model_hashes", "save_timestamp", "batch_index", "more"),
    )
)
"""Keys of the texts that this farm writes (`metadata_exif`)."""
RARE_TAGS = (0x011D, 0x0151, 0x014D, 0xC6F4, 0xC6F6, 0xC6F8, 0xC6FE, 0xC716, 0xC7A1, 0xC68B, 0xC62F)
"""Tags that are texts and that few other files have (TIFF: page, inks; DNG: names of profiles and files)."""
REST = "more"
"""Key of a JSON map of further texts."""
# Description, make, model, software, date, artist, host, copyright, rating, and Windows' title, comment,
# author, keywords and subject.
_FIRST = frozenset(
    (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, *range(0x9C9B, 0x9CA0))
)
# Versions, colour and sides, which are those of the new file; interoperability and maker notes.
_NOT_SECOND = frozenset((0x9000, 0x9101, 0xA000, 0xA001, 0xA002, 0xA003, 0xA005, 0x927C))
_MOST_ENTRIES = 1000
_ORDERS = {b"II": "<", b"MM": ">"}


class Entry(NamedTuple):
    """One entry of an IFD: its tag, kind (TIFF type), number of values, and the bytes of the values."""

    tag: int
    kind: int
    values: int
    data: bytes

    def in_order(self, order: str) -> Entry:
        """Return an entry whose data is big-endian in another order of bytes, "<" or ">"."""
        return self._replace(data=_swapped(self.data, self.kind)) if order == "<" else self


_GPS_VERSION = {0: Entry(0, 1, 4, b"\2\3\0\0")}
"""Demanded by the standard, and often missing."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Entries of the three directories, big-endian: the first one, that of EXIF, that of GPS."""

    first: tuple[Entry, ...] = ()
    second: tuple[Entry, ...] = ()
    gps: tuple[Entry, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.first or self.second or self.gps)


@lru_cache(maxsize=4)
def kept(block: bytes) -> Kept:
    """Return what is worth keeping of an EXIF block, from its TIFF header on; nothing of what is none."""
    order = _ORDERS.get(block[:2])
    if order is None or len(block) < 8:
        return Kept()
    first = {entry.tag: entry for entry in _entries(block, _number(block, 4, order, "I"), order)}
    second = _behind(block, first.get(_POINTER_EXIF), order)
    gps = _behind(block, first.get(_POINTER_GPS), order)
    return Kept(
        tuple(e for e in first.values() if e.tag in _FIRST and e.data.strip(b"\0 ") and not _texts_in(e)),
        tuple(e for e in second.values() if e.tag not in _NOT_SECOND and not _parameters_in(e)),
        tuple({**_GPS_VERSION, **gps}.values()) if gps else (),
    )


def texts(block: bytes) -> dict[str, str]:
    """Return what the ComfyUI of the file wrote as texts: `prompt`, `workflow`, A1111's `parameters`, and so
    on; JSON texts as they are."""
    order = _ORDERS.get(block[:2])
    if order is None or len(block) < 8:
        return {}
    first = {entry.tag: entry for entry in _entries(block, _number(block, 4, order, "I"), order)}
    found: dict[str, str] = {}
    for entry in first.values():
        found |= _texts_in(entry)
    for entry in _behind(block, first.get(_POINTER_EXIF), order).values():
        if parameters := _parameters_in(entry):
            found["parameters"] = parameters
    return found


def _texts_in(entry: Entry) -> dict[str, str]:
    """Return the texts in an entry: one as `key:text`, or many as a JSON map, as TIFF files have them."""
    if entry.kind != ASCII:
        return {}
    text = entry.data.split(b"\0", 1)[0].decode("utf-8", "replace")
    key, colon, value = text.partition(":")
    if text.startswith("{"):
        key, value = REST, text
    elif not colon or not (key in OWN_KEYS or entry.tag in RARE_TAGS or _is_json(value)):
        return {}
    if key != REST:
        return {key: value.strip() if key in OWN_KEYS else value}
    held = _parsed(value)
    if not isinstance(held, dict) or (text.startswith("{") and OWN_KEYS.isdisjoint(held)):
        return {}
    return {name: one if isinstance(one, str) else json.dumps(one) for name, one in held.items()}


def _parameters_in(entry: Entry) -> str:
    """Return A1111's text in a comment, "" for another comment."""
    if entry.tag != _USER_COMMENT or entry.data[:8] != b"UNICODE\0":
        return ""
    text = entry.data[8:].decode("utf-16-be", "replace")  # whatever the order of the block, see metadata_exif
    if "Steps: " not in text:
        text = entry.data[8:].decode("utf-16-le", "replace")
    return text.strip("\0 ") if "Steps: " in text else ""


def _is_json(text: str) -> bool:
    return text.startswith(("{", "[")) and _parsed(text) is not None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _behind(block: bytes, pointer: Entry | None, order: str) -> dict[int, Entry]:
    if pointer is None or len(pointer.data) != 4:
        return {}
    return {entry.tag: entry for entry in _entries(block, int.from_bytes(pointer.data, "big"), order)}


def _entries(block: bytes, at: int, order: str) -> Iterator[Entry]:
    count = min(_number(block, at, order, "H"), _MOST_ENTRIES)
    for start in range(at + 2, at + 2 + 12 * count, 12):
        if start + 12 > len(block):
            return
        tag, kind, values = struct.unpack_from(f"{order}HHI", block, start)
        size = _SIZES.get(kind, 0) * values
        place = start + 8 if size <= 4 else _number(block, start + 8, order, "I")
        data = block[place : place + size]
        if size and len(data) == size:
            yield Entry(tag, kind, values, data if order == ">" else _swapped(data, kind))


def _number(block: bytes, at: int, order: str, layout: str) -> int:
    """Return a number of a block, 0 beyond its end."""
    size = struct.calcsize(layout)
    return int(struct.unpack_from(order + layout, block, at)[0]) if at + size <= len(block) else 0


def _swapped(data: bytes, kind: int) -> bytes:
    unit = _UNITS.get(kind, 1)
    return b"".join(data[at : at + unit][::-1] for at in range(0, len(data), unit)) if unit > 1 else data
