"""One connection's side of the conversation, sans input and output: which messages, which leases, in which
order.

Written as generators that yield what is to be done (`Call`, `Send`, `Copy`) and are sent what came of it;
`connection.py` drives them with a blocking socket, `aio.py` with asyncio. Pixels are copied once, by the
`Copy`; of large ones the farm is told first, so that it looks at the request while they are copied.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from luna_farm.core import protocol
from luna_farm.errors import ArenaError
from luna_farm.storage.arena import Arena
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.pixels import copy_into
from luna_farm_client.requests import Outgoing, Receipt

FIT = 2
"""A lease that was granted ahead is used for images of at least 1/FIT of its size."""


ANNOUNCED_BYTES = 256 * 1024
"""From here on a submit is sent before its pixels are copied: copying less takes no longer than the message
that says it is done."""
COLD_S = 30.0
"""After so long without a hand-over the farm may have given memory back and taken other memory for it."""
BURST_S = 0.005
"""So soon after the last answer the farm is busy anyway, and one message costs it less than two."""


@dataclass(frozen=True, slots=True)
class Call:
    """Send a message and the raw bytes that follow it, receive the answer; it is sent back into the
    generator. `told`: the answer is to the message of the `Send` before."""

    message: dict[str, Any]
    payload: Sequence[memoryview] = ()
    told: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message; a `Call` receives its answer later."""

    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Copy:
    """Run `work`, which copies pixels: up to some milliseconds for large ones. What it returns or raises
    comes back into the generator."""

    work: Callable[[], Any]


Steps = Generator[Call | Send | Copy, Any, Any]


@dataclass(frozen=True, slots=True)
class Lease:
    """A slot that is ours to write into: `size` bytes from `offset` of `segment`."""

    lease: int
    segment: str
    offset: int
    size: int


@dataclass(slots=True)
class Session:
    """What a connection knows: the arena of the farm, if it can be mapped here, and leases granted ahead."""

    segments: MappedSegments
    shared: bool = False
    limits: dict[str, int] = field(default_factory=dict)
    spare: list[Lease] = field(default_factory=list)
    in_doubt: list[Lease] = field(default_factory=list)
    """Of a submit that was not acknowledged: the farm may have used them up or not."""
    warm_bytes: int = 0
    answered_at: float = 0.0
    """Monotonic time of the last receipt."""

    def greet(self, token: str) -> Steps:
        """Say hello; find out whether this process can map the arena."""
        answer = yield Call(protocol.hello(token, os.getpid()))
        self.limits = dict(answer["limits"])
        arena = answer["arena"]
        try:
            self.shared = str(self.segments.arena(arena["segment"]).uuid) == arena["uuid"]
        except (ArenaError, OSError):
            self.shared = False  # another host, another container: the bytes go over the wire
        else:
            self.segments.keep_only(arena["segment"])  # not the memory of a farm that ran here before
        return answer

    def release_message(self) -> dict[str, Any] | None:
        """Return the message that gives back all that is leased and not used, None when nothing is."""
        left, self.spare, self.in_doubt = self.spare + self.in_doubt, [], []
        return {"cmd": "release", "leases": [lease.lease for lease in left]} if left else None

    def submit(self, out: Outgoing) -> Steps:
        """Lease (unless the last answer brought leases that fit), fill, submit; returns the Receipt."""
        leases = self._take(out.sizes)
        if leases is None or self.in_doubt:
            self.spare += leases or []
            given_back = self.release_message()
            if given_back:
                yield Call(given_back)
            answer = yield Call({"cmd": "lease", "sizes": out.sizes})
            leases = [Lease(**lease) for lease in answer["leases"]]
        submit = out.message([lease.lease for lease in leases], not self.shared)
        if self._pays_to_announce(out):
            answer = yield from self._announce(out, submit, leases)
        else:
            answer = yield from self._fill_first(out, submit, leases)
        self.in_doubt, self.answered_at = [], time.monotonic()
        self.spare += [Lease(**lease) for lease in answer["leases"]]
        return Receipt.from_answer(answer)

    def _pays_to_announce(self, out: Outgoing) -> bool:
        alone = time.monotonic() - self.answered_at > BURST_S
        return self.shared and alone and not out.sent and sum(out.sizes) >= ANNOUNCED_BYTES

    def _fill_first(self, out: Outgoing, submit: dict[str, Any], leases: list[Lease]) -> Steps:
        self.spare += leases  # ours also when filling fails
        payload = yield Copy(lambda: self._fill(out, leases))
        self.spare, self.in_doubt = [lease for lease in self.spare if lease not in leases], leases
        out.sent = True
        return (yield Call(submit, payload))

    def _announce(self, out: Outgoing, submit: dict[str, Any], leases: list[Lease]) -> Steps:
        self.in_doubt, out.sent = leases, True
        yield Send({**submit, "coming": True})
        try:
            yield Copy(lambda: self._fill(out, leases))
        except Exception:
            yield Call({"cmd": "release", "leases": [lease.lease for lease in leases]})
            self.in_doubt, out.sent = [], False
            raise
        return (yield Call({"cmd": "filled"}, told=True))

    def _take(self, sizes: Sequence[int]) -> list[Lease] | None:
        left = sorted(self.spare, key=lambda lease: lease.size)
        taken: list[Lease] = []
        for size in sizes:
            found = next((lease for lease in left if size <= lease.size <= max(FIT * size, 8192)), None)
            if found is None:
                return None
            left.remove(found)
            taken.append(found)
        self.spare = left
        return taken

    def _fill(self, out: Outgoing, leases: Sequence[Lease]) -> list[memoryview]:
        """Copy the pixels into the slots; returns the bytes to send where there is no shared memory."""
        payload = []
        for image, info, lease in zip(out.request.images, out.infos, leases, strict=True):
            if self.shared:
                arena = self.segments.arena(lease.segment)
                self.segments.about_to_fill(arena, image.pixels)
                self._warm(arena, lease)
                copy_into(image.pixels, arena.view(lease.offset, info.nbytes))
            else:
                payload.append(memoryview(bytearray(info.nbytes)))
                copy_into(image.pixels, payload[-1])
        return payload

    def _warm(self, arena: Arena, lease: Lease) -> None:
        """Map what was not mapped yet in one go: page faults one by one cost ten times as much."""
        end = lease.offset + lease.size
        if time.monotonic() - self.answered_at > COLD_S:
            self.warm_bytes = 0
        if end > self.warm_bytes:
            arena.warm(self.warm_bytes, end - self.warm_bytes)
            self.warm_bytes = end
