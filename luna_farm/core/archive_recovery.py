"""Archives of a predecessor, taken up again after a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from luna_farm.core import archives, complete_archives
from luna_farm.core.archive_names import number_of, series_of, shared
from luna_farm.core.circuits import UploadState
from luna_farm.core.completion import image_record, lose
from luna_farm.core.instructions import Append, Instruction
from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.shards import Shard, ShardState
from luna_farm.core.state import Farm

S, U, H = ImageState, UploadState, ShardState


def restore_shards(farm: Farm, shards: list[Shard], spooled: Callable[[str], bool], now: float) -> None:
    """Take up the shards of a predecessor, before its images."""
    for shard in shards:
        _count_on(farm, shard.shard_id)
        farm.shards[shard.shard_id] = shard
        shard.changed_at = now
        farm.spool_used_bytes += shard.spool_bytes
        if shard.state is H.OPEN:
            farm.open_shards[shard.key] = shard.shard_id
        elif shard.state is H.SENDING and spooled(shard.spool):
            shard.state = H.PUBLISHING
            complete_archives.send(farm, shard)
            for upload in shard.uploads:
                upload.again = True
        elif shard.state is H.SENDING:
            shard.state = H.COMPLETE  # its file is looked for, and found to be gone


def _count_on(farm: Farm, shard_id: str) -> None:
    """Give no shard an id that a predecessor gave: what is found under it would count as the new one."""
    farm.last_shard = max(farm.last_shard, int(shard_id.rpartition("-s")[2]))


def remember(farm: Farm, job: Job) -> None:
    """Learn from a predecessor's job which ids and numbers its archives have."""
    for image in job.images:
        for upload in image.uploads:
            if upload.shard:
                _count_on(farm, upload.shard)
        if not image.task.archive or image.result.state == S.DISCARDED.value:
            continue
        path = image.uploads[0].archive if image.uploads and image.uploads[0].archive else ""
        if not path and not shared(job.options):
            path = image.task.path
        key = series_of(job.options.output_dir, image.task.archive, job.options.archive)
        if number_of(path) > number_of(farm.series.get(key, "")):
            farm.series[key] = path


def restore_image(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """Take up an image of a predecessor that is on its way into an archive, or in one."""
    upload = image.uploads[0]
    shard = farm.shards.get(upload.shard)
    if upload.state is not U.WAITING:
        return [] if shard is not None else _lost_with_record(farm, image)
    records: list[dict[str, Any]] = []
    if shard is None or shard.state not in (H.OPEN, H.COMPLETE):
        records = [*archives.assign(farm, image, upload, now), image_record(image)]
    else:
        shard.pending += 1
        shard.pending_bytes += image.result.spool_bytes
    archives.circuit_of(farm, upload).waiting.append(upload)
    return [Append(tuple(records))] if records else []


def _lost_with_record(farm: Farm, image: Image) -> list[Instruction]:
    """The journal does not know the archive any more that an image is in: a power cut took the record."""
    reason = f"The record of its archive {image.uploads[0].archive} is gone; look whether it is in there."
    return lose(farm, image, image.uploads[0].archive, reason)
