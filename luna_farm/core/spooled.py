"""What spooled pixels say of themselves: each file carries its request, so that it can be saved without the
journal.

A journal can be lost, damaged or cut. Pure, as `recovery.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.core.recovery import RecoveredState, task_of
from luna_farm.core.typed import typed

S = ImageState
ADOPTED = "spooled-"
"""Begins the request id of a job of which only some images were found: its client may submit it again."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """Pixels in the spool, in the segment of `task`, and their request."""

    job_id: str
    request_id: str
    num_images: int
    warnings: tuple[str, ...]
    options: SaveOptions
    task: ImageTask

    @classmethod
    def of(cls, segment: str, request: Mapping[str, Any]) -> Spooled:
        """Build from a map of `completion.request_of`. Raises KeyError, ValueError or TypeError for anything
        else."""
        task = replace(task_of(request["task"]), segment=segment, offset=0, recovered=True)
        return cls(
            task.job_id,
            str(request["request_id"]),
            int(request["num_images"]),
            tuple(request["warnings"]),
            typed(SaveOptions.from_map(request["options"])),
            task,
        )


def take_up(recovered: RecoveredState, spooled: Iterable[Spooled], whole: bool) -> list[str]:
    """Make jobs of spooled pixels whose job the journal does not know; returns a sentence for each.

    An open image of a job that is known gets its pixels from the spool. With a journal that is `whole`, a
    part of a job is what is left of a submit that was never accepted, and is not taken up.
    """
    requests = {job.request_id for job in (*recovered.jobs.values(), *recovered.reports.values())}
    unknown: dict[str, list[Spooled]] = {}
    for one in spooled:
        job = recovered.jobs.get(one.job_id) or recovered.reports.get(one.job_id)
        if job is not None:
            _point(job, one)
        elif one.request_id not in requests and (one.job_id, one.task.index) not in recovered.ended:
            unknown.setdefault(one.job_id, []).append(one)
    told: list[str] = []
    for job_id, found in unknown.items():
        found.sort(key=lambda one: one.task.index)
        complete = len(found) == found[0].num_images
        if complete or not whole:
            recovered.jobs[job_id] = _job(found, complete)
            recovered.unsure.add(job_id)
            paths = ", ".join(one.task.path for one in found[:10])
            told.append(
                f"The journal does not know job {job_id}. {len(found)} of its {found[0].num_images} images"
                f" were found in the spool and are saved now, or set aside for `luna-farm retry {job_id}` if"
                f" something of their name is there: {paths}"
            )
    return told


def _job(found: list[Spooled], complete: bool) -> Job:
    """Make the job again. Where images are missing the others are numbered anew: reports and events find
    images by their place in the job."""
    first = found[0]
    request_id = first.request_id if complete else f"{ADOPTED}{first.job_id}"
    images = [Image(replace(one.task, index=place), history=["recovered"]) for place, one in enumerate(found)]
    return Job(first.job_id, request_id, first.options, images, 0.0, first.warnings)


def _point(job: Job, one: Spooled) -> None:
    """What is in the spool is whole and synced, which a record in the journal that says so may not be."""
    image = job.images[one.task.index] if one.task.index < len(job.images) else None
    if image is not None and image.state is S.QUEUED and not image.task.segment.startswith("npy:"):
        image.task = replace(image.task, segment=one.task.segment, offset=0)
