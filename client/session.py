"""One connection's side of the conversation, sans input and output: which messages, which leases, in which
order.

Generators yield the steps of `steps.py` and are sent what came of them; `connection.py` drives them with a
blocking socket, `aio.py` with asyncio. There is one hand-over: `submit` creates the job, `seal` says that
pixels are complete, `abort` gives up. Pixels are copied once, by `Copy`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from luna_farm.core import protocol
from luna_farm.errors import ArenaError, FarmBusy, FarmError, FarmUnavailable
from luna_farm.storage import marks
from luna_farm.storage.arena import Arena
from luna_farm_client import oversize
from luna_farm_client.conversion import Flaws
from luna_farm_client.grouping import (
    SEAL_BYTES,
    WINDOW_SHARE,
    counts,
    layout,
    sealed_together,
    together,
    windows_of,
)
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.outgoing import Outgoing, Piece
from luna_farm_client.pixels import copy_into, copy_together
from luna_farm_client.requests import Receipt
from luna_farm_client.steps import Copy, Receive, Send, Sleep, Steps

FIT = 2
"""A prefetched lease is used for pieces of at least 1/FIT of its size."""
LARGE_BYTES = 256 * 1024
"""From here on the submit is sent before the pixels are copied, so that the farm validates it and reserves
names meanwhile: copying less takes no longer than the message that says it is done."""
COLD_S = 30.0
"""After so long without a hand-over the farm may have given memory back and taken other memory for it."""
BURST_S = 0.005
"""So soon after the last receipt the farm is busy anyway, and one write costs it less than two."""
ENDED = "The farm ended while the images were being handed over."
GIVEN_UP_S = 1.0
"""How long the answer to an abort may take; without one the connection is closed, which says the same."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.002, 0.05
"""Between two requests for room in the middle of a batch."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A slot that this connection may write into: `size` bytes from `offset` of `segment`."""

    lease: int
    segment: str
    offset: int
    size: int


