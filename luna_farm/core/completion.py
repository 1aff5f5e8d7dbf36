"""How an image and its job come to an end, and what the journal keeps of it.

Decides, as `farm.handle` documents; acts on nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from luna_farm.core import events
from luna_farm.core.feed_events import ImageFailed, ImageLost, ImageSaved, ImagesMissing, JobDone
from luna_farm.core.instructions import Append, Bury, CatalogueFailed, Instruction, Publish, Reply
from luna_farm.core.job import NAMES, NOTHING_YET, UNSAVED, Image, ImageState, Job
from luna_farm.core.messages import ImageResult, ImageTask, Note
from luna_farm.core.state import Farm
from luna_farm.errors import ArenaError

S = ImageState
BURY_AGAIN_S = 5.0
IMAGES_A_REPORT = 50
"""Kept reports hold so many images on the average at most, 3 KB each: a million members of archives, sent in
jobs of a thousand, must not stay in memory."""
UNSURE = (
    "Records of the journal are missing, and something of its name is there: it may have been saved. Look at"
    " it; a retry saves the image again, under the next free name."
)
MISSING = "It was never handed over: the program that sends the images ended or stopped before."


def image_record(image: Image) -> dict[str, Any]:
    """The journal record of a change of one image: its state, and of the rest what is not as it was."""
    job_id, index = image.key
    record: dict[str, Any] = {"r": "image", "job_id": job_id, "index": index, "state": NAMES[image.state]}
    if image.task is not image.journaled:
        image.journaled = image.task
        record["task"] = image.task.brief_map()
        if image.spool:  # the copy on disk is what a successor can count on
            record["task"].update(segment=image.spool, offset=image.spool_offset)
    if image.uploads:
        record["uploads"] = [upload.record() for upload in image.uploads]
    if image.result is not NOTHING_YET:
        record["result"] = image.result.brief_map()
        record["result"].pop("uploads", None)
    return record


def whole_record(image: Image) -> dict[str, Any]:
    """The record of an image that does not lean on an earlier one."""
    image.journaled = None
    return image_record(image)


def attempted(task: ImageTask, notes: Iterable[Note]) -> ImageTask:
    """The task of an image whose last attempt died and left `notes`: the latest of each file counts."""
    noted = {**(task.noted or {}), **{note.temp: note.to_map() for note in notes if note.is_of(task)}}
    return replace(task, recovered=True, noted=noted or None)


def job_record(job: Job) -> dict[str, Any]:
    """The journal record from which `recovery.py` makes the job again."""
    return {
        "r": "job",
        "job_id": job.job_id,
        "request_id": job.request_id,
        "options": job.options.brief_map(),
        "warnings": list(job.warnings),
        "images": [whole_record(image) for image in job.images],
    }


def request_of(job: Job, image: Image) -> dict[str, Any]:
    """Return what a successor needs to save an image without the journal (`spooled.py`)."""
    return {
        "job_id": job.job_id,
        "request_id": job.request_id,
        "num_images": job.num_images,
        "warnings": list(job.warnings),
        "options": job.options.to_map(),
        "task": image.task.to_map(),
    }


def missing(farm: Farm, job: Job) -> list[Instruction]:
    """Name the images of a job that their client never sealed. They were not accepted."""
    left = [image for image in job.images if image.state in (S.FILLING, S.MISSING)]
    for image in left:
        if image.state is S.FILLING:
            image.move(S.MISSING)
        image.result = ImageResult("", path=image.task.path, error=MISSING, code="missing")
    if not left:
        return []
    farm.totals["images_failed"] += len(left)
    records = tuple(map(image_record, left))
    # Without workflow and prompt: hundreds of images of one job may be missing.
    options = job.without_documents()
    rows = [CatalogueFailed(image.task, options, MISSING) for image in left]
    return [Append(records), *rows, Publish(ImagesMissing(job.job_id, left[0].task.index, len(left)))]


def lose(farm: Farm, image: Image, path: str, reason: str) -> list[Instruction]:
    """An image that was accepted cannot be saved any more. `path`: where it was going to be."""
    image.move(S.LOST)
    farm.totals["images_failed"] += 1
    image.result = replace(image.result, path=path, error=reason, code="lost")
    row = CatalogueFailed(image.task, farm.jobs[image.task.job_id].options, reason)
    return [Append((image_record(image),)), row, Publish(ImageLost(*image.key, path, reason))]


def finish(farm: Farm, image: Image) -> list[Instruction]:
    """An image came to its end: its name and its pixels are free."""
    farm.free_name(image)
    return farm.release_pixels(image)


def saved_event(image: Image, now: float, worker: int = 0, thumbnail: bytes = b"") -> ImageSaved:
    """What the feed publishes of an image whose file is where its result says. `worker`: the pid of the one
    that wrote it, 0 where it came from the spool."""
    task, result, ms = image.task, image.result, image.result.ms or {}
    return ImageSaved(
        task.job_id,
        task.index,
        result.path,
        task.format,
        task.width,
        task.height,
        result.score,
        worker=worker,
        thumbnail=thumbnail,
        state=result.state,
        bytes=result.bytes,
        ms=(now - image.queued_at) * 1e3,
        queue_ms=(image.started_at - image.queued_at) * 1e3,
        gate_ms=ms.get("gate", 0.0),
        encode_ms=ms.get("encode", 0.0),
        write_ms=ms.get("write", 0.0),
        warnings=tuple(result.warnings),
        scores=result.scores or {},
    )


def close(farm: Farm, job: Job, now: float) -> list[Instruction]:
    """Answer all waiters once all images of a job are finished, and keep a bounded number of reports."""
    if not job.finished or farm.open_jobs.pop(job.job_id, None) is None:
        return []
    states = [image.state for image in job.images]
    if S.FAILED not in states:
        job.forget_metadata()
    done: list[Instruction] = []
    waiting = [waiter for waiter in farm.waiters if waiter.job_id == job.job_id] if farm.waiters else []
    if waiting:
        report = job.report()
        done += [Reply(waiter.client, waiter.reply, report) for waiter in waiting]
        farm.waiters = [waiter for waiter in farm.waiters if waiter.job_id != job.job_id]
    ended = JobDone(
        job.job_id,
        job.state,
        images_saved=states.count(S.SAVED),
        images_discarded=states.count(S.DISCARDED) + states.count(S.DROPPED),
        images_failed=sum(map(states.count, UNSAVED)),
        ms=(now - job.accepted_at) * 1e3,
    )
    done.append(Publish(ended))
    _to_the_end(farm, job)
    _forget_old(farm)
    return done


def _forget_old(farm: Farm) -> None:
    """Drop the oldest reports above the bounds; a job with dead letters is kept as long as they are, one that
    was cancelled while its submit is open as long as that. The last one is kept however large it is: its
    client may be about to ask for it."""
    kept = farm.limits.kept_reports
    reports, images = len(farm.finished_order), farm.kept_images
    last = next(reversed(farm.finished_order), None) if kept else None
    old: list[str] = []
    for job_id, count in farm.finished_order.items():
        if (reports <= kept and images <= kept * IMAGES_A_REPORT) or job_id == last:
            break
        job = farm.jobs.get(job_id)
        if job_id in farm.submits or (
            job is not None and job_id not in farm.open_jobs and job.count(S.FAILED)
        ):
            continue
        old.append(job_id)
        reports, images = reports - 1, images - count
    for job_id in old:
        farm.kept_images -= farm.finished_order.pop(job_id)
        farm.unkept.pop(job_id, None)
        job = farm.jobs.get(job_id)
        if job is not None and job_id not in farm.open_jobs:
            del farm.jobs[job_id]
            farm.requests.pop(job.request_id, None)


def _to_the_end(farm: Farm, job: Job) -> None:
    farm.kept_images += job.num_images - farm.finished_order.pop(job.job_id, 0)
    farm.finished_order[job.job_id] = job.num_images
    farm.unkept.pop(job.job_id, None)
    farm.unkept[job.job_id] = None


def take_reports(farm: Farm) -> list[dict[str, Any]]:
    """Return the reports that are due: those that the journal forgets when it is written anew."""
    due = finished_records(farm, farm.unkept)
    farm.unkept.clear()
    return due


def finished_records(farm: Farm, job_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return the records of jobs, without those that are open again, in the given order."""
    return [job_record(farm.jobs[job_id]) for job_id in job_ids if job_id not in farm.open_jobs]


