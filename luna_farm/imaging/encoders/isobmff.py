"""Puts EXIF, XMP and an ICC profile into an AVIF file that an encoder made without them.

The compressed image stays where it is; only the `meta` box is written anew, and the new items stand in an
`mdat` box of their own at the end. This module must never touch a compressed byte.

Formats: ISO/IEC 14496-12 8.11 (meta, iinf, iloc, iref, iprp) and 12.1.5 (colr); ISO/IEC 23008-12 A.2 (Exif,
XMP).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from luna_farm.errors import EncodeError

Buffer = bytes | memoryview


def with_items(file: bytes, *, exif: bytes = b"", xmp: bytes = b"", icc: bytes = b"") -> list[Buffer]:
    """Return the parts of `file` with more items.

    file: an AVIF of ftyp, meta and mdat. exif: from the TIFF header on. Raises EncodeError for a file that is
    built in a way this module does not know.
    """
    items = []
    if exif:
        items.append((b"Exif", b"", bytes(4) + exif))  # four bytes: where the TIFF header begins, from here
    if xmp:
        items.append((b"mime", b"application/rdf+xml\0", xmp))
    if not items and not icc:
        return [file]
    top = {kind: (start, end) for kind, start, end in boxes(file, 0, len(file))}
    try:
        start, end = top[b"meta"]
        meta = {kind: file[a:b] for kind, a, b in boxes(file, start + 12, end)}
        primary = struct.unpack(">H", meta[b"pitm"][12:14])[0]
        known = _locations(meta[b"iloc"])
    except (KeyError, struct.error) as error:
        raise EncodeError(f"an AVIF file of an unknown structure: {error!r}") from error
    first = max(known) + 1
    ids = range(first, first + len(items))
    meta[b"iinf"] = _with_infos(meta[b"iinf"], ids, items)
    meta[b"iref"] = _with_references(meta.get(b"iref", _full(b"iref", b"")), ids, primary)
    if icc:
        meta[b"iprp"] = _with_profile(meta[b"iprp"], icc, primary)
    lengths = [len(data) for _, _, data in items]
    meta[b"iloc"] = _iloc(known, 0, ids, [0] * len(items), lengths)
    size = 12 + sum(map(len, meta.values()))
    moved = size - (end - start)
    at, offsets = len(file) + moved + 8, []
    for length in lengths:
        offsets.append(at)
        at += length
    meta[b"iloc"] = _iloc(known, moved, ids, offsets, lengths)
    parts: list[Buffer] = [file[:start], struct.pack(">I4sI", size, b"meta", 0), *meta.values()]
    parts.append(memoryview(file)[end:])
    if items:
        parts += [struct.pack(">I4s", 8 + sum(lengths), b"mdat"), *(data for _, _, data in items)]
    return parts


def shifted_track_items(file: bytes, by: int) -> bytes:
    """Return a moving AVIF whose tracks name their EXIF and XMP `by` bytes further on, as they will be once a
    manifest stands before them: c2pa moves what the file itself and its samples name, but not these."""
    data = bytearray(file)
    for start, end in _inside(file, [(0, len(file))], b"moov", b"trak", b"meta", b"iloc"):
        known = {
            item: (reference, [(offset + by, length) for offset, length in extents])
            for item, (reference, extents) in _locations(file[start - 8 : end]).items()
        }
        data[start - 8 : end] = _iloc(known, 0, (), (), ())
    return bytes(data)


def _inside(file: bytes, spans: list[tuple[int, int]], *path: bytes) -> list[tuple[int, int]]:
    """Return the contents of all boxes at a path."""
    for name in path:
        version = 4 if name == b"meta" else 0  # it begins with version and flags
        spans = [
            (start + 8 + version, end)
            for first, last in spans
            for kind, start, end in boxes(file, first, last)
            if kind == name
        ]
    return spans


def boxes(file: bytes, start: int, end: int) -> list[tuple[bytes, int, int]]:
    """Return kind, start and end of the boxes from `start` to `end`; EncodeError for a broken chain."""
    found = []
    while start < end:
        size, kind = struct.unpack_from(">I4s", file, start) if end - start >= 8 else (0, b"")
        if size < 8 or start + size > end:
            raise EncodeError(
                f"a box of {size} bytes at {start} is no part of an AVIF file this module knows"
            )
        found.append((kind, start, start + size))
        start += size
    return found


def box(kind: bytes, data: bytes) -> bytes:
    """Return a box."""
    return struct.pack(">I4s", 8 + len(data), kind) + data


def _full(kind: bytes, data: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags) + data)


def _locations(iloc: bytes) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """Return item -> data reference and extents of (offset in the file, length)."""
    version, sizes, _ = struct.unpack_from(">IHH", iloc, 8)
    if version or sizes != 0x4400:
        raise EncodeError("an AVIF file whose item locations are of another version")
    (count,) = struct.unpack_from(">H", iloc, 14)
    found: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    at = 16
    for _ in range(count):
        item, reference, extents = struct.unpack_from(">HHH", iloc, at)
        at += 6
        found[item] = reference, [struct.unpack_from(">II", iloc, at + 8 * n) for n in range(extents)]
        at += 8 * extents
    return found


def _iloc(
    known: dict[int, tuple[int, list[tuple[int, int]]]],
    moved: int,
    ids: Sequence[int],
    offsets: Sequence[int],
    lengths: Sequence[int],
) -> bytes:
    data = [struct.pack(">HH", 0x4400, len(known) + len(ids))]
    for item, (reference, extents) in known.items():
        data.append(struct.pack(">HHH", item, reference, len(extents)))
        data += [struct.pack(">II", offset + moved, length) for offset, length in extents]
    for item, offset, length in zip(ids, offsets, lengths, strict=True):
        data.append(struct.pack(">HHHII", item, 0, 1, offset, length))
    return _full(b"iloc", b"".join(data))


def _with_infos(iinf: bytes, ids: Sequence[int], items: Sequence[tuple[bytes, bytes, bytes]]) -> bytes:
    version, count = struct.unpack_from(">IH", iinf, 8)
    if version:
        raise EncodeError("an AVIF file whose item list is of another version")
    infos = [
        _full(b"infe", struct.pack(">HH4s", item, 0, kind) + b"\0" + content, version=2, flags=1)
        for item, (kind, content, _) in zip(ids, items, strict=True)
    ]
    return _full(b"iinf", struct.pack(">H", count + len(ids)) + iinf[14:] + b"".join(infos))


def _with_references(iref: bytes, ids: Sequence[int], primary: int) -> bytes:
    if iref[8]:
        raise EncodeError("an AVIF file whose item references are of another version")
    described = [box(b"cdsc", struct.pack(">HHH", item, 1, primary)) for item in ids]
    return _full(b"iref", iref[12:] + b"".join(described))


def _with_profile(iprp: bytes, icc: bytes, primary: int) -> bytes:
    """Add a property and say that it belongs to the primary item."""
    inner = {kind: iprp[a:b] for kind, a, b in boxes(iprp, 8, len(iprp))}
    properties = len(boxes(inner[b"ipco"], 8, len(inner[b"ipco"])))
    inner[b"ipco"] = box(b"ipco", inner[b"ipco"][8:] + box(b"colr", b"prof" + icc))
    ipma = inner[b"ipma"]
    flags, count = struct.unpack_from(">II", ipma, 8)
    if flags or properties >= 127:
        raise EncodeError("an AVIF file whose item properties are of another version")
    data, at = [struct.pack(">I", count)], 16
    for _ in range(count):
        item, length = struct.unpack_from(">HB", ipma, at)
        known = ipma[at + 3 : at + 3 + length]
        at += 3 + length
        if item == primary:
            known += bytes([properties + 1])
        data.append(struct.pack(">HB", item, len(known)) + known)
    inner[b"ipma"] = _full(b"ipma", b"".join(data))
    return box(b"iprp", b"".join(inner.values()))
