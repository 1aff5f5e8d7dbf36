"""What the farm decides: the instructions that `farm.handle` returns. The supervisor executes them in
order. They are not changed once they are made, but not frozen, as in `events.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from luna_farm.core.feed_events import FeedEvent
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.core.needs import Need
from luna_farm.core.pools import NEAR
from luna_farm.core.shards import ShardPlace


@dataclass(slots=True, unsafe_hash=True)
class Reply:
    """Answer request `reply` of connection `client`."""

    client: int
    reply: int
    message: dict[str, Any]


@dataclass(slots=True, unsafe_hash=True)
class ReserveNames:
    """Find free final paths for `relatives` (below `output_dir`); the result is NamesReserved."""

    job_id: str
    output_dir: str
    relatives: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    numbers: str = "after_last"
    sidecar: str = "auto"
    if_exists: str = "number"
    mirrors: tuple[str, ...] = ()
    archive: str = ""
    """The archive that all images go into, below `output_dir`: its disk is asked for, also without
    relatives."""
    needs: tuple[Need, ...] = ()
    """Packages that the files cannot be written without."""


@dataclass(slots=True, unsafe_hash=True)
class CreateSegment:
    """Create a segment for one image that is larger than the arena; the result is SegmentCreated."""

    client: int
    reply: int
    size: int


@dataclass(slots=True, unsafe_hash=True)
class SpoolPixels:
    """Copy the pixels at `places` (segment, offset, bytes) to disk and sync them; the result is
    PixelsSpooled."""

    job_id: str
    places: tuple[tuple[str, int, int], ...]
    requests: tuple[dict[str, Any], ...]
    """What each of them is, in the same order (`completion.request_of`): kept in its file."""


@dataclass(slots=True, unsafe_hash=True)
class MovePixels:
    """Copy the pixels of an image that has to wait to disk and sync them; the result is PixelsMoved."""

    task: ImageTask
    request: dict[str, Any]


@dataclass(slots=True, unsafe_hash=True)
class Append:
    """Append records to the journal. With a `job_id` that job waits for them: the result is Journaled, and
    the records are synced first if `sync`. Without one they are written as soon as the disk allows."""

    records: tuple[dict[str, Any], ...]
    job_id: str = ""
    sync: bool = False


@dataclass(slots=True, unsafe_hash=True)
class Dispatch:
    """Hand an image to a worker."""

    worker: int
    task: ImageTask
    options: SaveOptions


@dataclass(slots=True, unsafe_hash=True)
class RemoveTemps:
    """Remove the temporary files below `root` that an attempt may have left whose image is given up."""

    temps: tuple[str, ...]
    root: str


@dataclass(slots=True, unsafe_hash=True)
class Spawn:
    """Start a worker of a pool under this number."""

    worker: int
    pool: str = NEAR


@dataclass(slots=True, unsafe_hash=True)
class EndWorker:
    """Ask an idle worker to end, or end one that makes no progress by `force`."""

    worker: int
    why: str
    force: bool = False


@dataclass(slots=True, unsafe_hash=True)
class Bury:
    """Write an image to the dead letters; the result is Buried."""

    task: ImageTask
    options: SaveOptions
    reason: str


@dataclass(slots=True, unsafe_hash=True)
class Forget:
    """Remove a segment (spooled pixels, a dead letter, a segment of one image) that is no longer needed."""

    segment: str


@dataclass(slots=True, unsafe_hash=True)
class StartUpload:
    """Send a spooled file; the result is UploadFinished. `again`: an earlier try may have stored it."""

    job_id: str
    index: int
    number: int
    spool: str
    root: str
    name: str
    again: bool
    bytes: int
    timeout_s: float
    place: str
    """Destination whose uploads share their number at a time."""
    mount: str = ""
    """Mount point of the disk that a folder belongs on, as in `ImageTask`."""


@dataclass(slots=True, unsafe_hash=True)
class AddMember:
    """Append a spooled image to a shard under `name`, or the next free one; the result is UploadFinished.
    `again`: an earlier try may have done it."""

    job_id: str
    index: int
    number: int
    spool: str
    name: str
    again: bool
    bytes: int
    shard: ShardPlace


@dataclass(slots=True, unsafe_hash=True)
class PublishShard:
    """Give a shard of `members` images its final name, or put it into the spool of uploads if that is a URL.
    The result is ShardPublished. Not before the journal is on the disk: it says what is in the shard."""

    shard: ShardPlace
    members: int
    bytes: int


@dataclass(slots=True, unsafe_hash=True)
class RemoveSpooled:
    """Remove a file of the upload spool that every destination has confirmed."""

    spool: str


@dataclass(slots=True, unsafe_hash=True)
class Catalogue:
    """Put a finished image into the catalogue, after the journal. `row`: as its worker packed it; `path`:
    where the file is, if its worker could not know."""

    row: bytes
    path: str = ""


@dataclass(slots=True, unsafe_hash=True)
class CatalogueFailed:
    """Put an image into the catalogue that has failed."""

    task: ImageTask
    options: SaveOptions
    error: str


@dataclass(slots=True, unsafe_hash=True)
class Uncatalogue:
    """Remove the row of a failed image that was given up."""

    job_id: str
    index: int


@dataclass(slots=True, unsafe_hash=True)
class Publish:
    """Send an event to the feed, the metrics and the log."""

    event: FeedEvent


Instruction = (
    Reply
    | ReserveNames
    | CreateSegment
    | SpoolPixels
    | MovePixels
    | Append
    | Dispatch
    | RemoveTemps
    | Spawn
    | EndWorker
    | Bury
    | Forget
    | StartUpload
    | AddMember
    | PublishShard
    | RemoveSpooled
    | Catalogue
    | CatalogueFailed
    | Uncatalogue
    | Publish
)
