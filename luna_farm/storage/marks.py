"""The mark behind the pixels in a slot: complete, says the client; given up, says the farm (`core/early.py`).

One of them always sees the other: each sets its own word first and then reads that of the other. Between the
two lie a system call or some hundred steps of the interpreter, during which a processor finishes its writes.
Must never be relied on beyond the machine that shares the memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from luna_farm.core.slots import MARK_BYTES as MARK_BYTES

_WORD = struct.Struct("<Q")
_COMPLETE_AT, _GIVEN_UP_AT, _FLAWS_AT = 0, 8, 16
_MOST_FLAWS = 2**62 - 1
"""What a seal may count, too."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last MARK_BYTES of a slot, for one of its leases: what was said of another counts for nothing."""

    view: memoryview
    lease: int

    def begin(self) -> None:
        """The pixels are about to be written, perhaps once more; the submit is not sent yet. What other
        pixels left here may look like either word."""
        self._set(_COMPLETE_AT, 0)
        self._set(_GIVEN_UP_AT, 0)

    def complete(self, flaws: int) -> None:
        """The pixels are all there; `flaws` of their values were NaN or infinite."""
        self._set(_FLAWS_AT, flaws)
        self._set(_COMPLETE_AT, self.lease)

    @property
    def given_up(self) -> bool:
        """Whether the farm gave the lease up; it may have seen that the pixels are complete all the same."""
        return self._get(_GIVEN_UP_AT) == self.lease

    @property
    def flaws(self) -> int | None:
        """The number of flaws once the pixels are complete, None before."""
        complete = self._get(_COMPLETE_AT) == self.lease
        return min(self._get(_FLAWS_AT), _MOST_FLAWS) if complete else None

    def give_up(self) -> int | None:
        """Give the lease up, unless its pixels are complete: then return the number of flaws."""
        self._set(_GIVEN_UP_AT, self.lease)
        return self.flaws

    def _set(self, at: int, value: int) -> None:
        self.view[at : at + _WORD.size] = _WORD.pack(value)

    def _get(self, at: int) -> int:
        (value,) = _WORD.unpack_from(self.view, at)
        return int(value)
