"""The metadata of WebP, JPEG, AVIF, JXL and TIFF: an EXIF block.

IFD0 holds ASCII entries `key:text`: `prompt` under 0x0110, `workflow` under 0x010F, the other keys downwards
from there, as ComfyUI writes and its frontend reads them. UserComment holds the A1111 text. The block is
big-endian, because readers of UserComment take UTF-16 as big-endian whatever the header says (piexif, and
what A1111 does with it).

Facts from the frontend (1.27.10): it takes the offset field of every ASCII entry for an offset, so a text of
4 bytes or less, which TIFF keeps in that field, must not occur; values are split at the first colon.

The module writes numbers and texts only and must never contain an Orientation (readers would turn the
picture). Formats: TIFF 6.0 section 2; CIPA DC-008 (EXIF 2.32) 4.6.5 and table 9.
"""

from __future__ import annotations

import json
import struct
from typing import NamedTuple

from luna_farm.imaging.metadata import Embedded, Item

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
TAG_PROMPT = 0x0110
TAG_WORKFLOW = 0x010F
_TAG_EXIF_IFD = 0x8769
_TAG_USER_COMMENT = 0x9286
_IN_PLACE = 4  # bytes that fit into an entry itself


class Entry(NamedTuple):
    """One entry of an IFD: its tag, kind (TIFF type), number of values, and the bytes of the values."""

    tag: int
    kind: int
    values: int
    data: bytes


def block(embedded: Embedded) -> bytes:
    """Return the EXIF block from its TIFF header on, of even length, b"" where there is nothing to write."""
    entries, comment = ascii_entries(embedded), user_comment(embedded)
    if not entries and not comment:
        return b""
    header = struct.pack(">2sHI", b"MM", 42, 8)
    if comment:
        # The pointer needs the length of the first directory, which does not depend on where the pointer
        # points.
        pointer = Entry(_TAG_EXIF_IFD, LONG, 1, bytes(4))
        second = len(header) + len(directory([*entries, pointer], len(header)))
        entries.append(pointer._replace(data=struct.pack(">I", second)))
    written = header + directory(entries, len(header))
    if comment:
        written += directory([comment], len(written))
    return written


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
    entries = []
    tag = TAG_WORKFLOW
    for item in (*embedded.graph, *embedded.fields):
        if item.key == "prompt":
            entries.append(_ascii(TAG_PROMPT, item))
        else:
            entries.append(_ascii(tag, item))
            tag -= 1  # never reaches 0: `metadata.embed` bounds the number of keys
    return entries


def user_comment(embedded: Embedded) -> Entry | None:
    """Return the entry for UserComment (of the EXIF directory) with the A1111 text, None without one."""
    if not embedded.parameters:
        return None
    data = b"UNICODE\0" + embedded.parameters.encode("utf-16-be", "replace")
    return Entry(_TAG_USER_COMMENT, UNDEFINED, len(data), data)


def sidecar(embedded: Embedded) -> bytes:
    """Return everything as one JSON object in ASCII, for where EXIF cannot hold it: JSON texts stay JSON."""
    parts = [(item.key, item.text if item.is_json else json.dumps(item.text)) for item in embedded.graph]
    if embedded.parameters:
        parts.append(("parameters", json.dumps(embedded.parameters)))
    parts += [
        (item.key, item.text if item.is_json else json.dumps(item.text))
        for item in (*embedded.fields, *embedded.generation)
    ]
    body = ",\n".join(f"{json.dumps(key)}: {text}" for key, text in parts)
    return f"{{\n{body}\n}}\n".encode("ascii")


def _ascii(tag: int, item: Item) -> Entry:
    # Named ASCII by EXIF, but UTF-8 in practice (exiftool, the frontend); JSON texts are ASCII anyway.
    text = f"{item.key}:{item.text}".replace("\0", "")
    data = text.encode("utf-8", "replace").ljust(_IN_PLACE, b" ") + b"\0"
    return Entry(tag, ASCII, len(data), data)
