"""What the result of an image means: a file, a rejection, a failing disk, a dead letter.

Decides, as `farm.handle` documents; acts on nothing.
"""

from __future__ import annotations

from dataclasses import replace

from luna_farm.core import events, uploads
from luna_farm.core.completion import bury, close, finish, image_record, saved_event
from luna_farm.core.feed_events import ImageRejected
from luna_farm.core.held import disk_failed, folder_works
from luna_farm.core.instructions import Append, Catalogue, Instruction, Publish
from luna_farm.core.job import STATES, Image, ImageState, Job
from luna_farm.core.messages import ImageResult
from luna_farm.core.state import Farm
from luna_farm.core.workers import Worker, WorkerState

S, W = ImageState, WorkerState


def image_finished(farm: Farm, event: events.ImageFinished, now: float) -> list[Instruction]:
    """A result came up the pipe."""
    worker = farm.workers[event.worker]
    image = farm.image(event.job_id, event.index)
    if image is None or image not in worker.images:
        return []
    worker.images.remove(image)
    if worker.state is W.BUSY:
        if worker.images:
            worker.since = now
        else:
            worker.move(W.IDLE, now)
    if event.result.state == "failed" and event.result.files:  # the next attempt has only the others to make
        image.task = replace(image.task, published=event.result.files)
    if event.result.code == "disk":
        return disk_failed(farm, image, event.result, now)
    folder = farm.failing_folder(image)
    if folder:
        folder.probing = False
    if event.result.state == "failed":
        return bury(farm, image, event.result)
    return _made(farm, worker, image, event.result, now)


def _made(farm: Farm, worker: Worker, image: Image, result: ImageResult, now: float) -> list[Instruction]:
    """The file is whole, synced and under its name (or the gate said no): journal, then tidy up, then
    tell."""
    worker.images_saved += result.state == "saved"
    worker.bytes_written += result.bytes
    farm.nodes[worker.node].add(result)
    job = farm.jobs[image.task.job_id]
    if len(farm.pools) > 1:  # else nothing is decided by them
        farm.costs.add(image.task, job.options, result.ms or {})
    image.result, thumbnail, row = result, result.thumbnail, result.row
    # It came from the pipe, and nothing else knows it. Of the row only uploads have need later.
    result.thumbnail, result.row = b"", row if result.uploads else b""
    if result.uploads:
        return _spooled(farm, worker, image, result, now)
    image.move(STATES[result.state])
    farm.count_saved(result)
    done: list[Instruction] = [Append((image_record(image),))]
    done += finish(farm, image)
    done += [Catalogue(row)] if row else []
    if result.state != "dropped":
        done += folder_works(farm, image)
    done += _published(job, image, worker, thumbnail, now)
    return done + close(farm, job, now)


def _spooled(farm: Farm, worker: Worker, image: Image, result: ImageResult, now: float) -> list[Instruction]:
    """The encoded file is in the spool: from here on it survives without its pixels."""
    image.move(S.UPLOADING)
    begun = uploads.begin(farm, image, now)
    return [*begun, *farm.release_pixels(image), *folder_works(farm, image)]


def _published(job: Job, image: Image, worker: Worker, thumbnail: bytes, now: float) -> list[Instruction]:
    """What the feed publishes of one finished image."""
    task, result = image.task, image.result
    done: list[Instruction] = []
    if result.state != "saved" and result.score is not None:
        about = (task.job_id, task.index, result.path, task.format, task.width, task.height, result.score)
        rejected = ImageRejected(
            *about, result.threshold, job.options.on_reject, worker.pid, thumbnail=thumbnail
        )
        done.append(Publish(rejected))
    if result.path and result.state != "dropped":  # a file that was there already was not saved
        done.append(Publish(saved_event(image, now, worker.pid, thumbnail)))
    return done
