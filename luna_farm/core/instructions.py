"""What the farm decides: the instructions that `farm.handle` returns, executed by the supervisor in this
order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from luna_farm.core.messages import ImageTask, SaveOptions


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer request `reply` of connection `client`."""

    client: int
    reply: int
    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReserveNames:
    """Find free final paths for `relatives` (below `output_dir`); answers with NamesReserved or
    NamesRefused."""

    job_id: str
    output_dir: str
    relatives: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    numbers: str = "after_last"
    sidecar: str = "auto"


@dataclass(frozen=True, slots=True)
class SpoolPixels:
    """Copy (segment, offset, size) of each entry to disk and sync it; answers with Spooled or SpoolFailed."""

    job_id: str
    places: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class AppendJob:
    """Append the record of a new job to the journal; answers with JobJournaled or JournalFailed."""

    job_id: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Append:
    """Append a record to the journal. A Settle that stands behind it happens only once it is written."""

    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Hand an image to a worker."""

    worker: int
    task: ImageTask
    options: SaveOptions


@dataclass(frozen=True, slots=True)
class Settle:
    """Have a worker remove the temporary link of a published file, wherever it is; answers with
    TempSettled."""

    worker: int
    job_id: str
    index: int
    temps: tuple[str, ...]
    root: str


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker process under this number."""

    worker: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Ask an idle worker to end."""

    worker: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker that makes no progress, by force."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Bury:
    """Write an image to the dead letters; answers with Buried or BuryFailed."""

    task: ImageTask
    options: SaveOptions
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove a file segment (spooled pixels or a dead letter) that is no longer needed."""

    segment: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell the feed, the metrics and the log."""

    event: dict[str, Any]


Instruction = (
    Reply
    | ReserveNames
    | SpoolPixels
    | AppendJob
    | Append
    | Dispatch
    | Settle
    | Spawn
    | Retire
    | Kill
    | Bury
    | Forget
    | Publish
)