@dataclass(slots=True)
class Session:
    """What a connection knows: the arena of the farm, if it can be mapped here, and prefetched leases."""

    segments: MappedSegments
    shared: bool = False
    early: bool = False
    """The farm may send receipts before the seal."""
    limits: dict[str, int] = field(default_factory=dict)
    spare: list[Lease] = field(default_factory=list)
    warm_bytes: int = 0
    answered_at: float = 0.0
    """Monotonic time of the last receipt."""
    last_id: int = 0
    state_dir: str = ""
    """State folder of the farm, on its machine; "" for one that does not tell."""

    def call(self, message: dict[str, Any], timeout: float | None = None) -> Steps:
        """Send one message and return its answer."""
        number = self._next_id()
        yield Send({**message, "id": number})
        return (yield Receive(number, timeout))

    def greet(self, token: str) -> Steps:
        """Say hello; find out whether this process can map the arena."""
        answer = yield from self.call(protocol.hello(token, os.getpid()))
        self.limits = dict(answer["limits"])
        self.state_dir = str(answer.get("state_dir", ""))
        self.early = bool(answer.get("early"))
        arena = answer["arena"]
        try:
            self.shared = str(self.segments.arena(arena["segment"]).uuid) == arena["uuid"]
        except (ArenaError, OSError):
            self.shared = False  # another host, another container: the bytes go over the wire
        else:
            self.segments.keep_only(arena["segment"])  # not the memory of a farm that ran here before
        return answer

    def release_message(self) -> dict[str, Any] | None:
        """Return the message that returns all leases that are not used, None when there are none."""
        left, self.spare = self.spare, []
        return {"cmd": "release", "leases": [lease.lease for lease in left]} if left else None

    def submit(self, out: Outgoing, busy_s: float, later_s: float = 0.0) -> Steps:
        """Hand over a request and return its Receipt.

        Images are leased, copied and sealed in windows, so that memory stays within a share of the arena
        however many there are. The first window is not waited for: FarmBusy is raised. Each later one may
        wait `busy_s` or `later_s` seconds for room, whichever is longer: a part is accepted by then.
        """
        out.check(self.limits)
        self._forget_cold_memory()
        windows = list(windows_of(out.pieces, self.limits["arena_bytes"]))
        fits = self.shared and len(windows) == 1 and out.nbytes <= self.limits["arena_bytes"] // WINDOW_SHARE
        marked = fits and LARGE_BYTES <= out.nbytes <= SEAL_BYTES and len(out.pieces) == out.images
        sizes = [size + marks.MARK_BYTES for size in out.sizes] if marked else out.sizes
        leases = yield from self._lease(sizes if fits else [piece.nbytes for piece in windows[0]])
        alone = time.monotonic() - self.answered_at > BURST_S
        number = self._next_id()
        overlap = self.shared and alone and out.nbytes >= LARGE_BYTES
        into = [*map(self._mark, leases)] if marked and overlap and self.early and out.may_be_early else []
        submit = out.message(sizes if fits else [], [mark.lease for mark in into], here=self.shared)
        yield Send({**submit, "id": number}, flush=overlap)
        answer = None
        for window in windows:
            if window is not windows[0]:
                answer = yield Receive(number, wait=False)  # raises when the submit was refused meanwhile
                if answer is not None:
                    break  # the receipt of a job that is known: the farm has all its images
            try:
                if window is not windows[0]:
                    sizes = [piece.nbytes for piece in window]
                    leases = yield from self._lease_patiently(sizes, max(busy_s, later_s))
                kept = list(leases)
                seal = yield from self._fill(number, window, leases, into)
            except FarmUnavailable:
                raise
            except Exception:
                yield from self._give_up(number, leases)
                raise
        try:
            answer = answer or (yield Receive(number))
        except FarmUnavailable:
            raise
        except Exception:
            self.spare += kept if into else []  # refused before they were sealed: they are still ours
            raise
        self.spare += kept if into and answer.get("known") else []
        if into and "seal" in answer:
            yield Send(seal())
            answer = yield Receive(number)
        if any(mark.given_up for mark in into):
            raise FarmUnavailable(ENDED, "", 0)
        self.answered_at = time.monotonic()
        self.spare += [Lease(**lease) for lease in answer["leases"]]
        receipt = Receipt.from_answer(answer)
        if out.left and self.shared and receipt.paths:
            oversize.write_aside(receipt.paths[0], out.left)
        return receipt

    def submit_many(self, outs: Sequence[Outgoing], busy_s: float, later_s: float = 0.0) -> Steps:
        """Hand over as many of the requests as fit into one message; returns their receipts, at least one."""
        most = self.limits["arena_bytes"] // WINDOW_SHARE
        count = together(outs, most)
        if count < 2:
            return [(yield from self.submit(outs[0], busy_s, later_s))]
        self._forget_cold_memory()
        outs = outs[:count]
        for out in outs:
            out.check(self.limits)
        offsets, total = layout(outs)
        leases = yield from self._lease([total])
        number = self._next_id()
        requests = [out.message(here=self.shared) for out in outs]
        want = [total] if self.shared else []
        yield Send({"cmd": "save_many", "requests": requests, "want": want, "id": number}, flush=False)
        try:
            seal, payload = yield from self._fill_together(number, outs, offsets, total, leases[0])
        except FarmUnavailable:
            raise
        except Exception:
            yield from self._give_up(number, leases)
            raise
        yield Send(seal, payload)
        answer = yield Receive(number)
        self.answered_at = time.monotonic()
        self.spare += [Lease(**lease) for lease in answer["leases"]]
        receipts = [Receipt.from_answer(receipt) for receipt in answer["receipts"]]
        for out, receipt in zip(outs, receipts, strict=True):
            if out.left and self.shared and receipt.paths:
                oversize.write_aside(receipt.paths[0], out.left)
        return receipts

    def _fill_together(
        self, number: int, outs: Sequence[Outgoing], offsets: Sequence[int], total: int, lease: Lease
    ) -> Steps:
        """Copy the images of several requests into one slot; returns the seal, and the pixels that follow it
        when memory is not shared."""
        into = memoryview(bytearray(0 if self.shared else total))
        if self.shared:
            arena = self._arena(lease)
            self._warm(arena, lease)
            into = arena.view(lease.offset, total)
        flaws: list[int] = []
        pieces = [(x, info) for out in outs for x, info in zip(out.pixels, out.infos, strict=True)]

        def copy() -> None:
            for (x, info), at in zip(pieces, offsets, strict=True):
                found = copy_into(x, into[at : at + info.nbytes], info.dtype)
                flaws.extend(found.get(index, 0) for index in range(info.batch))

        yield Copy(copy)
        part = [lease.lease, len(flaws), *([flaws] if any(flaws) else [])]
        seal: dict[str, Any] = {"cmd": "seal", "id": number, "parts": [part]}
        if self.shared:
            return seal, ()
        return {**seal, "inline": True, "sizes": [total]}, [into]

    def _give_up(self, number: int, leases: Sequence[Lease]) -> Steps:
        """Abort a submit, pass over what is answered to it, and return all leases: they may be most of the
        memory, and this connection may be idle from now on."""
        self.spare += leases  # those that were not sealed are ours again
        yield Send({"cmd": "abort", "id": number})
        try:
            while "aborted" not in (answer := (yield Receive(number, GIVEN_UP_S))):  # what was on its way
                self.spare += [Lease(**lease) for lease in answer.get("leases", ())]
                if answer.get("known"):
                    break  # there was nothing to abort
        except FarmUnavailable:
            return
        except FarmError:  # it was refused already
            pass
        unused = self.release_message()
        if unused:
            with suppress(FarmError):
                yield from self.call(unused, GIVEN_UP_S)

    def _forget_cold_memory(self) -> None:
        """Decided once per hand-over: what this one warms is warm until its end."""
        if time.monotonic() - self.answered_at > COLD_S:
            self.warm_bytes = 0

    def _next_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def _lease(self, sizes: list[int]) -> Steps:
        """Return leases of these sizes in bytes: prefetched ones if they fit, else new ones. Raises FarmBusy,
        TooLarge."""
        leases = self._take(sizes)
        if leases is not None:
            return leases
        unused = self.release_message()
        if unused:
            yield from self.call(unused)
        answer = yield from self.call({"cmd": "lease", "sizes": sizes})
        return [Lease(**lease) for lease in answer["leases"]]

    def _lease_patiently(self, sizes: list[int], busy_s: float) -> Steps:
        """As `_lease`, but wait while earlier images are saved."""
        deadline = time.monotonic() + busy_s
        pause = FIRST_PAUSE_S
        while True:
            try:
                return (yield from self._lease(sizes))
            except FarmBusy:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                # Room comes with the next image that is saved: sooner than the hint for a whole request.
                yield Sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE_S)

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

    def _fill(
        self, number: int, pieces: Sequence[Piece], leases: list[Lease], into: Sequence[marks.Mark]
    ) -> Steps:
        """Copy the pieces into their slots and seal them; the leases of those that were sealed leave the
        list. `into`: the marks that say so. Returns then what makes the seal that the farm may ask for."""
        for group in sealed_together(pieces):
            payload = [] if self.shared else [memoryview(bytearray(piece.nbytes)) for piece in group]
            found = yield Copy(partial(self._copy, group, leases[: len(group)], payload))
            flaws = found or [{}] * len(group)
            sealed = list(zip(group, leases, strict=False))
            del leases[: len(group)]
            if into:
                for mark, bad in zip(into, flaws, strict=True):
                    mark.complete(sum(bad.values()))
                return partial(self._seal, number, sealed, flaws)
            yield Send(self._seal(number, sealed, flaws), payload)
        return None

    def _seal(
        self, number: int, sealed: Sequence[tuple[Piece, Lease]], flaws: Sequence[Flaws]
    ) -> dict[str, Any]:
        message: dict[str, Any] = {
            "cmd": "seal",
            "id": number,
            "parts": [
                [lease.lease, piece.images, *counts(piece, found)]
                for (piece, lease), found in zip(sealed, flaws, strict=True)
            ],
        }
        if not self.shared:
            message.update(inline=True, sizes=[piece.nbytes for piece, _ in sealed])
        return message

    def _copy(
        self, pieces: Sequence[Piece], leases: Sequence[Lease], payload: Sequence[memoryview]
    ) -> list[Flaws]:
        views = payload or [self._view(piece, lease) for piece, lease in zip(pieces, leases, strict=True)]
        return copy_together(
            [(piece.pixels, view, piece.dtype) for piece, view in zip(pieces, views, strict=True)]
        )

    def _arena(self, lease: Lease) -> Arena:
        """Return the segment of a lease. Without it the farm that granted the lease is gone as well."""
        try:
            return self.segments.arena(lease.segment)
        except ArenaError as error:
            raise FarmUnavailable(ENDED, "", 0) from error

    def _view(self, piece: Piece, lease: Lease) -> memoryview:
        arena = self._arena(lease)
        self.segments.about_to_fill(arena, piece.pixels)
        self._warm(arena, lease)
        return arena.view(lease.offset, piece.nbytes)

    def _mark(self, lease: Lease) -> marks.Mark:
        at = lease.offset + lease.size - marks.MARK_BYTES
        mark = marks.Mark(self._arena(lease).view(at, marks.MARK_BYTES), lease.lease)
        mark.begin()
        return mark

    def _warm(self, arena: Arena, lease: Lease) -> None:
        """Map what was not mapped yet in one go: page faults one by one cost ten times as much."""
        end = lease.offset + lease.size
        if end > self.warm_bytes:
            arena.warm(self.warm_bytes, end - self.warm_bytes)
            self.warm_bytes = end
