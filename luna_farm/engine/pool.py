"""What the supervisor needs of a pool of workers, whatever they are.

A pool executes what the core decided and reports by events: `WorkerReady`, `ImageFinished`, `WorkerGone`. It
reports a worker gone only once nothing of it can write any more. It must never decide who makes which image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from luna_farm.config_provenance import UNSIGNED, Signing
from luna_farm.core import events
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.storage import notes
from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.testing.faults import crash_point

HandleEvent = Callable[[events.Event], None]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What every worker is told once: whether files are synced, the folders of notes and of the upload spool
    ("" without one), where files may be written, what rows of the catalogue keep (None: no catalogue), and
    the file of thumbnails with its bound in bytes (0: none are kept)."""

    fsync: bool
    notes: str
    signing: Signing = UNSIGNED
    uploads: str = ""
    allowed: Allowed = ANYWHERE
    catalogue: tuple[str, ...] | None = None
    thumbnails: tuple[str, int] = ("", 0)

    def notes_of(self, worker: int) -> str:
        """Return the path of the notes of a worker."""
        return os.path.join(self.notes, str(worker))

    def of_worker(self, worker: int | None) -> tuple[Any, ...]:
        """Return the arguments of `worker.main.serve` behind its pipe; with the folder of all notes for
        None."""
        return (
            self.fsync,
            self.notes if worker is None else self.notes_of(worker),
            self.signing,
            self.uploads,
            self.allowed,
            self.catalogue,
            self.thumbnails,
        )


class Pool(Protocol):
    """Workers by number. All methods return at once; what comes of them are events."""

    def spawn(self, worker: int) -> None:
        """Start a worker; it reports ready by itself."""

    def dispatch(self, worker: int, task: ImageTask, options: SaveOptions, *, last: bool) -> None:
        """Hand an image to a worker; `last`: no other waits behind it."""

    def retire(self, worker: int, why: str) -> None:
        """Ask a worker to end."""

    def kill(self, worker: int, why: str) -> None:
        """End a worker by force."""

    def forget(self, segment: str) -> None:
        """Have every process let go of a segment."""

    def flush(self) -> None:
        """Send what was said since the last flush."""

    async def close(self, patience_s: float) -> None:
        """End all workers and wait until they are collected; they have `patience_s` seconds to finish
        what was sent to them before."""


def image_message(task: ImageTask, options: SaveOptions, *, last: bool) -> dict[str, Any]:
    """Return the message that hands an image to a worker."""
    return {"t": "image", "task": task.values(), "options": options.values(), "last": last}


def finished(worker: int, message: dict[str, Any]) -> events.ImageFinished:
    """Return the event of a worker's result."""
    result = ImageResult.from_values(message["result"])
    crash_point("supervisor.result_received")
    return events.ImageFinished(worker, message["job_id"], message["index"], result)


def gone(
    worker: int,
    why: str,
    settings: WorkerSettings,
    handle_event: HandleEvent,
    *,
    stays: bool,
    blameless: bool = False,
) -> None:
    """Report a worker that was collected, with its notes. Unless the supervisor `stays`, the next start reads
    them."""
    path = settings.notes_of(worker)
    handle_event(events.WorkerGone(worker, why, tuple(notes.read(path)), blameless))
    if stays:
        notes.remove(path)
