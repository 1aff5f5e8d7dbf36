"""The metadata of WebP, JPEG, AVIF, HEIC, JXL and TIFF: an EXIF block.

IFD0 holds ASCII entries `key:text`, as ComfyUI writes and its frontend reads them: `prompt` under 0x0110,
`workflow` under 0x010F, every other key under a tag that EXIF, TIFF or DNG defines as a text. UserComment
holds the A1111 text. The tags that EXIF demands are there, so that `exiftool -validate` finds no fault. The
block is big-endian, because readers of UserComment take UTF-16 as big-endian whatever the header says
(piexif, and what A1111 does with it).

Facts from the frontend (1.27.10 and 1.58.1): it takes the offset field of every ASCII entry for an offset, so
a text of 4 bytes or less, which TIFF keeps in that field, must not occur; values are split at the first
colon; the tag does not matter.

The module must never contain an Orientation (readers would turn the image). Formats: TIFF 6.0 section 2; CIPA
DC-008 (EXIF 2.32) 4.6.5 and tables 4, 9 and 18.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from luna_farm.imaging.metadata import Embedded, Item

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
TAG_PROMPT = 0x0110
TAG_WORKFLOW = 0x010F
TEXT_TAGS = (
    *(
        0x010E,
        0x010D,
        0x011D,
        0x0151,
        0x014D,
        0x013C,
    ),  # TIFF: description, document, page, ...
    *(0xC6F4, 0xC6F6, 0xC6F8, 0xC6FE, 0xC716, 0xC7A1, 0xC68B, 0xC62F),  # DNG: names of profiles and files
)
"""Tags that are texts, for the other keys in order; the last one holds all that are left, as JSON."""
REST = "more"
"""Key of the last of TEXT_TAGS."""
_TAG_EXIF_IFD = 0x8769
_TAG_USER_COMMENT = 0x9286
_IN_PLACE = 4  # bytes that fit into an entry itself
_SRGB, _UNCALIBRATED = 1, 0xFFFF


class Entry(NamedTuple):
    """One entry of an IFD: its tag, kind (TIFF type), number of values, and the bytes of the values."""

    tag: int
    kind: int
    values: int
    data: bytes


def block(embedded: Embedded) -> bytes:
    """Return the EXIF block from its TIFF header on, of even length, b"" where there is nothing to write."""
    texts, comment = ascii_entries(embedded), user_comment(embedded)
    if not texts and not comment:
        return b""
    first = [
        *texts,
        _rational(0x011A, 72),
        _rational(0x011B, 72),
        _short(0x0128, 2),  # dots per inch
        _short(0x0213, 1),  # colour samples in the centre
    ]
    second = [
        Entry(0x9000, UNDEFINED, 4, b"0232"),
        Entry(0x9101, UNDEFINED, 4, b"\1\2\3\0"),  # Y, Cb, Cr
        Entry(0xA000, UNDEFINED, 4, b"0100"),
        _short(0xA001, _SRGB if embedded.srgb else _UNCALIBRATED),
        *([comment] if comment else []),
    ]
    if embedded.width and embedded.height:
        second += [_long(0xA002, embedded.width), _long(0xA003, embedded.height)]
    header = struct.pack(">2sHI", b"MM", 42, 8)
    # The pointer needs the length of the first directory, which does not depend on where the pointer points.
    behind = len(header) + len(directory([*first, _long(_TAG_EXIF_IFD, 0)], len(header)))
    written = header + directory([*first, _long(_TAG_EXIF_IFD, behind)], len(header))
    return written + directory(second, len(written))


def fitting(embedded: Embedded, limit: int) -> Embedded:
    """Return what fits into a block of `limit` bytes: the parameters, then workflow, prompt, and the rest.

    The block of nothing is b"".
    """
    kept = Embedded(width=embedded.width, height=embedded.height, srgb=embedded.srgb)
    graph = {item.key: item for item in embedded.graph}
    wanted = [graph.pop(key) for key in ("workflow", "prompt") if key in graph]
    tries = [replace(kept, parameters=embedded.parameters)] if embedded.parameters else []
    for attempt in tries:
        kept = attempt if len(block(attempt)) <= limit else kept
    for item in (*wanted, *embedded.fields, *graph.values()):
        if len(item.text) > limit:
            continue
        if item in embedded.fields:
            attempt = replace(kept, fields=(*kept.fields, item))
        else:
            attempt = replace(kept, graph=(*kept.graph, item))
        kept = attempt if len(block(attempt)) <= limit else kept
    return kept


def directory(entries: list[Entry], offset: int, order: str = ">") -> bytes:
    """Return an IFD that is to stand at `offset`, with its values behind it, of even length.

    entries: sorted here by tag, as TIFF demands. order: ">" big-endian or "<"; the data of the entries must
    be in it.
    """
    entries = sorted(entries)
    values = bytearray()
    values_at = offset + 2 + 12 * len(entries) + 4
    table = [struct.pack(f"{order}H", len(entries))]
    for entry in entries:
        if len(entry.data) <= _IN_PLACE:
            place = entry.data.ljust(_IN_PLACE, b"\0")
        else:
            place = struct.pack(f"{order}I", values_at + len(values))
            values += entry.data
            values += b"\0" * (len(values) % 2)
        table.append(struct.pack(f"{order}HHI4s", entry.tag, entry.kind, entry.values, place))
    table.append(bytes(4))  # no further directory
    return b"".join(table) + bytes(values)


def ascii_entries(embedded: Embedded) -> list[Entry]:
    """Return `key:text` entries. `gen_<field>` has none here: `generation_metadata` says the same."""
    own = {"prompt": TAG_PROMPT, "workflow": TAG_WORKFLOW}
    items = (*embedded.graph, *embedded.fields)
    entries = [_ascii(own[item.key], item) for item in items if item.key in own]
    others = [item for item in items if item.key not in own]
    if len(others) > len(TEXT_TAGS):
        split = len(TEXT_TAGS) - 1
        others[split:] = [Item(REST, _object(others[split:], ","), True)]
    return entries + [_ascii(tag, item) for tag, item in zip(TEXT_TAGS, others, strict=False)]


def user_comment(embedded: Embedded) -> Entry | None:
    """Return the entry for UserComment (of the EXIF directory) with the A1111 text, None without one."""
    if not embedded.parameters:
        return None
    data = b"UNICODE\0" + embedded.parameters.encode("utf-16-be", "replace")
    return Entry(_TAG_USER_COMMENT, UNDEFINED, len(data), data)


def sidecar(embedded: Embedded) -> bytes:
    """Return everything as one JSON object in ASCII, for what the file cannot hold: JSON texts stay JSON."""
    comment = [Item("parameters", embedded.parameters, False)] if embedded.parameters else []
    items = (*embedded.graph, *comment, *embedded.fields, *embedded.generation, *embedded.beside)
    return (_object(items, ",\n", "\n") + "\n").encode("ascii")


def _object(items: Sequence[Item], between: str, around: str = "") -> str:
    parts = [f"{json.dumps(i.key)}: {i.text if i.is_json else json.dumps(i.text)}" for i in items]
    return f"{{{around}{between.join(parts)}{around}}}"


def _short(tag: int, value: int) -> Entry:
    return Entry(tag, SHORT, 1, struct.pack(">H", value))


def _long(tag: int, value: int) -> Entry:
    return Entry(tag, LONG, 1, struct.pack(">I", value))


def _rational(tag: int, value: int) -> Entry:
    return Entry(tag, RATIONAL, 1, struct.pack(">II", value, 1))


def _ascii(tag: int, item: Item) -> Entry:
    # Named ASCII by EXIF, but UTF-8 in practice (exiftool, the frontend); JSON texts are ASCII anyway.
    text = f"{item.key}:{item.text}".replace("\0", "")
    data = text.encode("utf-8", "replace").ljust(_IN_PLACE, b" ") + b"\0"
    return Entry(tag, ASCII, len(data), data)
