"""Commands on accepted jobs: wait for one, cancel it, retry it, give it up. Decides, as `farm.handle`
documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from luna_farm.core import complete_archives, events, uploads
from luna_farm.core.completion import close, finish, image_record, job_record
from luna_farm.core.counted import counted
from luna_farm.core.feed_events import ImageDismissed
from luna_farm.core.instructions import Append, Instruction, Publish, RemoveTemps, Reply, Uncatalogue
from luna_farm.core.job import UNSAVED, Image, ImageState, Job
from luna_farm.core.leases import busy
from luna_farm.core.protocol import refusal
from luna_farm.core.shards import ShardState
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
    """Cancel the images that no worker has begun, and those whose files wait for a destination."""
    opened = farm.submits.get(job.job_id)
    taking = opened.taking if opened else []  # on their way into the journal: they go on
    chosen = _chosen(job, event.index)
    stoppable = [i for i in chosen if i.state in (S.FILLING, S.QUEUED, S.HELD) and i not in taking]
    sending = [image for image in chosen if image.state is S.UPLOADING and not image.task.archive]
    archives = _archives(farm, job) if event.index is None else []
    if not (stoppable or sending or archives):
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
    records = [Append(tuple(map(image_record, stoppable)))] if stoppable else []
    for image in sending:
        done += uploads.cancel(farm, image, now)
    for shard_id in archives:
        done += complete_archives.cancel(farm, shard_id, now)
    return [
        *records,
        *done,
        Reply(event.client, event.reply, job.report()),
        *close(farm, job, now),
    ]


def _archives(farm: Farm, job: Job) -> list[str]:
    """Return the archives that hold nothing but images of a job, and wait for a destination."""
    sending = ShardState.SENDING
    return [at.shard_id for at in farm.shards.values() if at.job_id == job.job_id and at.state is sending]


def _retry(farm: Farm, job: Job, event: events.JobRequested, now: float) -> list[Instruction]:
    """Queue failed images of a job again, from their dead letters."""
    failed = [image for image in _chosen(job, event.index) if image.state is S.FAILED]
    if not failed:
        raise NotPossible(f"{_which(job, event.index)}: {_no_retry(job, event.index)}")
    _reopen(farm, job, failed)
    done: list[Instruction] = []
    for image in failed:
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
    """Give images up that were not saved, and remove their dead letters. The reports keep why."""
    open_again = job.job_id in farm.submits  # its client came back with what was missing
    unsaved = [
        image
        for image in _chosen(job, event.index)
        if image.state in UNSAVED and not (open_again and image.state is S.MISSING)
    ]
    if not unsaved:
        why = "it has no failed images to dismiss" if event.index is None else "it has not failed"
        raise NotPossible(f"{_which(job, event.index)}: {why}.")
    _reopen(farm, job, unsaved)
    done: list[Instruction] = []
    for image in unsaved:
        done += [Publish(ImageDismissed(*image.key, image.task.path)), Uncatalogue(*image.key)]
        if image.state is S.FAILED and image.uploads:
            done += uploads.dismiss(farm, image, now)
            continue
        if image.state is S.FAILED:
            done += farm.release_pixels(image)
        image.move(S.CANCELLED)
    # The record first: with the pixels gone, a successor must not take the image for one to try again.
    ended = [Reply(event.client, event.reply, job.report()), *close(farm, job, now)]
    return [Append((job_record(job),)), *done, *ended]


def _reopen(farm: Farm, job: Job, unsaved: Sequence[Image]) -> None:
    farm.open_jobs[job.job_id] = job
    farm.uncount_failed(len(unsaved))  # an image that fails twice counts once


def _no_retry(job: Job, index: int | None) -> str:
    """Say why nothing can be tried again: of images without pixels, where these would have to come from."""
    chosen = _chosen(job, index)
    missing, lost = (sum(image.state is state for image in chosen) for state in (S.MISSING, S.LOST))
    if not missing and not lost:
        return "it has no failed images to try again." if index is None else "it has not failed."
    what = ", ".join(
        f"{counted(count, 'image')} {how}"
        for count, how in ((missing, "never handed over"), (lost, "lost"))
        if count
    )
    return (
        f"{what}, so the farm has no pixels to try again with. Save again from the source;"
        f" `luna-farm dismiss {job.job_id}` gives up what is not saved."
    )


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
