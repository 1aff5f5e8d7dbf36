"""How much of the arena is really there: a little when the farm is idle, more before it is needed.

Slots lie at the low end of the arena, so memory is reserved up to some point and given back from the high
end. A lease is only granted in memory that is there: a client that writes to a page which the system cannot
give is killed (SIGBUS). This module must never give back memory below the end of the last slot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from luna_farm.core.slots import Slots
from luna_farm.errors import ArenaError
from luna_farm.storage.arena import Arena, mib

log = logging.getLogger("luna_farm.arena")

STEP_BYTES = 4 << 20
"""Memory is reserved in whole steps (1.3 ms each)."""
AHEAD_EVERY_S = 1.0
"""Pause after a try to reserve ahead that failed: a system that has no more is not asked in every tick."""
MOST_AHEAD_BYTES = 64 << 20
IDLE_S = 60.0
"""Memory that was not used for so long is given back."""
AT_ONCE_BYTES = 32 << 20
"""What is given back in one tick, or reserved for a client that claims all: some milliseconds."""


class ArenaMemory:
    """The memory of the arena of one farm. `slots` says how far it is used; `tick` is called a few times a
    second, in the thread of the event loop."""

    def __init__(self, arena: Arena, slots: Slots, now: Callable[[], float]) -> None:
        self._arena = arena
        self._slots = slots
        self._now = now
        self._least = arena.reserved
        self._peak = 0
        self._peak_at = now()
        self._ahead_at = 0.0
        self.problem = ""
        """A sentence while the system has no more memory for the arena."""
        slots.reserved = arena.reserved
        slots.reserve = self.reserve

    def reserve(self, end: int) -> int:
        """Have memory up to `end`, now: a lease waits for it. Returns how much is there."""
        problem = self._grow(end)
        if problem and not self.problem:
            log.warning(problem)
        self.problem = problem
        return self._arena.reserved

    def tick(self) -> None:
        """Reserve ahead of what is used; give back what was not needed for IDLE_S."""
        top, now = self._slots.top, self._now()
        peak, self._slots.peak = max(top, self._slots.peak), top
        if peak >= self._peak:
            self._peak, self._peak_at = peak, now
        elif now - self._peak_at >= IDLE_S:
            self._peak, self._peak_at, self.problem = peak, now, ""
        wanted = self._wanted()
        if wanted > self._arena.reserved and now >= self._ahead_at:
            step = AT_ONCE_BYTES if self._arena.claimed else STEP_BYTES
            if self._grow(min(wanted, self._arena.reserved + step)):
                self._ahead_at = now + AHEAD_EVERY_S
            self._slots.reserved = self._arena.reserved
        elif wanted < self._arena.reserved:
            self._arena.give_back(max(wanted, self._arena.reserved - AT_ONCE_BYTES))
            self._slots.reserved = self._arena.reserved

    def _wanted(self) -> int:
        """How much should be there: what was used lately and half as much again."""
        if self._arena.claimed:
            return self._slots.size
        ahead = min(self._peak // 2, MOST_AHEAD_BYTES)
        steps = -(-(self._peak + ahead) // STEP_BYTES) * STEP_BYTES if self._peak > self._least else 0
        return min(self._slots.size, max(self._least, steps))

    def _grow(self, end: int) -> str:
        """Reserve up to `end` and to the end of that step, or only to `end` if there is no more. Returns what
        stands in the way, "" if nothing does."""
        problem = ""
        for wanted in (min(self._slots.size, -(-end // STEP_BYTES) * STEP_BYTES), end):
            try:
                self._arena.reserve(wanted)
            except ArenaError as error:
                problem = f"The arena cannot grow beyond {mib(self._arena.reserved)}: {error}"
            else:
                return ""
        return problem
