"""One archive that grows: its states, its bounds, and what the journal keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from luna_farm.core.circuits import Upload
from luna_farm.core.messages import Message
from luna_farm.core.typed import typed
from luna_farm.locations import is_url


class ShardState(Enum):
    """OPEN: takes members. COMPLETE: takes none; published once those on their way are in it. PUBLISHING: on
    its way to its name, or into the spool. SENDING: in the spool, on its way to its destination. FAILED: the
    destination will never take it."""

    __hash__ = object.__hash__

    OPEN = "open"
    COMPLETE = "complete"
    PUBLISHING = "publishing"
    SENDING = "sending"
    PUBLISHED = "published"
    FAILED = "failed"


H = ShardState
SHARD_TRANSITIONS: dict[ShardState, frozenset[ShardState]] = {
    H.OPEN: frozenset({H.COMPLETE}),
    H.COMPLETE: frozenset({H.PUBLISHING}),
    H.PUBLISHING: frozenset({H.COMPLETE, H.SENDING, H.PUBLISHED}),
    H.SENDING: frozenset({H.PUBLISHED, H.FAILED}),
    H.FAILED: frozenset({H.SENDING, H.PUBLISHED}),
    H.PUBLISHED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class ShardPlace(Message):
    """What the archiver needs to know of a shard. `path`: the name that it shall get, or a URL."""

    shard_id: str
    kind: str
    root: str
    path: str
    mount: str = ""
    mirrors: tuple[str, ...] = ()

    @property
    def spooled(self) -> bool:
        """Whether it grows in the state folder and is uploaded from there."""
        return is_url(self.root) or bool(self.mirrors)

    @property
    def roots(self) -> tuple[str, ...]:
        """Every place that it goes to."""
        return (self.root, *self.mirrors)

    @property
    def name(self) -> str:
        """Its name below each of them, with "/" between the parts."""
        return self.path[len(self.root) :].replace("\\", "/").lstrip("/")


@dataclass(slots=True, eq=False)
class Shard:
    """One archive that is being written. `job_id`: the job whose archive it is, "" for an open shard of many
    jobs."""

    shard_id: str
    key: str
    """What requests share that go to the same open shard."""
    kind: str
    path: str
    root: str
    job_id: str
    max_images: int
    max_bytes: int
    idle_s: float
    state: ShardState = H.OPEN
    members: int = 0
    bytes: int = 0
    spool: str = ""
    """The whole archive in the spool of uploads."""
    mount: str = ""
    """Mount point of the disk that it belongs on, as in `ImageTask`."""
    spool_bytes: int = 0
    """What a shard that is uploaded takes of the spool."""
    mirrors: tuple[str, ...] = ()
    """Further places that it goes to."""
    mirror_mounts: Mapping[str, str] | None = None
    """As in `ImageTask`."""
    changed_at: float = 0.0
    pending: int = 0
    """Members on their way into it."""
    pending_bytes: int = 0
    tries: int = 0
    retry_at: float = 0.0
    error: str = ""
    looked_at: int = 0
    """Images of its job, in order, that are in it or will never be."""
    uploads: list[Upload] = field(default_factory=list)
    """One for each place, once it is whole."""

    def move(self, to: ShardState) -> None:
        """Change state along the table; anything else is a bug of the farm."""
        if to not in SHARD_TRANSITIONS[self.state]:
            raise AssertionError(f"shard {self.path} cannot go from {self.state.value} to {to.value}")
        self.state = to

    def has_room(self, size: int) -> bool:
        """Whether one more image of `size` bytes stays within the bounds. An empty shard has room for any."""
        members, taken = self.members + self.pending, self.bytes + self.pending_bytes
        if self.max_images and members >= self.max_images:
            return False
        return not (self.max_bytes and members and taken + size > self.max_bytes)

    def left(self, size: int) -> None:
        """A member of `size` bytes is not on its way any more."""
        self.pending -= 1
        self.pending_bytes -= size

    @property
    def place(self) -> ShardPlace:
        """What the archiver is told."""
        return ShardPlace(
            self.shard_id, self.kind, self.root, self.path, self.mount, mirrors=tuple(self.mirrors)
        )

    @property
    def spooled(self) -> bool:
        """Whether it grows in the state folder and is uploaded from there."""
        return self.place.spooled

    @property
    def busy(self) -> bool:
        """Whether a stop of the farm waits for it: it is about to be published, and nothing is in the way."""
        if self.state is H.OPEN:
            return not self.job_id
        return self.state in (H.COMPLETE, H.PUBLISHING) and not self.error

    def record(self) -> dict[str, Any]:
        """The journal record from which `of_record` makes it again."""
        kept = {name: getattr(self, name) for name in _KEPT if getattr(self, name)}
        sent = {"uploads": [upload.record() for upload in self.uploads]} if self.uploads else {}
        return {"r": "shard", **kept, **sent, "state": self.state.value}

    def counts(self) -> dict[str, Any]:
        """The record of one more member."""
        kept = {"members": self.members, "bytes": self.bytes, "spool_bytes": self.spool_bytes}
        return {"r": "shard_counts", "shard_id": self.shard_id, **kept}

    def status(self) -> dict[str, Any]:
        """What `status` says about it."""
        return {
            "path": self.path,
            "state": self.state.value,
            "members": self.members,
            "bytes": self.bytes,
            "error": self.error,
        }


_KEPT = tuple(row.name for row in fields(Shard))[:17]


def of_record(record: dict[str, Any]) -> Shard:
    """Return the shard of a journal record. Raises KeyError, ValueError and TypeError for one that makes no
    sense."""
    given = {name: record[name] for name in _KEPT if name in record and name != "state"}
    state = ShardState(record["state"])
    blank = {"job_id": "", "max_images": 0, "max_bytes": 0}
    shard = Shard(**{**blank, **given})
    shard.state = H.COMPLETE if state is H.PUBLISHING else state
    sent = enumerate(record.get("uploads", ()))
    shard.uploads = [Upload.of_record(shard.shard_id, -1, number, each) for number, each in sent]
    return typed(shard)
