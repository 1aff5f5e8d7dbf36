"""The uploader process: started when the first file has to be sent, given what to send, started again when it
ends.

Executes what the core decided (`core/uploads.py`). Like a worker it has one private pipe, and it is reported
gone only after it was collected. This module must never import a library of a service.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from luna_farm.config_destinations import Destination
from luna_farm.core import events
from luna_farm.core.instructions import AddMember, PublishShard, StartUpload
from luna_farm.engine.child import Child, Message
from luna_farm.worker import spawned

log = logging.getLogger("luna_farm.uploads")

START_AGAIN_S = 0.5
"""Pause before the uploader is started again after it has ended by itself."""
SLACK_S = 120.0
"""How long an upload may be late, beyond all limits of its requests, before the uploader is ended."""
BYTES_PER_S = 20_000.0
REMOVED_TOGETHER = 1000
"""Files of the spool in one message."""


Order = StartUpload | AddMember | PublishShard
_OF_SHARDS = ("path", "spool", "bytes", "error", "decision")


@dataclass(slots=True)
class _Running:
    """An order that is not answered. `limit_s`: how long it may take; `overdue`: monotonic time at which even
    that is over."""

    order: Order
    place: str
    limit_s: float
    overdue: float


class Uploads:
    """The uploader of this supervisor. `handle_events` takes what happens together."""

    def __init__(
        self,
        handle_events: Callable[..., None],
        destinations: Sequence[Destination],
        spool: str,
        shards: str,
    ) -> None:
        """`spool`: folder of the upload spool. `shards`: folder of archives on their way to a destination."""
        self._handle_events = handle_events
        self._args = (tuple(destinations), spool, shards)
        self._uploader: Child | None = None
        self._known = False
        """The uploader is in the journal, so that a successor can fence it off. Before that it gets no order:
        it would carry it out beside the uploader of that successor."""
        self._held: list[Message] = []
        """Orders for when it is."""
        self._running: dict[int, _Running] = {}
        """Number of the order -> what it is."""
        self._removing: dict[int, Sequence[str]] = {}
        """Number of the order -> files of the spool that the uploader removes."""
        self._left: list[str] = []
        """Those of an uploader that has ended."""
        self._last = 0
        self._start_at = 0.0
        self._closing = False

    @property
    def pid(self) -> int:
        """Process id of the uploader, 0 while there is none."""
        return self._uploader.pid if self._uploader else 0

    def start(self, i: StartUpload) -> None:
        """Have a file sent; the answer is an event."""
        what = {"path": i.spool, "root": i.root, "name": i.name, "again": i.again, "mount": i.mount}
        self._order(i, {"t": "upload", **what}, i.timeout_s, i.place)

    def add_member(self, i: AddMember) -> None:
        """Have an image appended to its shard; the answer is an event."""
        what = {"path": i.spool, "name": i.name, "again": i.again, "shard": i.shard.to_map()}
        self._order(i, {"t": "member", **what})

    def publish(self, i: PublishShard) -> None:
        """Have a shard completed; the answer is an event."""
        self._order(i, {"t": "publish", "shard": i.shard.to_map(), "members": i.members, "bytes": i.bytes})

    def remove(self, paths: Sequence[str]) -> bool:
        """Have files of the spool removed. Returns False while there is no uploader that takes orders."""
        if self._uploader is None or not self._known:
            return False
        for first in range(0, len(paths), REMOVED_TOGETHER):
            self._last += 1
            self._removing[self._last] = some = paths[first : first + REMOVED_TOGETHER]
            self._uploader.send({"t": "remove", "paths": some, "id": self._last})
        self._uploader.flush()
        return True

    def take_left(self) -> list[str]:
        """Return what an uploader that has ended was to remove."""
        left, self._left = self._left, []
        return left

    def _order(self, i: Order, message: dict[str, Any], timeout_s: float = 0.0, place: str = "") -> None:
        self._last += 1
        limit_s = SLACK_S + timeout_s + i.bytes / BYTES_PER_S
        # One that is ordered ahead begins when one of those that run is over, at the latest.
        others = [at.limit_s for at in self._running.values() if at.place == place] if place else ()
        overdue = time.monotonic() + limit_s + max(others, default=0.0)
        self._running[self._last] = _Running(i, place, limit_s, overdue)
        if self._closing:
            return
        if self._uploader is None:
            start, answers = spawned.start_uploader, (self._received, self._ended)
            self._uploader = Child("uploader", start, self._args, *answers, start_at=self._start_at)
            self._start_at = time.monotonic() + START_AGAIN_S
        order = {**message, "id": self._last}
        if self._known:
            self._uploader.send(order)
        else:
            self._held.append(order)

    def flush(self) -> None:
        """Send what was said since the last flush."""
        if self._uploader is not None:
            self._uploader.flush()

    def watch(self) -> None:
        """End an uploader that is long past every limit: a library hangs in it."""
        now = time.monotonic()
        late = [at.order for at in self._running.values() if now > at.overdue]
        if late and self._uploader is not None:
            log.error("The uploader is ended: %s is overdue.", _named(late[0]))
            self._uploader.kill("an upload was overdue")

    def _received(self, message: Message) -> None:
        """Turn the answers in a message of the uploader into events, which are handled together."""
        happened = [self._event(answer) for answer in message["answers"]]
        self._handle_events(*[event for event in happened if event is not None])
        if self._uploader is not None and any(answer["t"] == "ready" for answer in message["answers"]):
            self._known = True
            held, self._held = self._held, []
            for order in held:
                self._uploader.send(order)
            self._uploader.flush()

    def _event(self, answer: Message) -> events.Event | None:
        if answer["t"] == "ready":
            return events.UploaderReady(answer["pid"], answer["created"])
        if answer["t"] == "removed":
            del self._removing[answer["id"]]
            return None
        i = self._running.pop(answer["id"]).order
        if isinstance(i, PublishShard):
            given = {name: answer[name] for name in _OF_SHARDS if name in answer}
            return events.ShardPublished(i.shard.shard_id, **given)
        return events.UploadFinished(
            i.job_id,
            i.index,
            i.number,
            name=answer.get("name", ""),
            bytes=answer.get("bytes", 0),
            error=answer.get("error", ""),
            decision=answer.get("decision", ""),
            wait_s=answer.get("wait_s", 0.0),
        )

    def _ended(self, why: str) -> None:
        """The uploader was collected: report what it had in hand as interrupted."""
        self._uploader, self._known = None, False
        self._held.clear()
        if not self._closing:
            log.warning("The uploader has ended (%s); it is started again.", why)
        self._left += [path for paths in self._removing.values() for path in paths]
        self._removing.clear()
        running, self._running = self._running, {}
        self._handle_events(*[_interrupted(at.order) for at in running.values()])

    async def close(self) -> None:
        """End the uploader and wait until it is collected. What it has in hand is sent by the next farm."""
        self._closing = True
        if self._uploader is not None:
            self._uploader.kill("the farm stops")
            await self._uploader.wait()


def _interrupted(i: Order) -> events.Event:
    if isinstance(i, PublishShard):
        return events.ShardPublished(i.shard.shard_id, decision="interrupted")
    return events.UploadFinished(i.job_id, i.index, i.number, decision="interrupted")


def _named(i: Order) -> str:
    return i.shard.path if isinstance(i, AddMember | PublishShard) else f"{i.root}/{i.name}"
