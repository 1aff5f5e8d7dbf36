"""Submits that are being accepted: what has arrived of each, and what it waits for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from luna_farm.core.job import Image, Job
from luna_farm.core.schema import Submit
from luna_farm.core.slots import Slot
from luna_farm.errors import FarmError


class Step(Enum):
    """What an open submit waits for; CLIENT: for the next seal."""

    __hash__ = object.__hash__

    NAMES = "names"
    SPOOL = "spool"
    JOURNAL = "journal"
    CLIENT = "client"


@dataclass(slots=True)
class OpenSubmit:
    """A submit whose images are being sealed and accepted.

    One step at a time is under way: the names, or for the parts that were sealed first the spool and the
    journal. Parts that are sealed meanwhile wait in `parts`.
    """

    job_id: str
    client: int
    reply: int
    submit: Submit
    job: Job | None = None
    """Known once the names are reserved."""
    step: Step = Step.NAMES
    members: tuple[str, ...] = ()
    """Names in the archive, for a submit that makes one."""
    archive: str = ""
    """Path of that archive below the output_dir, without number and ending."""
    parts: deque[tuple[Slot, int, tuple[int, ...], int]] = field(default_factory=deque)
    """Sealed slots with the number of their images, the flaws of each, and the time of the first one's
    file."""
    sealed: int = 0
    """Images whose parts have arrived, in order."""
    taken: int = 0
    """Images of parts that were spooled and journaled, or are on their way there."""
    taking: list[Image] = field(default_factory=list)
    """Images on their way into the journal."""
    listening: bool = True
    """The client waits for the receipt; false once it has left or aborted."""
    early: bool = False
    """The job is or was journaled before its images were sealed, and the receipt sent (`early.py`)."""
    bundle: OpenBundle | None = None
    """The requests that it came with, in one message."""

    @property
    def complete(self) -> bool:
        """All images are sealed."""
        return self.sealed == self.submit.num_images


@dataclass(slots=True)
class OpenBundle:
    """Requests that are accepted together. One step at a time is under way for all of them."""

    client: int
    reply: int
    want: tuple[int, ...]
    opened: list[OpenSubmit] = field(default_factory=list)
    step: Step = Step.NAMES
    left: int = 0
    """Answers that the step waits for."""
    slot: Slot | None = None
    """Where all pixels are, once they are sealed."""
    flaws: tuple[int, ...] = ()
    file_time_ns: int = 0
    listening: bool = True
    error: FarmError | None = None

    @property
    def jobs(self) -> list[Job]:
        """The jobs, in the order of the requests; their names are reserved."""
        return [opened.job for opened in self.opened if opened.job is not None]
