"""What happens to the farm: the events that `farm.handle` takes. Facts only, no behaviour.

`client` numbers a connection, `reply` a request on it, `worker` a worker process. An event with an `error`
that is not None says that the instruction before it failed. They are not changed once they are made, but not
frozen: a frozen class takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from luna_farm.core.messages import ImageResult, Note
from luna_farm.core.schema import Part, Submit
from luna_farm.errors import FarmError

# --- from clients


@dataclass(slots=True, unsafe_hash=True)
class LeaseRequested:
    """A client requests slots of `sizes` bytes."""

    client: int
    reply: int
    sizes: tuple[int, ...]


@dataclass(slots=True, unsafe_hash=True)
class LeasesReturned:
    """A client returns unused leases."""

    client: int
    leases: tuple[int, ...]


@dataclass(slots=True, unsafe_hash=True)
class Submitted:
    """A submit arrived and passed the schema. Its pixels follow as `Sealed` events with the same `reply`."""

    client: int
    reply: int
    submit: Submit
    job_id: str


@dataclass(slots=True, unsafe_hash=True)
class ManySubmitted:
    """Several submits arrived in one message. The pixels of all follow in one `Sealed` with one part."""

    client: int
    reply: int
    submits: tuple[Submit, ...]
    job_ids: tuple[str, ...]
    want: tuple[int, ...] = ()


@dataclass(slots=True, unsafe_hash=True)
class Sealed:
    """The pixels of the next images of the submit `reply` are complete in the leased slots of `parts`.

    `time_ns`: the wall clock now, in nanoseconds since 1970; 0: files get the time at which they are written.
    """

    client: int
    reply: int
    parts: tuple[Part, ...]
    time_ns: int = 0


@dataclass(slots=True, unsafe_hash=True)
class Aborted:
    """A client seals nothing more for the submit `reply`. What it has sealed stays accepted."""

    client: int
    reply: int


@dataclass(slots=True, unsafe_hash=True)
class ClientGone:
    """A connection ended. `may_write`: its process may live and still be writing into its slots."""

    client: int
    may_write: bool


JobCommand = Literal["wait", "cancel", "retry", "dismiss"]


@dataclass(slots=True, unsafe_hash=True)
class JobRequested:
    """A client waits for a job (until the monotonic time `until`, in seconds), cancels or retries its
    images, or gives up those that failed. `index`: of one image; None: of all."""

    client: int
    reply: int
    command: JobCommand
    job_id: str
    until: float = 0.0
    index: int | None = None


@dataclass(slots=True, unsafe_hash=True)
class PauseRequested:
    """A client pauses the pool, or (`paused` False) lets it go on."""

    client: int
    reply: int
    paused: bool


# --- results of instructions


@dataclass(slots=True, unsafe_hash=True)
class NamesReserved:
    """Free final paths were found for the images of a job, in order; `warnings` come from the templates.

    `root`: the folder below which no link may be followed, "" for the output_dir of the job.
    """

    job_id: str
    paths: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    root: str = ""
    mounts: tuple[str, ...] = ()
    """Mount point of the disk that each file, or the archive, belongs on, "" for that of the system; ()
    where all are on that one."""
    mirror_mounts: Mapping[str, str] | None = None
    """Mirror -> mount point of its disk, of those on another one."""
    error: FarmError | None = None


@dataclass(slots=True, unsafe_hash=True)
class SegmentCreated:
    """A segment of its own exists for one image that is larger than the arena."""

    client: int
    reply: int
    size: int
    segment: str = ""
    error: FarmError | None = None


@dataclass(slots=True, unsafe_hash=True)
class PixelsSpooled:
    """Pixels of a durable job are synced to disk: one file segment for each part, in order."""

    job_id: str
    segments: tuple[str, ...] = ()
    error: FarmError | None = None


@dataclass(slots=True, unsafe_hash=True)
class PixelsMoved:
    """The pixels of an image that has to wait are synced to disk, in the file segment `segment`."""

    job_id: str
    index: int
    segment: str = ""
    error: FarmError | None = None


@dataclass(slots=True, unsafe_hash=True)
class Journaled:
    """The records of a job that was waiting for them are in the journal: they survive."""

    job_id: str
    error: FarmError | None = None


@dataclass(slots=True, unsafe_hash=True)
class Buried:
    """The pixels of an image are in the dead letters: `segment` and `offset` say where."""

    job_id: str
    index: int
    segment: str = ""
    offset: int = 0
    error: FarmError | None = None


# --- from workers


@dataclass(slots=True, unsafe_hash=True)
class WorkerReady:
    """A worker can take images. `pid` is the process of this machine that writes its files, `created` its
    start time as the system gives it, for the fence.

    `node`: where it encodes, "" for here; `node_pid`: its process there."""

    worker: int
    pid: int
    created: float
    encoders: dict[str, str] = field(default_factory=dict)
    node: str = ""
    node_pid: int = 0


@dataclass(slots=True, unsafe_hash=True)
class WorkerGone:
    """A worker process has ended **and was collected**; nothing of it can write any more.

    `notes`: which files it was about to give which names. `blameless`: not its image, but what it ran on
    ended it."""

    worker: int
    why: str
    notes: tuple[Note, ...] = ()
    blameless: bool = False


@dataclass(slots=True, unsafe_hash=True)
class PoolFailed:
    """No worker of a pool can be had now. That is over as soon as one is ready."""

    pool: str
    error: str


@dataclass(slots=True, unsafe_hash=True)
class ImageFinished:
    """A worker reports the result of an image."""

    worker: int
    job_id: str
    index: int
    result: ImageResult


# --- from the uploader


@dataclass(slots=True, unsafe_hash=True)
class UploaderReady:
    """The uploader process runs. `created` is its start time as the system gives it, for the fence."""

    pid: int
    created: float


@dataclass(slots=True, unsafe_hash=True)
class UploadFinished:
    """A destination has stored an upload under `name`, or with an `error` it has not.

    `decision`: what to do about the error ("retry", "hold", "fail"), or "interrupted": the uploader ended.
    `wait_s`: how long the service asks to wait.
    """

    job_id: str
    index: int
    number: int
    name: str = ""
    bytes: int = 0
    error: str = ""
    decision: str = ""
    wait_s: float = 0.0


@dataclass(slots=True, unsafe_hash=True)
class ShardPublished:
    """A shard has the name `path`, or lies whole in the spool of uploads as `spool`; with an `error` neither.
    `decision`: "fail" when its file is gone, "interrupted" when the uploader ended."""

    shard_id: str
    path: str = ""
    spool: str = ""
    bytes: int = 0
    error: str = ""
    decision: str = ""


# --- from the supervisor itself


@dataclass(slots=True, unsafe_hash=True)
class DrainRequested:
    """Accept no more jobs, finish what was accepted, end the workers. `now`: the rest is for the next
    start."""

    now: bool = False


@dataclass(slots=True, unsafe_hash=True)
class Tick:
    """Time has passed."""


Event = (
    LeaseRequested
    | LeasesReturned
    | Submitted
    | ManySubmitted
    | Sealed
    | Aborted
    | ClientGone
    | JobRequested
    | PauseRequested
    | NamesReserved
    | SegmentCreated
    | PixelsSpooled
    | PixelsMoved
    | Journaled
    | Buried
    | WorkerReady
    | WorkerGone
    | PoolFailed
    | ImageFinished
    | UploaderReady
    | UploadFinished
    | ShardPublished
    | DrainRequested
    | Tick
)
