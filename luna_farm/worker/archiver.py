"""The archiver: appends spooled images to their shards and publishes these, in a thread for each folder.

It runs in the uploader's process and is the only writer of all shards. Members that wait together are synced
together. What it has in hand when it dies is sent again, and found in the shard if it is there already. It
must never publish what the supervisor did not order: the journal has to know the members before.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from luna_farm.core.shards import ShardPlace
from luna_farm.errors import DiskError, FarmError
from luna_farm.locations import is_url
from luna_farm.storage import archive, mounts, upload_spool
from luna_farm.storage.archive import IDENTITY, Shard
from luna_farm.storage.sinks.sink import Decision, SinkError, is_body
from luna_farm.storage.upload_spool import Spooled, Target, UploadSpool
from luna_farm.testing.faults import crash_point

BATCH = 256
"""Members that are synced together at most."""
CONTENT_TYPES = {"zip": "application/zip", "tar": "application/x-tar"}


@dataclass(slots=True)
class _Order:
    """A message of the supervisor, and its answer."""

    message: dict[str, Any]
    answer: dict[str, Any]

    @property
    def place(self) -> ShardPlace:
        return ShardPlace.from_map(self.message["shard"])


class Archiver:
    """Writes shards: those that are uploaded in `folder`, the others where they are published. `say` takes
    the answers."""

    def __init__(self, folder: str, spool: UploadSpool, say: Callable[[dict[str, Any]], None]) -> None:
        self._folder = folder
        self._spool = spool
        self._say = say
        self._writers: dict[str, queue.SimpleQueue[_Order]] = {}

    def take(self, message: dict[str, Any]) -> None:
        """Take an order; the answer goes to `say`. A folder that hangs holds up its own shards only."""
        order = _Order(message, {"t": message["t"], "id": message["id"]})
        place = order.place
        root = self._folder if place.spooled else place.root
        if root not in self._writers:
            self._writers[root] = queue.SimpleQueue()
            writer = _Writer(root, self._folder, self._spool, self._say)
            threading.Thread(target=writer.run, args=(self._writers[root],), daemon=True).start()
        self._writers[root].put(order)


class _Writer:
    """The open shards of one folder."""

    def __init__(
        self, root: str, folder: str, spool: UploadSpool, say: Callable[[dict[str, Any]], None]
    ) -> None:
        self._root, self._folder, self._spool, self._say = root, folder, spool, say
        self._shards: dict[str, Shard] = {}

    def run(self, orders: queue.SimpleQueue[_Order]) -> None:
        """Work through orders for as long as the process lives."""
        while True:
            batch = [orders.get()]
            while len(batch) < BATCH and not orders.empty():
                batch.append(orders.get())
            while batch:
                order = batch[0]
                same = [at for at in batch if at.message["shard"] == order.message["shard"]]
                batch = [at for at in batch if at not in same]
                self._members(order.place, [at for at in same if at.message["t"] == "member"])
                for publish in same:
                    if publish.message["t"] == "publish":
                        self._answer([publish], partial(self._publish, publish))

    def _members(self, place: ShardPlace, orders: Sequence[_Order]) -> None:
        """Append members and sync them together; each answer says whether the member is in the shard."""
        added = [
            order for order in orders if self._answer([order], partial(self._add, place, order), quiet=True)
        ]
        if added:
            self._answer(added, partial(self._sync, place))

    def _answer(self, orders: Sequence[_Order], work: Callable[[], None], *, quiet: bool = False) -> bool:
        """Do a part of the work for some orders; what it raises is their answer."""
        try:
            work()
        except FarmError as error:
            decision = Decision.HOLD if isinstance(error, DiskError) else Decision.RETRY
            failed = {"error": str(error), "decision": getattr(error, "decision", decision).value}
        except Exception as error:  # a bug must cost a try, not the archiver
            failed = {"error": f"{type(error).__name__}: {error}", "decision": Decision.RETRY.value}
        else:
            failed = {}
        for order in orders:
            order.answer |= failed
            if failed or not quiet:
                self._say(order.answer)
        return not failed

    def _add(self, place: ShardPlace, order: _Order) -> None:
        shard = self._opened(place)
        spooled = upload_spool.read_to_send(order.message["path"])
        token = f"{spooled.job_id}-{spooled.index}"
        found = shard.recovered.get(token) if order.message["again"] else None
        if found is None:
            with upload_spool.body_of(spooled) as body:
                found = self._append(shard, place, spooled, order.message, body)
        order.answer |= {"name": found, "bytes": spooled.upload.bytes}

    def _append(
        self, shard: Shard, place: ShardPlace, spooled: Spooled, message: dict[str, Any], body: memoryview
    ) -> str:
        if message["again"] and not is_body(spooled.upload, iter([bytes(body)])):
            text = f"The spooled file {spooled.path} is damaged: its bytes are not those it had."
            raise SinkError(text, Decision.FAIL, "damaged")
        given, at = [], 0
        for extension, size in spooled.files:
            given.append((extension, [body[at : at + size]]))
            at += size
        origin = f'"shard":"{place.shard_id}","job_id":"{spooled.job_id}","index":{spooled.index}'
        rest = spooled.metadata.strip()[1:]
        comma = b"" if rest == b"}" else b","
        metadata = f'{{"{IDENTITY}":{{{origin}}}'.encode() + comma + rest
        crash_point("archive.adding")
        stem = message["name"].removesuffix(f".{spooled.files[0][0]}")
        return shard.add(stem, given, metadata)

    def _sync(self, place: ShardPlace) -> None:
        try:
            self._opened(place).sync()
        except DiskError:
            self._shards.pop(place.shard_id).close()
            raise
        crash_point("archive.synced")

    def _opened(self, place: ShardPlace) -> Shard:
        if not is_url(place.root):
            mounts.require(place.mount, place.path)
        shard = self._shards.get(place.shard_id)
        if shard is None:
            below = () if place.spooled else self._below(place)
            shard = self._shards[place.shard_id] = Shard(self._root, _temp(place), place.kind, below)
        return shard

    def _below(self, place: ShardPlace) -> tuple[str, ...]:
        return tuple(place.path[len(place.root) :].strip(os.sep).split(os.sep)[:-1])

    def _publish(self, order: _Order) -> None:
        place = order.place
        if place.spooled:
            self._to_spool(place, order)
            return
        mounts.require(place.mount, place.path)
        found = archive.published_before(place.path, self._root, place.kind, place.shard_id, _temp(place))
        if found is None:
            shard = self._with_members(place, order.message["members"])
            found = shard.publish(place.path, self._root) if shard.members else shard.remove()
        self._close(place)
        order.answer |= {"path": found, "bytes": order.message["bytes"]}

    def _to_spool(self, place: ShardPlace, order: _Order) -> None:
        try:
            spooled = upload_spool.read(self._spool.path(place.shard_id, 0))
        except DiskError:
            shard = self._with_members(place, order.message["members"])
            if not shard.members:
                order.answer |= {"path": shard.remove()}
                return
            shard.end()
            targets = [Target(root, place.name) for root in place.roots]
            spooled = self._spool.adopt(shard.path, place.shard_id, targets, CONTENT_TYPES[place.kind])
        self._close(place)
        order.answer |= {"spool": spooled.path, "bytes": spooled.upload.bytes}

    def _with_members(self, place: ShardPlace, members: int) -> Shard:
        """Return the shard; raises SinkError if members are gone that the journal says are in it."""
        self._close(place)  # opened anew, so that the disk says what is in it
        shard = self._opened(place)
        if shard.members < members:
            if not shard.members:
                shard.remove()  # made by looking for it
            self._close(place)
            text = f"{shard.path}, which becomes {place.path}, holds {shard.members} of {members} images."
            raise SinkError(f"The archive is gone or damaged: {text}", Decision.FAIL, "damaged")
        return shard

    def _close(self, place: ShardPlace) -> None:
        shard = self._shards.pop(place.shard_id, None)
        if shard is not None:
            shard.close()


def _temp(place: ShardPlace) -> str:
    return f".luna-{place.shard_id}-shard.tmp"
