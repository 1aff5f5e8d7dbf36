"""Commands on accepted jobs: wait for one, cancel it, retry it, give it up. Decides, as `farm.handle`
documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from luna_farm.core import events, uploads
from luna_farm.core.completion import close, finish, image_record, job_record
from luna_farm.core.feed_events import ImageDismissed
from luna_farm.core.instructions import Append, Instruction, Publish, RemoveTemps, Reply, Uncatalogue
from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.leases import busy
from luna_farm.core.protocol import refusal
from luna_farm.core.state import Farm, Waiter
from luna_farm.errors import FarmError, InvalidRequest, NotPossible, UnknownJob

S = ImageState

MAX_WAITS = 64
"""Waits that a connection may have open at a time."""


def unknown(job_id: str) -> UnknownJob:
    """The error for a job id that is not known."""
    return UnknownJob(f"No job {job_id!r} is known here; `luna-farm jobs` lists those that are.", job_id)


def job_requested(farm: Farm, event: events.JobRequested, now: float) -> list[Instruction]:
    """Carry out the command on a job that is known; one that is not possible says why."""
    job = farm.jobs.get(event.job_id)
    try:
        if job is None:
            raise unknown(event.job_id)
        return COMMANDS[event.command](farm, job, event, now)
    except FarmError as error:
        return [Reply(event.client, event.reply, refusal(error, event.job_id))]


def _wait(farm: Farm, job: Job, event: events.JobRequested, now: float) -> list[Instruction]:
    """Answer at once when the job is finished, else when it is or when the time is up."""
    if job.finished or event.until <= now:
        return [Reply(event.client, event.reply, job.report())]
    if sum(1 for waiter in farm.waiters if waiter.client == event.client) >= MAX_WAITS:
        raise busy(farm, f"this connection waits for {MAX_WAITS} jobs already")
    farm.waiters.append(Waiter(event.client, event.reply, event.job_id, event.until))
    return []


def _cancel(farm: Farm, job: Job, event: events.JobRequested, now: float) -> list[Instruction]:
    """Cancel the images that no worker has begun."""
    opened = farm.submits.get(job.job_id)
    taking = opened.taking if opened else []  # on their way into the journal: they go on
    chosen = _chosen(job, event.index)
    stoppable = [i for i in chosen if i.state in (S.FILLING, S.QUEUED, S.HELD) and i not in taking]
    if not stoppable:
        rest = "none of its images can" if event.index is None else "it cannot"
        raise NotPossible(f"{_which(job, event.index)}: {rest} be cancelled any more.")
    done: list[Instruction] = []
    for image in stoppable:
        if image.state is S.QUEUED:
            (farm.spool_queue if image in farm.spool_queue else farm.waiting).remove(image)
        image.move(S.CANCELLED)
        if image.task.recovered:  # a worker began it, and may have left a temporary file
            done.append(RemoveTemps(image.task.temp_paths, image.task.root))
        done += finish(farm, image)
    return [
        Append(tuple(map(image_record, stoppable))),
        *done,
        Reply(event.client, event.reply, job.report()),
        *close(farm, job, now),
    ]


def _retry(farm: Farm, job: Job, event: events.JobRequested, now: float) -> list[Instruction]:
    """Queue failed images of a job again, from their dead letters."""
    done: list[Instruction] = []
    for image in _reopened(farm, job, event, "to try again"):
        if image.uploads:
            done += uploads.retry(farm, image, now)
            continue
        image.move(S.QUEUED)
        image.crashes = 0
        image.result = replace(image.result, state="", error="", code="")
        farm.take_name(image)
        farm.queue(image, now)
    return [*done, Append((job_record(job),)), Reply(event.client, event.reply, job.report())]


def _dismiss(farm: Farm, job: Job, event: events.JobRequested, now: float) -> list[Instruction]:
    """Give failed images up and remove their dead letters. The reports keep why they failed."""
    done: list[Instruction] = []
    for image in _reopened(farm, job, event, "to dismiss"):
        done += [Publish(ImageDismissed(*image.key, image.task.path)), Uncatalogue(*image.key)]
        if image.uploads:
            done += uploads.dismiss(farm, image, now)
        else:
            image.move(S.CANCELLED)
            done += farm.release_pixels(image)
    # The record first: with the pixels gone, a successor must not take the image for one to try again.
    ended = [Reply(event.client, event.reply, job.report()), *close(farm, job, now)]
    return [Append((job_record(job),)), *done, *ended]


def _reopened(farm: Farm, job: Job, event: events.JobRequested, what_for: str) -> list[Image]:
    """Return the failed images that a command is about. Their job is open again."""
    failed = [image for image in _chosen(job, event.index) if image.state is S.FAILED]
    if not failed:
        missing = f"it has no failed images {what_for}" if event.index is None else "it has not failed"
        raise NotPossible(f"{_which(job, event.index)}: {missing}.")
    farm.open_jobs[job.job_id] = job
    # An image that fails twice counts once. Those that failed under a predecessor were never counted.
    farm.totals["images_failed"] = max(0, farm.totals["images_failed"] - len(failed))
    return failed


def _chosen(job: Job, index: int | None) -> list[Image]:
    """The images of a job, or the one of them that `index` names. Raises InvalidRequest."""
    if index is None:
        return job.images
    if index >= job.num_images:
        raise InvalidRequest.of("index", index, f"0 to {job.num_images - 1}, the images of job {job.job_id}")
    return [job.images[index]]


def _which(job: Job, index: int | None) -> str:
    """The job or the image of a command, and the state that it is in."""
    if index is None:
        return f"Job {job.job_id} is {job.state}"
    return f"Image {index} of job {job.job_id} is {job.images[index].state.value}"


Command = Callable[[Farm, Job, events.JobRequested, float], list[Instruction]]
COMMANDS: dict[events.JobCommand, Command] = {
    "wait": _wait,
    "cancel": _cancel,
    "retry": _retry,
    "dismiss": _dismiss,
}
