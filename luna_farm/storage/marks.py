"""Marks behind the pixels in a slot: complete, says the client; given up, says the farm (`core/early.py`).

One of them always sees the other: each sets its own word first and then reads that of the other. Between the
two lie a system call or some hundred steps of the interpreter, during which a processor finishes its writes.
Must never be relied on beyond the machine that shares the memory.
"""

from __future__ import annotations

import struct

from luna_farm.core.early import MARK_BYTES as MARK_BYTES

_LEASE = struct.Struct("<Q")
_COMPLETE_AT, _GIVEN_UP_AT, _FLAWS_AT = 0, 8, 16


def begin(mark: memoryview) -> None:
    """Before the pixels of a lease are written: what was said of an earlier try does not count."""
    mark[_COMPLETE_AT : _COMPLETE_AT + 8] = bytes(8)


def complete(mark: memoryview, lease: int, flawed: int) -> None:
    """Say that the pixels of a lease are all there; `flawed` of their values were NaN or infinite."""
    mark[_FLAWS_AT : _FLAWS_AT + 8] = _LEASE.pack(flawed)
    mark[_COMPLETE_AT : _COMPLETE_AT + 8] = _LEASE.pack(lease)


def flaws(mark: memoryview, lease: int) -> int | None:
    """Return the number of flaws once the pixels of a lease are all there, None before."""
    if _LEASE.unpack_from(mark, _COMPLETE_AT)[0] != lease:
        return None
    found: int = _LEASE.unpack_from(mark, _FLAWS_AT)[0]
    return found


def given_up(mark: memoryview, lease: int) -> bool:
    """Whether the farm gave the lease up before it saw that its pixels are there."""
    return _LEASE.unpack_from(mark, _GIVEN_UP_AT)[0] == lease


def give_up(mark: memoryview, lease: int) -> int | None:
    """Give a lease up, unless its pixels are all there: then return the number of flaws."""
    mark[_GIVEN_UP_AT : _GIVEN_UP_AT + 8] = _LEASE.pack(lease)
    return flaws(mark, lease)
