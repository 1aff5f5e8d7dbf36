"""What clients ask about jobs that were accepted: how they end, to cancel them, to try them again.

Decides, as `farm.handle` documents; acts on nothing.
"""

from __future__ import annotations

from dataclasses import replace

from luna_farm.core import events
from luna_farm.core.completion import close, finish, image_record
from luna_farm.core.dispatch import advance, settle_left
from luna_farm.core.filenames import collision_key
from luna_farm.core.instructions import Append, Instruction, Reply
from luna_farm.core.job import ImageState
from luna_farm.core.leases import busy
from luna_farm.core.protocol import refusal
from luna_farm.core.state import Farm, Waiter
from luna_farm.errors import NotPossible, UnknownJob

MAX_WAITS = 64
"""Questions for the end of a job that a client may have open at a time."""


def unknown(job_id: str) -> UnknownJob:
    """The error for a job id that is not known."""
    return UnknownJob(f"No job {job_id!r} is known here; `luna-farm jobs` lists those that are.", job_id)


def wait_asked(farm: Farm, event: events.WaitAsked, now: float) -> list[Instruction]:
    """Answer at once when the job is finished, else when it is or when the time is up."""
    job = farm.jobs.get(event.job_id)
    if job is None:
        return [Reply(event.client, event.reply, refusal(unknown(event.job_id), event.job_id))]
    if job.finished or event.until <= now:
        return [Reply(event.client, event.reply, job.report())]
    if sum(1 for waiter in farm.waiters if waiter.client == event.client) >= MAX_WAITS:
        error = busy(farm, f"this connection waits for {MAX_WAITS} jobs already")
        return [Reply(event.client, event.reply, refusal(error))]
    farm.waiters.append(Waiter(event.client, event.reply, event.job_id, event.until))
    return []


def cancel_asked(farm: Farm, event: events.CancelAsked, now: float) -> list[Instruction]:
    """Cancel the images that no worker has begun."""
    job = farm.jobs.get(event.job_id)
    if job is None:
        return [Reply(event.client, event.reply, refusal(unknown(event.job_id), event.job_id))]
    stoppable = [image for image in job.images if image.state in (ImageState.WAITING, ImageState.HELD)]
    if not stoppable:
        error = NotPossible(f"Job {job.job_id} is {job.state}: none of its images can be cancelled any more.")
        return [Reply(event.client, event.reply, refusal(error, job.job_id))]
    done: list[Instruction] = []
    for image in stoppable:
        if image.state is ImageState.WAITING:
            farm.waiting.remove(image)
        image.move(ImageState.CANCELLED)
        if image.task.recovered:  # somebody began it, and may have left a temporary file
            image.result = replace(image.result, temp=image.task.temp_paths[0])
            farm.unsettled.append(image)
        done += [Append(image_record(image)), *finish(farm, image)]
    return [
        *done,
        Reply(event.client, event.reply, job.report()),
        *close(farm, job, now),
        *settle_left(farm),
    ]


def retry_asked(farm: Farm, event: events.RetryAsked, now: float) -> list[Instruction]:
    """Queue the failed images of a job again, from their dead letters."""
    job = farm.jobs.get(event.job_id)
    if job is None:
        return [Reply(event.client, event.reply, refusal(unknown(event.job_id), event.job_id))]
    failed = [image for image in job.images if image.state is ImageState.FAILED]
    if not failed:
        error = NotPossible(f"Job {job.job_id} is {job.state}: it has no failed images to try again.")
        return [Reply(event.client, event.reply, refusal(error, job.job_id))]
    farm.open_jobs[job.job_id] = job
    done: list[Instruction] = []
    for image in failed:
        image.move(ImageState.WAITING)
        image.crashes = 0
        image.result = replace(image.result, state="", error="", code="")
        image.queued_at = now
        farm.taken.add(collision_key(image.task.path))
        farm.waiting.append(image)
        done.append(Append(image_record(image)))
    return [*done, Reply(event.client, event.reply, job.report()), *advance(farm, now)]
