"""The uploader of the pretended world: the spool of encoded files, destinations, and archives that grow.

It stores what it is told to store, once or twice, says so or has no time to, and notices at once when the
farm breaks its word: a file that leaves the spool while it is needed, an image that is stored twice, an
archive that is published without an image that the journal says is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from luna_farm.core import events
from luna_farm.core import instructions as do
from luna_farm.core.messages import ImageResult, ImageTask
from luna_farm.core.state import Farm

Key = tuple[str, int]
Order = do.StartUpload | do.AddMember | do.PublishShard
SPOOLED_BYTES = 10
"""What each encoded file takes of the spool."""
MIRROR = "/mirror"
URL = "s3://bucket/sets"
KINDS: dict[str, dict[str, Any]] = {
    "folder": {},
    "mirrored": {"mirrors": (MIRROR,)},
    "url": {"output_dir": URL},
    "archive": {"archive": "tar"},
    "shared archive": {"archive": "tar", "shard_images": 2, "shard_idle_s": 5.0},
    "archive at a url": {"output_dir": URL, "archive": "tar"},
    "shared archive at a url": {"output_dir": URL, "archive": "tar", "shard_images": 2},
    "mirrored archive": {"archive": "tar", "mirrors": (MIRROR, URL)},
    "shared mirrored archive": {"archive": "tar", "shard_images": 2, "mirrors": (MIRROR,)},
}
"""Options of requests by where their images go."""


@dataclass
class Destinations:
    """What lies outside of the farm, and outlives it: the spool, archives, and what was stored."""

    spool: dict[str, Key] = field(default_factory=dict)
    """Path of each encoded file -> its image."""
    results: dict[Key, ImageResult] = field(default_factory=dict)
    """What the worker said that spooled an image."""
    growing: dict[str, dict[Key, str]] = field(default_factory=dict)
    """Id of each shard -> the members in its file."""
    whole: dict[str, dict[Key, str]] = field(default_factory=dict)
    """Path in the spool of each archive on its way to a destination -> its members."""
    archives: dict[str, tuple[str, dict[Key, str]]] = field(default_factory=dict)
    """Path or URL of each published archive -> the id of its shard and its members."""
    places: dict[Key, int] = field(default_factory=dict)
    """How many places the archive of each image goes to."""
    stored: dict[tuple[Key, int], str] = field(default_factory=dict)
    """(image, number of the upload) -> where it is stored."""
    orders: list[Order] = field(default_factory=list)
    """What the uploader has in hand."""

    # --- what workers spool

    def spooled(self, task: ImageTask, mirrors: tuple[str, ...], state: str) -> ImageResult:
        """A worker puts an encoded image into the spool."""
        key = (task.job_id, task.index)
        path = f"/spool/{task.job_id}-{task.index}.upload"
        self.spool[path] = key
        name = task.member if task.archive else task.path[len(task.root) :].strip("/")
        roots = mirrors if mirrors and not task.archive else (task.root,)
        self.places[key] = 1 + len(mirrors)
        uploads = tuple({"spool": path, "root": root, "name": name} for root in roots)
        result = ImageResult(state, path=task.path, bytes=1, uploads=uploads, spool_bytes=SPOOLED_BYTES)
        self.results[key] = result
        return result

    def sent(self, task: ImageTask) -> ImageResult:
        """A worker elsewhere sends a file by itself, at its first attempt only."""
        key, name = (task.job_id, task.index), task.path[len(task.root) :].strip("/")
        assert (key, 0) not in self.stored, f"{key} is sent twice"
        self.stored[key, 0] = f"{task.root}/{name}"
        target = {"spool": "", "root": task.root, "name": name, "bytes": 1}
        self.results[key] = ImageResult("saved", path=task.path, bytes=1, uploads=(target,))
        return self.results[key]

    def found(self, task: ImageTask) -> ImageResult | None:
        """What a restart finds in the spool of an image that was not said to be there."""
        result = self.results.get((task.job_id, task.index))
        return result if result and result.uploads[0]["spool"] in self.spool else None

    def there(self, path: str) -> bool:
        """Whether a file of the spool is there."""
        return path in self.spool or path in self.whole

    def removed(self, farm: Farm, path: str) -> None:
        """A file leaves the spool: no upload may need it."""
        for job in farm.jobs.values():
            for image in job.images:
                needing = [at for at in image.uploads if at.spool == path and at.state.value in NEEDING]
                assert not needing or image.state.value in ("cancelled", "saved", "discarded"), (
                    f"{path} is removed, and {image.key} needs it"
                )
        self.spool.pop(path, None)
        self.whole.pop(path, None)

    # --- what the uploader does

    def carry_out(self, order: Order) -> events.UploadFinished | events.ShardPublished:
        """Do one thing well; returns the answer."""
        if isinstance(order, do.PublishShard):
            return self._publish(order)
        key = (order.job_id, order.index)
        if isinstance(order, do.StartUpload) and order.index < 0:
            name = self._send(order)
            return events.UploadFinished(*key, order.number, name=name, bytes=order.bytes)
        assert self.spool.get(order.spool) == key, f"{order.spool} is to be sent and is gone"
        if isinstance(order, do.AddMember):
            members = self.growing.setdefault(order.shard.shard_id, {})
            assert order.again or key not in members, f"{key} is put into its archive twice"
            members.setdefault(key, order.name)
        else:
            place = f"{order.root}/{order.name}"
            before = self.stored.get((key, order.number))
            assert order.again or before is None, f"{key} is stored twice"
            assert before in (None, place), f"{key} is stored at {before} and {place}"
            self.stored[key, order.number] = place
        return events.UploadFinished(*key, order.number, name=order.name, bytes=1)

    def _send(self, order: do.StartUpload) -> str:
        assert order.spool in self.whole, f"{order.spool} is to be sent and is gone"
        name = order.name
        while (before := self.archives.get(f"{order.root}/{name}")) is not None:
            if before[0] == order.job_id:
                assert order.again, f"{name} is sent twice"
                return name
            name += "~"  # another archive has the name
        self.archives[f"{order.root}/{name}"] = (order.job_id, self.whole[order.spool])
        return name

    def _publish(self, order: do.PublishShard) -> events.ShardPublished:
        place = order.shard
        spool = f"/spool/{place.shard_id}.upload"
        done = [path for path, (shard, _) in self.archives.items() if shard == place.shard_id]
        if done and not place.spooled:
            return events.ShardPublished(place.shard_id, path=done[0], bytes=order.bytes)
        if spool in self.whole:
            return events.ShardPublished(place.shard_id, spool=spool, bytes=order.bytes)
        members = self.growing.pop(place.shard_id, {})
        assert len(members) >= order.members, f"{place.path} lacks images that the journal says are in it"
        if not members:
            return events.ShardPublished(place.shard_id, path=place.path)
        if place.spooled:
            self.whole[spool] = members
            return events.ShardPublished(place.shard_id, spool=spool, bytes=order.bytes)
        path = place.path
        while path in self.archives:
            path += "~"
        self.archives[path] = (place.shard_id, members)
        return events.ShardPublished(place.shard_id, path=path, bytes=order.bytes)

    def fail(self, order: Order, decision: str) -> events.UploadFinished | events.ShardPublished:
        """One thing does not work; returns the answer."""
        if isinstance(order, do.PublishShard):
            later = "interrupted" if decision == "interrupted" else "retry"
            return events.ShardPublished(order.shard.shard_id, error="no", decision=later)
        inside = isinstance(order, do.AddMember) and self.growing.get(order.shard.shard_id, {})
        if inside and (order.job_id, order.index) in inside and decision == "fail":
            decision = "retry"  # a member that is there is found before its spooled file is judged
        return events.UploadFinished(order.job_id, order.index, order.number, error="no", decision=decision)

    def end(self, did: int, happens: Callable[[events.Event], None]) -> None:
        """The uploader ends after it did some of what it has in hand, without a word about it."""
        orders, self.orders = self.orders, []
        for order in orders[:did]:
            self.carry_out(order)
        for order in orders:
            happens(self.fail(order, "interrupted"))

    # --- what must hold

    def delivered(self, key: Key) -> bool:
        """Whether an image that was spooled is where it was to be."""
        result = self.results[key]
        copies = sum(key in members for _, members in self.archives.values())
        if copies:
            return copies == self.places[key]
        return all((key, number) in self.stored for number in range(len(result.uploads)))

    def once(self) -> None:
        """No image is in two archives; one archive may be at several places."""
        shards = dict(self.archives.values())
        members = [key for inside in shards.values() for key in inside]
        assert len(members) == len(set(members)), "an image is in two archives"


NEEDING = ("waiting", "uploading")
