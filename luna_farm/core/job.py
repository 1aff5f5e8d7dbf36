"""A job and its images: the states they can be in, and what follows from them.

An image moves along a table; the state of a job is derived from its images and cannot contradict them. This
module must never decide when something happens (that is `dispatch.py`), only what may.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from typing import Any

from luna_farm.core.circuits import Upload
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.core.options import OPTIONS
from luna_farm.locations import is_url


class ImageState(Enum):
    """Where one image is. FILLING: its client has not sealed it yet. HELD: its folder cannot be written now.
    BURYING: on its way into the dead letters. UPLOADING: its encoded file is in the spool, on its way to its
    destinations. MISSING: its client left before it was sealed."""

    # By identity: the hash of Enum is Python code, and states are looked up all the time.
    __hash__ = object.__hash__

    FILLING = "filling"
    QUEUED = "queued"
    RUNNING = "running"
    HELD = "held"
    BURYING = "burying"
    UPLOADING = "uploading"
    SAVED = "saved"
    DISCARDED = "discarded"
    DROPPED = "dropped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    MISSING = "missing"


S = ImageState
STATES = {state.value: state for state in ImageState}
NAMES = {state: state.value for state in ImageState}
"""Before Python 3.12 `value` is Python code, and states are written down for every image."""
TRANSITIONS: dict[ImageState, frozenset[ImageState]] = {
    S.FILLING: frozenset({S.QUEUED, S.CANCELLED, S.MISSING}),
    # Saved or discarded without having run: a predecessor published it and had no time to say so.
    S.QUEUED: frozenset(
        {S.RUNNING, S.HELD, S.CANCELLED, S.LOST, S.MISSING, S.SAVED, S.DISCARDED, S.UPLOADING, S.BURYING}
    ),
    S.RUNNING: frozenset({S.SAVED, S.DISCARDED, S.DROPPED, S.HELD, S.QUEUED, S.BURYING, S.UPLOADING}),
    S.UPLOADING: frozenset({S.SAVED, S.DISCARDED, S.FAILED, S.LOST, S.CANCELLED}),
    S.HELD: frozenset({S.QUEUED, S.CANCELLED, S.LOST}),
    S.BURYING: frozenset({S.FAILED, S.QUEUED, S.LOST}),
    # Cancelled: given up. Saved or discarded: given up where only a copy is missing.
    S.FAILED: frozenset({S.QUEUED, S.UPLOADING, S.CANCELLED, S.SAVED, S.DISCARDED}),
    S.SAVED: frozenset(),
    S.DISCARDED: frozenset(),
    S.DROPPED: frozenset(),
    S.CANCELLED: frozenset(),
    S.LOST: frozenset({S.CANCELLED}),  # given up
    S.MISSING: frozenset({S.QUEUED, S.CANCELLED}),  # the client came back with the same request; or given up
}
UNSAVED = frozenset({S.FAILED, S.LOST, S.MISSING})
"""Finished, and not as it was asked for."""
UNFINISHED = frozenset({S.FILLING, S.QUEUED, S.RUNNING, S.HELD, S.BURYING, S.UPLOADING})
_PLAIN = frozenset({S.SAVED, S.DISCARDED, S.DROPPED})
"""Finished, as it was asked for."""
HISTORY_LENGTH = 32
_DOCUMENTS = tuple(name for name, option in OPTIONS.items() if option.is_document)
_documents_of = attrgetter(*_DOCUMENTS)
NOTHING_YET = ImageResult("")


@dataclass(slots=True, eq=False)
class Image:
    """One file to be: its task, where it is, what came of it. `slot` is its slot in the arena of this
    supervisor."""

    task: ImageTask
    state: ImageState = S.QUEUED
    result: ImageResult = NOTHING_YET
    crashes: int = 0
    slot: int | None = None
    spool: str = ""
    """File segment with the same pixels, for a durable job; the image begins at `spool_offset`."""
    spool_offset: int = 0
    queued_at: float = 0.0
    started_at: float = 0.0
    failures: int = 0
    """Times in a row that it could not be written."""
    retry_at: float = 0.0
    """When it may be tried again after that."""
    journaled: ImageTask | None = None
    """The task as the journal knows it; a record repeats it only once it has changed."""
    uploads: list[Upload] = field(default_factory=list)
    """Where its encoded file goes from the spool."""
    history: list[str] = field(default_factory=list)

    def move(self, to: ImageState) -> None:
        """Change state along the table; anything else is a bug, raised with the history so far."""
        if to not in TRANSITIONS[self.state]:
            raise AssertionError(
                f"image {self.task.index} of job {self.task.job_id} cannot go from {self.state.value} to "
                f"{to.value}; history: {' > '.join(self.history)}"
            )
        self.history.append(NAMES[self.state])
        del self.history[:-HISTORY_LENGTH]
        self.state = to

    @property
    def finished(self) -> bool:
        """Nothing more will happen to it by itself."""
        return self.state not in UNFINISHED

    @property
    def key(self) -> tuple[str, int]:
        """(job id, index): the name of this image inside the farm."""
        return self.task.job_id, self.task.index

    def report(self) -> dict[str, Any]:
        """What a client gets to know about it."""
        result = self.result
        return {
            "index": self.task.index,
            "affix": self.task.affix,
            "format": self.task.format,
            "state": NAMES[self.state],
            "path": result.path or self.task.path,
            "member": self.member,
            "bytes": result.bytes,
            "score": result.score,
            "threshold": result.threshold,
            "scores": dict(result.scores or {}),
            "error": result.error,
            "code": result.code,
            "warnings": list(result.warnings),
            "ms": dict(result.ms or {}),
            "outputs": self._outputs(),
        }

    @property
    def member(self) -> str:
        """Its name in the archive at `path`, "" if it is not in one."""
        if not self.task.archive:
            return ""
        return self.uploads[0].name if self.uploads else self.task.member

    def _outputs(self) -> list[dict[str, Any]]:
        """Every place that the file goes to, the one of `path` first, each with a state of its own."""
        result = self.result
        outputs = [upload.report() for upload in self.uploads]
        if is_url(self.task.root) or self.task.archive:
            return outputs
        if not self.task.outputs:
            state = "dropped" if result.state == "dropped" else "saved"
            first = {"path": result.path, "state": state, "bytes": result.bytes, "error": ""}
            return [first, *outputs] if result.path else outputs
        return [*map(self._output, range(len(self.task.outputs))), *outputs]

    def _output(self, number: int) -> dict[str, Any]:
        """One of several files: where it is or is going to be, and what became of it."""
        result = self.result
        known = {file["number"]: file for file in (*self.task.published, *result.files)}.get(number)
        saved = known is not None or result.state in ("saved", "discarded")
        return {
            "path": known["path"] if known else self.task.paths[number],
            "state": "saved" if saved else self.state.value,
            "bytes": known["bytes"] if known else 0,
            "error": "" if saved else result.error,
        }


@dataclass(slots=True, eq=False)
class Job:
    """What one submit became: options shared by all, images in order of submission."""

    job_id: str
    request_id: str
    options: SaveOptions
    images: list[Image]
    accepted_at: float
    warnings: tuple[str, ...] = ()
    started: bool = False
    """`save_started` was published."""
    early: bool = False
    """Its receipt was sent, and no image is sealed yet (`early.py`)."""

    @property
    def num_images(self) -> int:
        """Images of the job, sealed or not."""
        return len(self.images)

    @property
    def finished(self) -> bool:
        """All images are finished."""
        return UNFINISHED.isdisjoint([image.state for image in self.images])

    @property
    def state(self) -> str:
        """ "queued", "running", "done", "failed", "cancelled" or "lost"."""
        states = {image.state for image in self.images}
        if states <= _PLAIN:
            return "done"
        if states & UNFINISHED:
            return "queued" if states <= {S.FILLING, S.QUEUED} else "running"
        worst = (S.LOST, "lost"), (S.FAILED, "failed"), (S.MISSING, "failed")
        return next((name for state, name in worst if state in states), "cancelled")

    def count(self, *states: ImageState) -> int:
        """How many images are in one of `states`."""
        return sum([image.state in states for image in self.images])

    def report(self) -> dict[str, Any]:
        """What `job`, `jobs` and `wait` answer."""
        return {
            "job_id": self.job_id,
            "request_id": self.request_id,
            "state": self.state,
            "num_images": self.num_images,
            "output_dir": self.options.output_dir,
            "model_name": self.options.model_name,
            "timestamp": self.options.timestamp,
            "warnings": list(self.warnings),
            "images": [image.report() for image in self.images],
        }

    def forget_metadata(self) -> None:
        """Drop the texts that only the encoding needed: reports are kept, workflows of 100 KB each are
        not."""
        self.options = self.without_documents()

    def without_documents(self) -> SaveOptions:
        """Return the options without the texts that only the encoding needs."""
        if not any(_documents_of(self.options)):
            return self.options
        return self.options.with_fields(**dict.fromkeys(_DOCUMENTS, ""))
