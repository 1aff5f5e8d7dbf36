"""The records of a journal as bytes: how one is framed, and how all whole ones are found in a file.

A record is [magic, length, crc32] and a msgpack map with a number. This module must never raise for damage.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import msgpack

from luna_farm.errors import TooLarge

MAX_RECORD_BYTES = 64 << 20
"""Of one record; a workflow of some MB fits many times over. A longer length in the file is damage, not a
record."""
BLOCK_BYTES = 1 << 20
"""Of one read or write."""
LOOKED_THROUGH_BYTES = 16 << 20
"""Of damaged bytes in one place, for job ids."""
_MAGIC = b"LFJ1"  # non-zero: crc32(b"") is 0, so a tail of zeros would read as empty records without it
_HEAD = struct.Struct(">4sII")  # magic, payload bytes, crc32 of the payload
_NUMBER = "#"
_JOB_ID = re.compile(rb"\xa6job_id[\xa1-\xbf]([0-9A-Za-z_-]{1,31})")
"""A job id as msgpack writes it in a map."""

Found = tuple[dict[str, Any], int, int]
"""A record, the offset of its end in the file, and its size."""


def frame(record: Mapping[str, Any], number: int) -> bytes:
    """Return the bytes of a record, the `number`-th of its file. The name "#" is the journal's own. Raises
    TooLarge."""
    numbered = {**record, _NUMBER: number}
    try:
        payload: bytes = msgpack.packb(numbered)
    except UnicodeEncodeError:  # a lone surrogate; to allow for them takes twice as long
        payload = msgpack.packb(numbered, unicode_errors="surrogatepass")
    if len(payload) > MAX_RECORD_BYTES:
        raise TooLarge.of("size of one journal record", len(payload), f"up to {MAX_RECORD_BYTES} bytes")
    return _HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload


def read(fd: int) -> tuple[list[Found], int, int, int]:
    """Return the whole records as `records` yields them, where the last of them ends, how long the file is,
    and how many bytes belong to no record."""
    with os.fdopen(os.dup(fd), "rb", buffering=BLOCK_BYTES) as file:
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        found = list(records(file, total))
    good = found[-1][1] if found else 0
    return found, good, total, total - sum(size for _, _, size in found)


def in_order(found: list[Found]) -> tuple[list[dict[str, Any]], int, int, bool]:
    """Return the records by their numbers, each once, the number of the next one, how many were misplaced,
    and whether some are missing. Version 0.1 wrote no numbers: the order of the file counts then."""
    told = [record for record, _, _ in found]
    numbers = [record.pop(_NUMBER, None) for record in told]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        return told, len(told), 0, False
    by_number = dict(sorted(zip(numbers, told, strict=True), key=lambda pair: pair[0]))
    # A record that has slid behind another counts once, however many it passed.
    misplaced = sum(after <= before for before, after in itertools.pairwise(numbers))
    following = max(by_number, default=-1) + 1
    return list(by_number.values()), following, misplaced, len(by_number) != following


def jobs_in(fd: int, found: list[Found], total: int) -> tuple[str, ...]:
    """Return the job ids that can be made out between and behind the records."""
    ids: dict[str, None] = {}
    starts = [0, *(end for _, end, _ in found)]
    ends = [*(end - size for _, end, size in found), total]
    for start, end in zip(starts, ends, strict=True):
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(start)
            damaged = file.read(min(end - start, LOOKED_THROUGH_BYTES)) if end > start else b""
        ids |= dict.fromkeys(name.decode("ascii") for name in _JOB_ID.findall(damaged))
    return tuple(ids)


def records(file: BinaryIO, total: int) -> Iterator[Found]:
    """Yield each whole record with the offset of its end and its size. Behind damage reading goes on at the
    next whole record."""
    start = 0
    while start + _HEAD.size <= total:
        file.seek(start)
        record, size = _record(file, total - start)
        if record is not None:
            start += size
            yield record, start, size
        else:
            start = _next_magic(file, start + 1, total)


def _record(file: BinaryIO, left: int) -> tuple[dict[str, Any] | None, int]:
    """Read the record that begins here, of which at most `left` bytes are there; None if none does."""
    magic, length, checksum = _HEAD.unpack(file.read(_HEAD.size))
    if magic != _MAGIC or length > min(MAX_RECORD_BYTES, left - _HEAD.size):
        return None, 0
    payload = file.read(length)
    if len(payload) < length or checksum != zlib.crc32(payload):
        return None, 0
    return _unpack(payload), _HEAD.size + length


def _next_magic(file: BinaryIO, start: int, total: int) -> int:
    """Return where the next record may begin, `total` if none does."""
    while start < total:
        file.seek(start)
        block = file.read(BLOCK_BYTES)
        at = block.find(_MAGIC)
        if at >= 0:
            return start + at
        start += max(1, len(block) - len(_MAGIC) + 1)
    return total


def _unpack(payload: bytes) -> dict[str, Any] | None:
    """Return the map in `payload`, or None: a right checksum over something else means another program wrote
    it."""
    try:
        record = msgpack.unpackb(payload, strict_map_key=False, unicode_errors="surrogatepass")
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    return record if isinstance(record, dict) else None
