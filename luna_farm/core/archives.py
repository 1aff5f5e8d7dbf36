"""Archives: which open shard an image goes to, when a shard is complete, and what follows from that.

A worker puts the encoded image into the spool of uploads; from there the archiver appends it to its shard. A
shard belongs to one job, or to all requests with the same name and bounds. It is published only after the
journal says of every member that it is in it, so that none is added twice. Decides, as `farm.handle`
documents.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from luna_farm.core import events
from luna_farm.core.archive_names import (
    number_of,
    series_of,
    set_aside_below,
    shard_key,
    shared,
    with_archive_number,
)
from luna_farm.core.circuits import Circuit, Upload, UploadState
from luna_farm.core.completion import close, image_record, saved_event
from luna_farm.core.destinations import add_circuit
from luna_farm.core.instructions import (
    AddMember,
    Append,
    Catalogue,
    Instruction,
    Publish,
    PublishShard,
    RemoveSpooled,
)
from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.messages import SaveOptions
from luna_farm.core.shards import Shard, ShardState
from luna_farm.core.state import Farm

S, U, H = ImageState, UploadState, ShardState
IDLE_S = 60.0
"""After so long without a new member a shard is published, unless the request says otherwise."""
MEMBERS_AT_A_TIME = 256
"""Members on their way to the archiver of one folder: it syncs once for all that wait."""


def assign(farm: Farm, image: Image, upload: Upload, now: float) -> list[dict[str, Any]]:
    """Give a spooled image to the open shard it belongs to, or to a new one; returns the record of that."""
    options = farm.jobs[image.task.job_id].options
    base, path = image.task.archive, image.task.path
    if image.result.state == S.DISCARDED.value:
        base, path = set_aside_below(base, "/"), set_aside_below(path, "/" if "/" in path else "\\")
    job_id = "" if shared(options) else image.task.job_id
    key = shard_key(options, base, job_id)
    shard = farm.shards.get(farm.open_shards.get(key, ""))
    size = image.result.spool_bytes
    if shard is not None and not shard.has_room(size):
        _complete(farm, shard)
        shard = None
    records: list[dict[str, Any]] = []
    if shard is None:
        shard = _opened(farm, image, options, key, path, job_id, now)
        records.append(shard.record())
    shard.pending += 1
    shard.pending_bytes += size
    upload.shard, upload.archive = shard.shard_id, shard.path
    return records


def _opened(
    farm: Farm, image: Image, options: SaveOptions, key: str, path: str, job_id: str, now: float
) -> Shard:
    series = series_of(options.output_dir, image.task.archive, options.archive)
    if not job_id:
        last = number_of(farm.series.get(series, ""))
        path = with_archive_number(path, max(number_of(path), last + 1))
        if image.result.state != S.DISCARDED.value:
            farm.series[series] = path
    farm.last_shard += 1
    shard = Shard(
        shard_id=f"{image.task.job_id}-{image.task.index}-s{farm.last_shard}",
        key=key,
        kind=options.archive,
        path=path,
        root=image.task.root,
        mount=image.task.mount,
        mirrors=options.mirrors,
        mirror_mounts=image.task.mirror_mounts,
        job_id=job_id,
        max_images=options.shard_images,
        max_bytes=options.shard_bytes,
        idle_s=options.shard_idle_s or IDLE_S,
        changed_at=now,
    )
    farm.shards[shard.shard_id] = shard
    farm.open_shards[key] = shard.shard_id
    return shard


def circuit_of(farm: Farm, upload: Upload) -> Circuit:
    """Return the circuit of the folder in which the shard of an upload grows."""
    shard = farm.shards[upload.shard]
    folder = "the state folder" if shard.spooled else shard.root
    place = f"archives in {folder}"
    return farm.circuits.get(place) or add_circuit(farm, Circuit(place, MEMBERS_AT_A_TIME))


def added(
    farm: Farm, image: Image, upload: Upload, event: events.UploadFinished, now: float
) -> list[Instruction]:
    """A member is in its shard, on the disk. It is saved once its archive has its final place; in an open
    shard that may take long, so there it is saved now."""
    shard = farm.shards[upload.shard]
    size = image.result.spool_bytes
    shard.left(size)
    shard.members += 1
    shard.bytes += event.bytes
    shard.changed_at = now
    upload.name, upload.bytes = event.name, event.bytes
    image.uploads += _copies(image, upload, shard)
    if shard.spooled:
        shard.spool_bytes += size  # it lies in the state folder until its archive is sent
    else:
        farm.spool_used_bytes -= size
    image.result = replace(image.result, spool_bytes=0)
    kept = shard.counts()
    if upload.state is U.SAVED:
        saved = member_saved(farm, image, shard.path, now)
        records = (image_record(image), kept)
        return [Append(records), RemoveSpooled(upload.spool), *saved, *close(farm, _job(farm, image), now)]
    return [Append((image_record(image), kept)), RemoveSpooled(upload.spool)]


def _copies(image: Image, upload: Upload, shard: Shard) -> list[Upload]:
    """Return what stands for an image in the copies of its archive at the mirrors."""
    copies = []
    for number, root in enumerate(shard.mirrors, start=1):
        copy = Upload(*image.key, number, "", root, upload.name, U.PACKED, upload.bytes)
        copy.shard, copy.archive = shard.shard_id, f"{root.rstrip('/')}/{shard.place.name}"
        copies.append(copy)
    return copies


def state_when_added(farm: Farm, upload: Upload) -> UploadState:
    """Return the state of an upload whose member is in its shard."""
    shard = farm.shards[upload.shard]
    return U.PACKED if shard.job_id or shard.spooled else U.SAVED


def given_up(farm: Farm, image: Image, upload: Upload) -> None:
    """A member can never be added: its shard does not wait for it."""
    farm.shards[upload.shard].left(image.result.spool_bytes)


def _job(farm: Farm, image: Image) -> Job:
    return farm.jobs[image.task.job_id]


def member_saved(farm: Farm, image: Image, path: str, now: float) -> list[Instruction]:
    """An image is where its report says: in its archive, at `path`."""
    image.move(S(image.result.state))
    packed, member = image.result.row, image.uploads[0].name
    row = [Catalogue(packed, f"{path}/{member}")] if packed else []
    image.result = result = replace(image.result, path=path, row=b"")
    farm.count_saved(result)
    return [*row, Publish(saved_event(image, now))]


# --- shards


def advance(farm: Farm, now: float) -> list[Instruction]:
    """Complete the shards whose time has come, and have them published. To be called when no event is left to
    handle."""
    done: list[Instruction] = []
    for shard in farm.shards.values():
        if shard.state is H.OPEN and _is_complete(farm, shard, now):
            _complete(farm, shard)
        if shard.state is H.COMPLETE and not shard.pending and now >= shard.retry_at:
            shard.move(H.PUBLISHING)
            # A successor must not add to what may have its name by then.
            done += [Append((shard.record(),)), PublishShard(shard.place, shard.members, shard.bytes)]
    return done


def _is_complete(farm: Farm, shard: Shard, now: float) -> bool:
    if shard.job_id:
        return not shard.pending and (_all_added(farm, shard) or _fills_the_spool(farm, shard))
    if shard.max_images and shard.members >= shard.max_images:
        return True
    if shard.max_bytes and shard.bytes >= shard.max_bytes:
        return True
    if farm.draining and not shard.pending and not farm.depth:
        return True
    if shard.spooled and farm.spool_full():
        return True
    return not shard.pending and now - shard.changed_at >= shard.idle_s


def _fills_the_spool(farm: Farm, shard: Shard) -> bool:
    """Whether the next image of its job waits for room that only the end of the shard can make. The rest of
    the job goes into its next archive."""
    if not (shard.spool_bytes and farm.spool_queue and farm.spool_full()):
        return False
    return any(image.task.job_id == shard.job_id for image in farm.spool_queue)


def _all_added(farm: Farm, shard: Shard) -> bool:
    """Whether no image of its job can still come. Looks at each image once: `shard.looked_at`."""
    job = farm.jobs.get(shard.job_id)
    if job is None:
        return True
    while shard.looked_at < len(job.images):
        image = job.images[shard.looked_at]
        packed = image.uploads and image.uploads[0].state is U.PACKED
        if not (image.finished or packed) or (image.state is S.MISSING and shard.job_id in farm.submits):
            return False
        shard.looked_at += 1
    return True


def _complete(farm: Farm, shard: Shard) -> None:
    shard.move(H.COMPLETE)
    if farm.open_shards.get(shard.key) == shard.shard_id:
        del farm.open_shards[shard.key]


def add_member(farm: Farm, image: Image, upload: Upload) -> AddMember:
    """Return the instruction that appends a spooled image to its shard."""
    place = farm.shards[upload.shard].place
    size = image.result.spool_bytes
    return AddMember(*image.key, upload.number, upload.spool, upload.name, upload.again, size, place)
