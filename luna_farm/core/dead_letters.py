"""Dead letters that the journal does not know, or knows otherwise: what lies there in full counts.

A journal can be lost, damaged or, after a power cut, older than the letters, which are synced. Pure, as
`recovery.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.core.recovery import RecoveredState

S = ImageState
MADE = frozenset({S.SAVED, S.DISCARDED, S.DROPPED, S.CANCELLED})
ADOPTED = "dead-letter-"
"""Begins the request id of a job that was made of its letters."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One image that was set aside: its request, why, and the segment ("npy:PATH") of its pixels."""

    options: SaveOptions
    task: ImageTask
    reason: str
    segment: str


def take_up(recovered: RecoveredState, letters: Iterable[DeadLetter]) -> list[str]:
    """Make each letter a failed image that can be tried again; returns the segments that are not
    needed, because their images were made after all."""
    unneeded: list[str] = []
    for letter in sorted(letters, key=lambda letter: (letter.task.job_id, letter.task.index)):
        job = recovered.jobs.get(letter.task.job_id) or recovered.reports.get(letter.task.job_id)
        if job is None:
            job = Job(letter.task.job_id, f"{ADOPTED}{letter.task.job_id}", letter.options, [], 0.0)
            recovered.jobs[job.job_id] = job
        image = _image_of(job, letter)
        if image is None:
            # Numbered anew: reports and events find images by their place in the job.
            image = Image(replace(letter.task, index=len(job.images)), history=["recovered"])
            job.images.append(image)
        if image.state in MADE:
            unneeded.append(letter.segment)
        elif image.task.segment != letter.segment:  # else the journal knows, or it is being tried again
            _set_aside(image, letter)
    return unneeded


def _image_of(job: Job, letter: DeadLetter) -> Image | None:
    """Find the image by where its pixels are; by its number, too, where it was not numbered anew."""
    same = [image for image in job.images if image.task.segment == letter.segment]
    if not same and not job.request_id.startswith(ADOPTED):
        same = job.images[letter.task.index : letter.task.index + 1]
    return same[0] if same else None


def _set_aside(image: Image, letter: DeadLetter) -> None:
    image.state = S.FAILED
    image.task = replace(image.task, segment=letter.segment, offset=0)
    image.result = ImageResult("", path=image.task.path, error=letter.reason, code="dead_letter")
