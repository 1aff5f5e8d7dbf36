"""What happens to the farm: the events that `farm.handle` takes. Facts only, no behaviour.

`client` numbers a connection, `reply` the request on it that waits for an answer, `worker` a worker process.
"""

from __future__ import annotations

from dataclasses import dataclass

from luna_farm.core.messages import ImageResult
from luna_farm.core.schema import Submit
from luna_farm.errors import FarmError


@dataclass(frozen=True, slots=True)
class LeaseAsked:
    """A client wants slots of `sizes` bytes."""

    client: int
    reply: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LeasesReturned:
    """A client gives unused leases back."""

    client: int
    leases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClientGone:
    """A connection ended. `may_write`: its process may live and still be writing into its slots."""

    client: int
    may_write: bool


@dataclass(frozen=True, slots=True)
class Submitted:
    """A whole submit arrived and passed the schema; the pixels are in their slots, or coming
    (`submit.coming`)."""

    client: int
    reply: int
    submit: Submit
    job_id: str


@dataclass(frozen=True, slots=True)
class PixelsCame:
    """A client has filled the slots of the submit whose pixels were coming."""

    client: int


@dataclass(frozen=True, slots=True)
class NamesReserved:
    """Free final paths were found for the images of a job, in order; `warnings` come from the templates.

    `root`: the folder below which no link may be followed, "" for the output_dir of the job.
    """

    job_id: str
    paths: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    root: str = ""


@dataclass(frozen=True, slots=True)
class NamesRefused:
    """No names could be reserved (outside the folder, folder not reachable)."""

    job_id: str
    error: FarmError


@dataclass(frozen=True, slots=True)
class Spooled:
    """The pixels of a durable job are synced to disk: `segments` name the file of each entry."""

    job_id: str
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpoolFailed:
    """The pixels of a durable job could not be spooled."""

    job_id: str
    error: FarmError


@dataclass(frozen=True, slots=True)
class JobJournaled:
    """The record of a job is in the journal: from now on it survives."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """The record of a job could not be written; the job was not accepted."""

    job_id: str
    error: FarmError


@dataclass(frozen=True, slots=True)
class WaitAsked:
    """A client wants to know when a job is finished, or that it is not by `until` (monotonic seconds)."""

    client: int
    reply: int
    job_id: str
    until: float


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A client wants what has not begun of a job not to be done."""

    client: int
    reply: int
    job_id: str


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """A client wants the failed images of a job tried again."""

    client: int
    reply: int
    job_id: str


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker process can take images. `created` is its start time as the system tells it, for the fence."""

    worker: int
    pid: int
    created: float
    encoders: dict[str, str]


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker process has ended **and was collected**; nothing of it can write any more."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class ImageFinished:
    """A worker reports what came of an image."""

    worker: int
    job_id: str
    index: int
    result: ImageResult


@dataclass(frozen=True, slots=True)
class TempSettled:
    """The temporary link of a published file is gone."""

    job_id: str
    index: int


@dataclass(frozen=True, slots=True)
class Buried:
    """The pixels of an image lie in the dead letters: `segment` and `offset` say where."""

    job_id: str
    index: int
    segment: str
    offset: int


@dataclass(frozen=True, slots=True)
class BuryFailed:
    """The dead letter could not be written; the image stays where it is."""

    job_id: str
    index: int
    error: str


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """Stop taking jobs, finish what was accepted, end the workers."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    LeaseAsked
    | LeasesReturned
    | ClientGone
    | Submitted
    | PixelsCame
    | NamesReserved
    | NamesRefused
    | Spooled
    | SpoolFailed
    | JobJournaled
    | JournalFailed
    | WaitAsked
    | CancelAsked
    | RetryAsked
    | WorkerReady
    | WorkerGone
    | ImageFinished
    | TempSettled
    | Buried
    | BuryFailed
    | DrainAsked
    | Tick
)
