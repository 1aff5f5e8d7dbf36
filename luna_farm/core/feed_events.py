"""What the feed, the metrics and the log are told: one class for each event, with the fields of docs/feed.md.

Times are milliseconds. `job_id`, `index` and `path` name an image; `worker` is a number, `pid` a process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from luna_farm.core.messages import Message

Bytes = bytes


@dataclass(slots=True, unsafe_hash=True)
class FeedEvent(Message):
    """Base of the events below. `name` is the value of the key `event` in the feed's messages.

    Not changed once they are made. They are not frozen: a frozen class takes twice as long to make.
    """

    name: ClassVar[str] = ""

    def to_map(self) -> dict[str, Any]:
        """Return the message of the feed, without timestamp and sequence number."""
        return {"event": self.name, **Message.to_map(self)}


@dataclass(slots=True, unsafe_hash=True)
class JobQueued(FeedEvent):
    """A job is accepted."""

    name: ClassVar[str] = "save_job_queued"
    job_id: str
    num_images: int
    paths: tuple[str, ...]


@dataclass(slots=True, unsafe_hash=True)
class JobStarted(FeedEvent):
    """The first image of a job goes to a worker."""

    name: ClassVar[str] = "save_started"
    job_id: str
    num_images: int


@dataclass(slots=True, unsafe_hash=True)
class ImageRejected(FeedEvent):
    """The quality gate rejected an image; `on_reject` says what becomes of it."""

    name: ClassVar[str] = "image_rejected"
    job_id: str
    index: int
    path: str
    format: str
    width: int
    height: int
    score: float | None
    threshold: float | None
    on_reject: str
    worker: int
    thumbnail: Bytes


@dataclass(slots=True, unsafe_hash=True)
class ImageSaved(FeedEvent):
    """The file of an image is complete, synced and under its final name. `ms`: from acceptance to here."""

    name: ClassVar[str] = "image_saved"
    job_id: str
    index: int
    path: str
    format: str
    width: int
    height: int
    score: float | None
    worker: int
    thumbnail: Bytes
    state: str
    bytes: int
    ms: float
    queue_ms: float
    gate_ms: float
    encode_ms: float
    write_ms: float
    warnings: tuple[str, ...]
    scores: Mapping[str, Any]


@dataclass(slots=True, unsafe_hash=True)
class ImageUploading(FeedEvent):
    """The encoded file of an image is in the spool, on its way to its destinations."""

    name: ClassVar[str] = "image_uploading"
    job_id: str
    index: int
    path: str
    bytes: int


@dataclass(slots=True, unsafe_hash=True)
class ImageFailed(FeedEvent):
    """An image was set aside in the dead letters."""

    name: ClassVar[str] = "image_failed"
    job_id: str
    index: int
    path: str
    error: str
    code: str


@dataclass(slots=True, unsafe_hash=True)
class ImageLost(FeedEvent):
    """The pixels of an accepted image are gone."""

    name: ClassVar[str] = "job_lost"
    job_id: str
    index: int
    path: str
    error: str


@dataclass(slots=True, unsafe_hash=True)
class ImagesMissing(FeedEvent):
    """A client ended or aborted before it sealed `count` images of a job, the first of them `index`."""

    name: ClassVar[str] = "images_missing"
    job_id: str
    index: int
    count: int


@dataclass(slots=True, unsafe_hash=True)
class JobDone(FeedEvent):
    """All images of a job are finished."""

    name: ClassVar[str] = "save_job_done"
    job_id: str
    state: str
    images_saved: int
    images_discarded: int
    images_failed: int
    ms: float


@dataclass(slots=True, unsafe_hash=True)
class FolderFailing(FeedEvent):
    """An output folder cannot be written now; its images are held."""

    name: ClassVar[str] = "folder_failing"
    job_id: str
    path: str
    error: str


@dataclass(slots=True, unsafe_hash=True)
class FolderRecovered(FeedEvent):
    """An output folder can be written again."""

    name: ClassVar[str] = "folder_recovered"
    path: str


@dataclass(slots=True, unsafe_hash=True)
class DestinationFailing(FeedEvent):
    """Nothing can be sent to a destination now; what goes there waits in the spool."""

    name: ClassVar[str] = "destination_failing"
    destination: str
    error: str


@dataclass(slots=True, unsafe_hash=True)
class ArchiveLost(FeedEvent):
    """The file of an archive that was being written is gone or damaged."""

    name: ClassVar[str] = "archive_lost"
    path: str
    members: int
    error: str


@dataclass(slots=True, unsafe_hash=True)
class DestinationRecovered(FeedEvent):
    """A destination takes files again."""

    name: ClassVar[str] = "destination_recovered"
    destination: str


@dataclass(slots=True, unsafe_hash=True)
class PoolPaused(FeedEvent):
    """From here on no image is begun and no upload is started; `waiting` images are queued."""

    name: ClassVar[str] = "pool_paused"
    waiting: int


@dataclass(slots=True, unsafe_hash=True)
class PoolResumed(FeedEvent):
    """Accepted images are saved again."""

    name: ClassVar[str] = "pool_resumed"
    waiting: int


@dataclass(slots=True, unsafe_hash=True)
class ImageDismissed(FeedEvent):
    """A failed image was given up: its dead letter is removed."""

    name: ClassVar[str] = "image_dismissed"
    job_id: str
    index: int
    path: str


@dataclass(slots=True, unsafe_hash=True)
class EngineFailing(FeedEvent):
    """No worker of an engine can be had now; workers of this machine do its work."""

    name: ClassVar[str] = "engine_failing"
    engine: str
    error: str


@dataclass(slots=True, unsafe_hash=True)
class EngineRecovered(FeedEvent):
    """An engine has workers again."""

    name: ClassVar[str] = "engine_recovered"
    engine: str


@dataclass(slots=True, unsafe_hash=True)
class WorkerStarted(FeedEvent):
    """A worker process is being started."""

    name: ClassVar[str] = "worker_started"
    worker: int


@dataclass(slots=True, unsafe_hash=True)
class WorkerIsReady(FeedEvent):
    """A worker process takes images."""

    name: ClassVar[str] = "worker_ready"
    worker: int
    pid: int


@dataclass(slots=True, unsafe_hash=True)
class WorkerReaped(FeedEvent):
    """An idle worker, or one of a farm that stops, has ended."""

    name: ClassVar[str] = "worker_reaped"
    worker: int
    pid: int
    reason: str


@dataclass(slots=True, unsafe_hash=True)
class WorkerLost(FeedEvent):
    """A worker ended that was not asked to."""

    name: ClassVar[str] = "worker_lost"
    worker: int
    pid: int
    reason: str
