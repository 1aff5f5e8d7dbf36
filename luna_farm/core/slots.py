"""Slots: who holds which bytes of the arena. The lease is the backpressure, no unbounded queue of pixels
exists.

Pure bookkeeping over [0, size); it must never touch the memory itself. First fit from the low end keeps the
pages in use few and warm (a first write of a fresh page costs ten times that of a warm one).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

ALIGN = 4096
"""Slots start on a page, so that a view of one never shares a cache line or a page with another."""

MARK_BYTES = 64
"""At the end of a slot, behind the pixels, where a client says that they are complete (`early.py`)."""


class SlotState(Enum):
    """Life of a slot. FILLING: leased, its client may write into it. SEALED: its images are accepted or about
    to be, nothing writes into it. FREE slots are not kept, their bytes are back in the free list."""

    # By identity: the hash of Enum is Python code, and states are looked up all the time.
    __hash__ = object.__hash__

    FILLING = "filling"
    SEALED = "sealed"
    QUARANTINED = "quarantined"
    FREE = "free"


TRANSITIONS: dict[SlotState, frozenset[SlotState]] = {
    SlotState.FILLING: frozenset({SlotState.SEALED, SlotState.QUARANTINED, SlotState.FREE}),
    SlotState.SEALED: frozenset({SlotState.FREE}),
    SlotState.QUARANTINED: frozenset({SlotState.FREE}),
    SlotState.FREE: frozenset(),
}


@dataclass(slots=True)
class Slot:
    """`size` bytes from `offset` of the arena, or of a `segment` of its own. `users` counts the images that
    still need them."""

    number: int
    offset: int
    size: int
    client: int
    state: SlotState = SlotState.FILLING
    users: int = 0
    free_at: float = 0.0
    segment: str = ""
    """"" for the arena."""

    def move(self, to: SlotState) -> None:
        """Change state along the table; anything else is a bug of the farm."""
        if to not in TRANSITIONS[self.state]:
            raise AssertionError(f"slot {self.number} cannot go from {self.state.value} to {to.value}")
        self.state = to


class Slots:
    """The slots of one arena of `size` bytes.

    `high` and `low` are shares of `size`: above `high` no lease is granted until use has fallen below `low`.
    """

    def __init__(self, size: int, high: float = 1.0, low: float = 0.75) -> None:
        self.size = size
        self.used_bytes = 0
        self.leased_bytes = 0
        self._high = int(size * high)
        self._low = int(size * low)
        self.reserved = size
        """Bytes from 0 on whose memory is there; no slot lies beyond them."""
        self.reserve: Callable[[int], int] = lambda end: self.reserved
        """Asks for memory up to `end`; returns how much of it is there."""
        self.peak = 0
        """The end of the last slot, at its furthest since this was last set."""
        self.own_bytes = 0
        """Bytes of slots with a segment of their own."""
        self._unused: list[str] = []
        self._paused = False
        self._free: list[tuple[int, int]] = [(0, size)] if size else []
        self._slots: dict[int, Slot] = {}
        self._quarantined: list[Slot] = []
        self._leases: Counter[int] = Counter()
        self._last = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def fits(self, sizes: tuple[int, ...]) -> bool:
        """Whether slots of these sizes can be granted together in an arena that holds nothing else."""
        return sum(_rounded(sizes)) <= self._high

    @property
    def top(self) -> int:
        """The end of the last slot: nothing beyond it is in use."""
        if self._free and sum(self._free[-1]) == self.size:
            return self._free[-1][0]
        return self.size

    def leases_of(self, client: int) -> int:
        """How many slots `client` leases now."""
        return self._leases[client]

    def lease(self, client: int, sizes: tuple[int, ...]) -> list[Slot] | None:
        """Grant one slot for each size in bytes to `client`, all or none; None means busy."""
        if self._paused and self.used_bytes > self._low:
            return None
        self._paused = False
        rounded = _rounded(sizes)
        granted: list[Slot] = []
        if self.used_bytes + sum(rounded) <= self._high:
            for size in rounded:
                offset = self._cut(size)
                if offset is None:
                    break
                self._last += 1
                granted.append(Slot(self._last, offset, size, client))
                self._slots[self._last] = granted[-1]
                self.used_bytes += size
                self.leased_bytes += size
                self._leases[client] += 1
        if len(granted) == len(sizes):
            return granted
        for slot in granted:
            self._free_slot(slot)
        # Only a farm that has something to finish may pause: an empty one would never wake the waiting
        # client.
        self._paused = self.used_bytes > self._low
        return None

    def add(self, client: int, segment: str, size: int) -> Slot:
        """Grant `client` a slot that is a segment of its own, for an image larger than the arena."""
        self._last += 1
        slot = Slot(self._last, 0, size, client, segment=segment)
        self._slots[self._last] = slot
        self.own_bytes += size
        self._leases[client] += 1
        return slot

    def take_unused(self) -> list[str]:
        """Return the segments of slots that became free since the last call."""
        unused, self._unused = self._unused, []
        return unused

    def held_by(self, client: int, number: int) -> Slot | None:
        """Return the slot if `client` leases it now."""
        slot = self._slots.get(number)
        return slot if slot and slot.client == client and slot.state is SlotState.FILLING else None

    def seal(self, slot: Slot, users: int) -> None:
        """The pixels of `users` images are complete."""
        slot.move(SlotState.SEALED)
        slot.users = users
        self._no_longer_leased(slot)

    def release(self, slot: Slot) -> None:
        """Give a leased slot back unused."""
        self._free_slot(slot)

    def done_with(self, number: int) -> None:
        """One image of a sealed slot is finished; the last one frees it."""
        slot = self._slots[number]
        slot.users -= 1
        if slot.users == 0:
            self._free_slot(slot)

    def drop_client(self, client: int, free_at: float | None) -> None:
        """A client is gone. Its leases are free at once, or at `free_at` if its process may still be
        writing; at once as well when that process turns out to have ended, and for segments of their own:
        their memory goes to no other image."""
        if free_at is None:
            for slot in [s for s in self._quarantined if s.client == client]:
                slot.free_at = 0.0
            self.expire(0.0)
        for slot in [s for s in self._slots.values() if s.client == client and s.state is SlotState.FILLING]:
            if free_at is None or slot.segment:
                self._free_slot(slot)
            else:
                slot.move(SlotState.QUARANTINED)
                slot.free_at = free_at
                self._no_longer_leased(slot)
                self._quarantined.append(slot)

    @property
    def resting_bytes(self) -> int:
        """Bytes of the arena that rest, because the process of a lost connection may still be writing."""
        return sum(slot.size for slot in self._quarantined)

    def rest_of(self, client: int) -> bool:
        """Whether slots of a client that is gone are not free yet."""
        return any(slot.client == client for slot in self._quarantined)

    def expire(self, now: float) -> None:
        """Free the slots whose quarantine is over."""
        for slot in [s for s in self._quarantined if s.free_at <= now]:
            self._quarantined.remove(slot)
            self._free_slot(slot)

    def _cut(self, size: int) -> int | None:
        for index, (offset, length) in enumerate(self._free):
            if length >= size:
                if offset + size > self.reserved:
                    self.reserved = self.reserve(offset + size)
                    if offset + size > self.reserved:
                        return None
                self.peak = max(self.peak, offset + size)
                if length == size:
                    del self._free[index]
                else:
                    self._free[index] = (offset + size, length - size)
                return offset
        return None

    def _no_longer_leased(self, slot: Slot) -> None:
        self.leased_bytes -= 0 if slot.segment else slot.size
        self._leases[slot.client] -= 1
        if not self._leases[slot.client]:
            del self._leases[slot.client]

    def _free_slot(self, slot: Slot) -> None:
        if slot.state is SlotState.FILLING:
            self._no_longer_leased(slot)
        slot.move(SlotState.FREE)
        del self._slots[slot.number]
        if slot.segment:
            self.own_bytes -= slot.size
            self._unused.append(slot.segment)
            return
        self.used_bytes -= slot.size
        offset, length = slot.offset, slot.size
        at = bisect_left(self._free, (offset, 0))
        if at < len(self._free) and offset + length == self._free[at][0]:
            length += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == offset:
            offset, before = self._free.pop(at - 1)
            length += before
        insort(self._free, (offset, length))


def _rounded(sizes: tuple[int, ...]) -> list[int]:
    return [-(-max(size, 1) // ALIGN) * ALIGN for size in sizes]
