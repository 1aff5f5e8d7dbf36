"""What becomes of a shard that is complete: its name in a folder, or its way to a destination, and the ends
of its images.

Decides, as `farm.handle` documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from luna_farm.core import destinations, events
from luna_farm.core.archives import member_saved
from luna_farm.core.circuits import Upload, UploadState, mount_at
from luna_farm.core.completion import close, image_record, job_record, lose
from luna_farm.core.feed_events import ArchiveLost, DestinationFailing, ImageFailed
from luna_farm.core.instructions import (
    Append,
    CatalogueFailed,
    Instruction,
    Publish,
    RemoveSpooled,
)
from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.retry import pause_s
from luna_farm.core.shards import Shard, ShardState
from luna_farm.core.state import Farm

S, U, H = ImageState, UploadState, ShardState
FAIL, INTERRUPTED = "fail", "interrupted"


def shard_published(farm: Farm, event: events.ShardPublished, now: float) -> list[Instruction]:
    """A shard has its final name, or lies whole in the spool of uploads, or could not be completed."""
    shard = farm.shards[event.shard_id]
    if event.decision == INTERRUPTED:
        shard.move(H.COMPLETE)
        return []
    if event.error and event.decision == FAIL:
        return _lose(farm, shard, event.error, now)
    if event.error:
        shard.move(H.COMPLETE)
        shard.tries += 1
        shard.retry_at = now + pause_s(shard.tries)
        told = [Publish(DestinationFailing(shard.path, event.error))] if not shard.error else []
        shard.error = event.error
        return [*told]
    shard.error = ""
    if event.spool:
        shard.spool, shard.bytes = event.spool, event.bytes
        return send(farm, shard)
    return _end(farm, shard, event.path or shard.path, now)


def send(farm: Farm, shard: Shard) -> list[Instruction]:
    """Queue a whole archive for every place that it is not at yet."""
    shard.move(H.SENDING)
    if not shard.uploads:
        at, name = (shard.shard_id, -1), shard.place.name
        disks = shard.mirror_mounts or {}
        shard.uploads = [
            Upload(
                *(*at, number, shard.spool, root, name),
                mount=shard.mount if root == shard.root else mount_at(disks, root, name),
            )
            for number, root in enumerate(shard.place.roots)
        ]
    for upload in shard.uploads:
        if upload.state is U.FAILED:
            upload.move(U.WAITING)
            upload.tries, upload.retry_at, upload.again, upload.error = 0, 0.0, True, ""
        if upload.state is U.WAITING:
            destinations.circuit_at(farm, upload.root).waiting.append(upload)
    return [Append((shard.record(),))]


def sent(farm: Farm, shard_id: str, now: float) -> list[Instruction]:
    """A place has confirmed an archive."""
    return _if_over(farm, farm.shards[shard_id], now)


def refused(farm: Farm, shard_id: str, now: float) -> list[Instruction]:
    """A place will never take an archive."""
    return _if_over(farm, farm.shards[shard_id], now)


def cancel(farm: Farm, shard_id: str, now: float) -> list[Instruction]:
    """Send an archive nowhere again. To a place that it is on its way to it may still get."""
    shard = farm.shards[shard_id]
    for upload in shard.uploads:
        if upload.state in (U.WAITING, U.RUNNING):
            upload.given_up = True
        if upload.state is U.WAITING:
            destinations.circuit_at(farm, upload.root).give_up(upload)
    return [Append((shard.record(),)), *_if_over(farm, shard, now)]


def _if_over(farm: Farm, shard: Shard, now: float) -> list[Instruction]:
    """Tell the images how far their archive is; once every place has answered, it is published or failed."""
    states = {upload.state for upload in shard.uploads}
    over = not states & {U.WAITING, U.RUNNING}
    if over and U.FAILED not in states:
        farm.spool_used_bytes -= shard.spool_bytes
        return [*_end(farm, shard, shard.uploads[0].path, now), RemoveSpooled(shard.spool)]
    images = [image for _, image in _packed(farm, shard)]
    for image in images:
        _follow(image, shard)
    if not over:
        return [Append((shard.record(), *map(image_record, images)))]
    given_up = any(upload.given_up for upload in shard.uploads if upload.state is U.FAILED)
    return _give_up(farm, shard, now) if given_up else _fail(farm, shard, now)


def _follow(image: Image, shard: Shard) -> None:
    """Give the uploads of an image the states of its archive at their places."""
    for upload, whole in zip(image.uploads, shard.uploads, strict=False):
        if whole.state in (U.SAVED, U.FAILED) and upload.state is U.PACKED:
            upload.move(whole.state)
            upload.archive, upload.error = whole.path, whole.error


def _fail(farm: Farm, shard: Shard, now: float) -> list[Instruction]:
    """A place will never take an archive: its images have failed, its file stays in the spool."""
    shard.move(H.FAILED)
    error = next(upload.error for upload in shard.uploads if upload.state is U.FAILED)
    done: list[Instruction] = [Append((shard.record(),))]
    jobs: dict[str, Job] = {}
    for job, image in _packed(farm, shard):
        jobs[job.job_id] = job
        image.move(S.FAILED)
        farm.totals["images_failed"] += 1
        image.result = replace(image.result, error=error, code="destination")
        failed = ImageFailed(*image.key, shard.path, error, "destination")
        row = CatalogueFailed(image.task, job.options, error)
        done += [Append((image_record(image),)), row, Publish(failed)]
    return done + [i for job in jobs.values() for i in close(farm, job, now)]


def _give_up(farm: Farm, shard: Shard, now: float) -> list[Instruction]:
    """The job of an archive was cancelled: its images are saved if the archive is where the request named it
    first, else cancelled."""
    stored = shard.uploads[0].state is U.SAVED
    records: list[dict[str, Any]] = []
    told: list[Instruction] = []
    jobs: dict[str, Job] = {}
    for job, image in _packed(farm, shard):
        jobs[job.job_id] = job
        if stored:
            told += member_saved(farm, image, shard.uploads[0].path, now)
        else:
            image.move(S.CANCELLED)
        records.append(image_record(image))
    shard.move(H.FAILED)
    shard.move(H.PUBLISHED)
    del farm.shards[shard.shard_id]
    farm.spool_used_bytes -= shard.spool_bytes
    closed = [i for job in jobs.values() for i in close(farm, job, now)]
    return [Append((shard.record(), *records)), *told, RemoveSpooled(shard.spool), *closed]


def retry(farm: Farm, shard: Shard) -> list[Instruction]:
    """Send an archive again to the places that refused it, for all of its images."""
    done = send(farm, shard)
    jobs: dict[str, Job] = {}
    for job, image in list(_failed(farm, shard)):
        image.move(S.UPLOADING)
        image.result = replace(image.result, error="", code="")
        for upload in image.uploads:
            if upload.state is U.FAILED:
                upload.move(U.PACKED)
                upload.error = ""
        farm.open_jobs[job.job_id] = jobs[job.job_id] = job
    # Whole records: the journal holds open jobs only, and these were finished.
    return [*done, Append(tuple(map(job_record, jobs.values())))]


def without_copies(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """An image is saved in its archive, whose copies are given up."""
    return [*member_saved(farm, image, image.uploads[0].archive, now), *dismissed(farm, image)]


def dismissed(farm: Farm, image: Image) -> list[Instruction]:
    """An image of an archive is given up; so is the archive that failed, with the last of its images."""
    shard = farm.shards.get(image.uploads[0].shard)
    if shard is None or shard.state is not H.FAILED or any(_failed(farm, shard)):
        return []
    del farm.shards[shard.shard_id]
    farm.spool_used_bytes -= shard.spool_bytes
    shard.move(H.PUBLISHED)
    return [Append((shard.record(),)), RemoveSpooled(shard.spool)]


def _failed(farm: Farm, shard: Shard) -> Iterator[tuple[Job, Image]]:
    for job in farm.jobs.values():
        for image in job.images:
            if image.state is S.FAILED and image.uploads and image.uploads[0].shard == shard.shard_id:
                yield job, image


def _packed(farm: Farm, shard: Shard) -> Iterator[tuple[Job, Image]]:
    for job in [farm.jobs[shard.job_id]] if shard.job_id in farm.jobs else list(farm.open_jobs.values()):
        for image in job.images:
            if image.state is S.UPLOADING and image.uploads and image.uploads[0].shard == shard.shard_id:
                yield job, image


def _end(farm: Farm, shard: Shard, path: str, now: float) -> list[Instruction]:
    """An archive has its final place: its images are saved, and reports name where they are."""
    before, shard.path = shard.path, path
    if path != before:
        _renamed(farm, shard, before)
    shard.move(H.PUBLISHED)
    del farm.shards[shard.shard_id]
    records: list[dict[str, Any]] = [shard.record()]
    told: list[Instruction] = []
    jobs: dict[str, Job] = {}
    for job, image in _packed(farm, shard):
        jobs[job.job_id] = job
        if shard.uploads:
            _follow(image, shard)
        else:
            image.uploads[0].move(U.SAVED)
            image.uploads[0].archive = path
        told += member_saved(farm, image, shard.path, now)
        records.append(image_record(image))
    return [Append(tuple(records)), *told, *(i for job in jobs.values() for i in close(farm, job, now))]


def _renamed(farm: Farm, shard: Shard, before: str) -> None:
    """Another program had the name: correct the reports of what was told to be saved there."""
    warning = f"{before} was made by another program in the meantime; this is the next free name."
    for job in farm.jobs.values():
        for image in job.images:
            if image.uploads and image.uploads[0].shard == shard.shard_id:
                image.uploads[0].archive = shard.path
                result = replace(image.result, warnings=(*image.result.warnings, warning))
                image.result = replace(result, path=shard.path) if result.path == before else result


def _lose(farm: Farm, shard: Shard, error: str, now: float) -> list[Instruction]:
    """The file of a shard is gone: so are the images in it that nothing else holds."""
    shard.move(H.PUBLISHED)
    del farm.shards[shard.shard_id]
    if shard.spooled:
        farm.spool_used_bytes -= shard.spool_bytes
    done: list[Instruction] = [
        Append((shard.record(),)),
        Publish(ArchiveLost(shard.path, shard.members, error)),
    ]
    jobs: dict[str, Job] = {}
    for job, image in _packed(farm, shard):
        jobs[job.job_id] = job
        done += lose(farm, image, shard.path, error)
    return done + [i for job in jobs.values() for i in close(farm, job, now)]