def bury(farm: Farm, image: Image, result: ImageResult) -> list[Instruction]:
    """Set an image aside that cannot be made: its pixels and request go to the dead letters."""
    image.move(S.BURYING)
    image.result = replace(result, state="")
    return [Bury(image.task, farm.jobs[image.task.job_id].options, result.error)]


def buried(farm: Farm, event: events.Buried, now: float) -> list[Instruction]:
    """The dead letter is on disk: the image has failed, its slot is free. Without one the image stays in its
    slot, and the ticks try again."""
    image = farm.image(event.job_id, event.index)
    assert image is not None, "a job with an unfinished image is kept"
    if event.error is not None:
        farm.bury_at[image.key] = now + BURY_AGAIN_S
        return []
    farm.bury_at.pop(image.key, None)
    if image.result.code == ArenaError.code and image.task.segment != event.segment:
        return _go_on_from_disk(farm, image, event)
    job = farm.jobs[event.job_id]
    image.move(S.FAILED)
    farm.totals["images_failed"] += 1
    farm.free_name(image)
    done = farm.release_pixels(image) if image.task.segment != event.segment else []
    image.task = replace(image.task, segment=event.segment, offset=event.offset)
    if not farm.segment_users[event.segment]:
        farm.keep_pixels(image)
    failed = ImageFailed(job.job_id, image.task.index, image.task.path, image.result.error, image.result.code)
    row = CatalogueFailed(image.task, job.options, image.result.error)
    return [Append((image_record(image),)), *done, row, Publish(failed), *close(farm, job, now)]


def _go_on_from_disk(farm: Farm, image: Image, event: events.Buried) -> list[Instruction]:
    """The worker could not reach the shared memory, which was removed: the copy on disk will do."""
    done = farm.release_pixels(image)
    image.task = replace(image.task, segment=event.segment, offset=event.offset)
    image.move(S.QUEUED)
    farm.keep_pixels(image)
    farm.waiting.append(image)
    return [Append((image_record(image),)), *done]
