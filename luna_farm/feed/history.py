"""The last messages of the feed, so that a subscriber that was away can go on where it stopped.

Bounded twice, by number and by bytes. This module must never know sockets or what an event means: it holds
finished frames under rising sequence numbers.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

log = logging.getLogger("luna_farm.feed")

MAX_EVENTS = 4096
MAX_BYTES = 2**20
MAX_UNREAD = 2048
"""Events kept as they came while no reader is connected: turning each into a frame would cost
the farm a tenth of what an image costs it."""


class Published(NamedTuple):
    """An event with its number and the time (seconds since 1970) at which it was published."""

    seq: int
    at: float
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What can be given to a subscriber that has seen everything up to `after`.

    `frames` continue without a hole if `complete`, otherwise the events between `after` and `first` are
    forgotten. `first` and `last` are sequence numbers; with no frames, `first` is `last` + 1.
    """

    after: int
    first: int
    last: int
    complete: bool
    frames: tuple[bytes, ...]


class History:
    """At most `max_events` frames of together at most `max_bytes` bytes; the oldest give way."""

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._frames: deque[bytes] = deque()
        self._unread: deque[tuple[float, Mapping[str, Any]]] = deque(maxlen=MAX_UNREAD)
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self._last = 0

    @property
    def last(self) -> int:
        """Sequence number of the newest event ever added, 0 before the first."""
        return self._last

    @property
    def oldest(self) -> int:
        """Sequence number of the oldest event still held; `last` + 1 if none is."""
        return self._last - len(self._frames) - len(self._unread) + 1

    @property
    def nbytes(self) -> int:
        """Bytes of all frames held."""
        return self._bytes

    def later(self, at: float, event: Mapping[str, Any]) -> None:
        """Take over an event of the time `at`, which becomes a frame only if a reader comes for it."""
        unread = self._unread
        if len(unread) == MAX_UNREAD:  # the oldest gives way, and with it all that lies before the gap
            self._frames.clear()
            self._bytes = 0
        self._last += 1
        unread.append((at, event))

    def catch_up(self, encode: Callable[[Published], bytes]) -> None:
        """Make frames of what was kept for later; must come before `add` and `after`. An event that cannot be
        encoded is left out, and so is what lies before it: numbers must not have gaps."""
        unread, self._unread = self._unread, deque(maxlen=MAX_UNREAD)
        self._last -= len(unread)
        for at, event in unread:
            try:
                self.add(encode(Published(self._last + 1, at, event)))
            except (TypeError, ValueError):
                log.exception("An event could not be sent and is left out: %r", event)
                self._frames.clear()
                self._bytes = 0
                self._last += 1

    def add(self, frame: bytes) -> int:
        """Take over the next frame and return its sequence number. A frame above the bound is counted, not
        held."""
        self._last += 1
        self._frames.append(frame)
        self._bytes += len(frame)
        while len(self._frames) > self._max_events or self._bytes > self._max_bytes:
            self._bytes -= len(self._frames.popleft())
        return self._last

    def after(self, seq: int) -> Replayed:
        """Return what follows event `seq`. A number from the future (of an earlier farm) gets everything
        held."""
        known = 0 <= seq <= self._last
        first = max(self.oldest, seq + 1) if known else self.oldest
        return Replayed(seq, first, self._last, known and first == seq + 1, tuple(self._from(first)))

    def _from(self, first: int) -> Iterator[bytes]:
        skip = first - self.oldest
        for number, frame in enumerate(self._frames):
            if number >= skip:
                yield frame
