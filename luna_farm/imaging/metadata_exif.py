"""The metadata of WebP, JPEG, AVIF, HEIC, JXL and TIFF: an EXIF block.

IFD0 holds ASCII entries `key:text`, as ComfyUI writes and its frontend reads them: `prompt` under 0x0110,
`workflow` under 0x010F, every other key under a tag that EXIF, TIFF or DNG defines as a text. UserComment
holds the A1111 text. The tags that EXIF demands are there, so that `exiftool -validate` finds no fault. The
block is big-endian, because readers of UserComment take UTF-16 as big-endian whatever the header says
(piexif, and what A1111 does with it).

What is kept of the EXIF of another file stands under its own tags; the texts then take those that are free.

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
from fractions import Fraction

from luna_farm.imaging.documents import Item
from luna_farm.imaging.exif_kept import RARE_TAGS, REST, Kept, kept
from luna_farm.imaging.exif_kept import Entry as Entry
from luna_farm.imaging.metadata import Embedded

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
TAG_PROMPT = 0x0110
TAG_WORKFLOW = 0x010F
TEXT_TAGS = (0x010E, 0x010D, 0x013C, *RARE_TAGS)
"""Tags that are texts, for the other keys in order; the last one holds all that are left, as JSON."""
_TAG_EXIF_IFD, _TAG_GPS_IFD = 0x8769, 0x8825
_TAG_USER_COMMENT = 0x9286
_IN_PLACE = 4  # bytes that fit into an entry itself
_SRGB, _UNCALIBRATED = 1, 0xFFFF


def block(embedded: Embedded) -> bytes:
    """Return the EXIF block from its TIFF header on, of even length, b"" where there is nothing to write."""
    texts, comment, old = ascii_entries(embedded), user_comment(embedded), kept(embedded.exif)
    if not (texts or comment or old or embedded.dpi):
        return b""
    dots = resolution(embedded.dpi)
    first = [
        *map(_legible, old.first),
        *texts,
        _rational(0x011A, dots),
        _rational(0x011B, dots),
        _short(0x0128, 2),  # dots per inch
        _short(0x0213, 1),  # colour samples in the centre
    ]
    header = struct.pack(">2sHI", b"MM", 42, 8)
    return header + directories(first, exif_entries(embedded, comment, old), old.gps, len(header))


def standalone(embedded: Embedded, old: Kept) -> bytes:
    """Return an EXIF block with what is kept of another file alone, b"" for nothing: for PNG, which has its
    own places for texts and resolution."""
    if not old:
        return b""
    header = struct.pack(">2sHI", b"MM", 42, 8)
    return header + directories(list(old.first), exif_entries(embedded, None, old), old.gps, len(header))


def exif_entries(embedded: Embedded, comment: Entry | None, old: Kept, of_tiff: bool = False) -> list[Entry]:
    """Return the entries of the EXIF directory: what the standard demands, and what is kept."""
    second = [
        *(entry for entry in old.second if not (comment and entry.tag == _TAG_USER_COMMENT)),
        Entry(0x9000, UNDEFINED, 4, b"0232"),
        Entry(0xA000, UNDEFINED, 4, b"0100"),
        _short(0xA001, _SRGB if embedded.srgb else _UNCALIBRATED),
        *([comment] if comment else []),
    ]
    if of_tiff:  # which has tags of its own for both
        return second
    second.append(Entry(0x9101, UNDEFINED, 4, b"\1\2\3\0"))  # Y, Cb, Cr
    if embedded.width and embedded.height:
        second += [_long(0xA002, embedded.width), _long(0xA003, embedded.height)]
    return second


def directories(
    first: Sequence[Entry], second: Sequence[Entry], gps: Sequence[Entry], offset: int, order: str = ">"
) -> bytes:
    """Return the first directory, which is to stand at `offset`, and behind it those of EXIF and GPS, each
    only if it has entries. The data of `first` is in `order`, that of the others big-endian."""
    further = {_TAG_EXIF_IFD: second, _TAG_GPS_IFD: gps}
    tags = [tag for tag, entries in further.items() if entries]
    # The pointers need the length of the first directory, which does not depend on where they point.
    at = offset + len(directory([*first, *(_long(tag, 0) for tag in tags)], offset, order))
    behind, pointers = b"", []
    for tag in tags:
        pointers.append(_long(tag, at + len(behind)).in_order(order))
        entries = [entry.in_order(order) for entry in further[tag]]
        behind += directory(entries, at + len(behind), order)
    return directory([*first, *pointers], offset, order) + behind


def resolution(dpi: float) -> tuple[int, int]:
    """Return dots per inch as a fraction; 72 where nothing is known."""
    dots = Fraction(dpi or 72).limit_denominator(10_000)
    return dots.numerator, dots.denominator


def _legible(entry: Entry) -> Entry:
    """Lengthen a text of 4 bytes or less, which the frontend would take for an offset."""
    if entry.kind != ASCII or len(entry.data) > _IN_PLACE:
        return entry
    data = entry.data.ljust(_IN_PLACE + 1, b"\0")
    return Entry(entry.tag, ASCII, len(data), data)


def fitting(embedded: Embedded, limit: int) -> Embedded:
    """Return what fits into a block of `limit` bytes: the parameters, then workflow, prompt, and the rest.

    The block of nothing is b"".
    """
    fits = replace(embedded, graph=(), parameters="", fields=(), generation=(), beside=())
    if len(block(fits)) > limit:
        fits = replace(fits, exif=b"")
    graph = {item.key: item for item in embedded.graph}
    wanted = [graph.pop(key) for key in ("workflow", "prompt") if key in graph]
    tries = [replace(fits, parameters=embedded.parameters)] if embedded.parameters else []
    for attempt in tries:
        fits = attempt if len(block(attempt)) <= limit else fits
    for item in (*wanted, *embedded.fields, *graph.values()):
        if len(item.text) > limit:
            continue
        if item in embedded.fields:
            attempt = replace(fits, fields=(*fits.fields, item))
        else:
            attempt = replace(fits, graph=(*fits.graph, item))
        fits = attempt if len(block(attempt)) <= limit else fits
    return fits


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
    taken = {entry.tag for entry in kept(embedded.exif).first}
    own = {"prompt": TAG_PROMPT, "workflow": TAG_WORKFLOW}
    own = {key: tag for key, tag in own.items() if tag not in taken}
    free = [tag for tag in TEXT_TAGS if tag not in taken]
    items = (*embedded.graph, *embedded.fields)
    entries = [_ascii(own[item.key], item) for item in items if item.key in own]
    others = [item for item in items if item.key not in own]
    if len(others) > len(free):
        split = len(free) - 1
        others[split:] = [Item(REST, _object(others[split:], ","), True)]
    return entries + [_ascii(tag, item) for tag, item in zip(free, others, strict=False)]


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


def _rational(tag: int, value: tuple[int, int]) -> Entry:
    return Entry(tag, RATIONAL, 1, struct.pack(">II", *value))


def _ascii(tag: int, item: Item) -> Entry:
    # Named ASCII by EXIF, but UTF-8 in practice (exiftool, the frontend); JSON texts are ASCII anyway.
    text = f"{item.key}:{item.text}".replace("\0", "")
    data = text.encode("utf-8", "replace").ljust(_IN_PLACE, b" ") + b"\0"
    return Entry(tag, ASCII, len(data), data)
