"""Files that go further than the local disk: from the spool to their destinations.

An image whose encoded file lies in the spool needs its pixels no more. Its uploads run when the circuits of
their destinations allow it; the image is saved once all are. Decides, as `farm.handle` documents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from luna_farm.core import archive_names, archive_recovery, archives, complete_archives, events
from luna_farm.core.circuits import Circuit, Upload, UploadState, mount_at
from luna_farm.core.completion import close, image_record, lose, saved_event
from luna_farm.core.destinations import circuit_at
from luna_farm.core.feed_events import (
    DestinationFailing,
    DestinationRecovered,
    ImageFailed,
    ImageUploading,
)
from luna_farm.core.instructions import (
    Append,
    Catalogue,
    CatalogueFailed,
    Instruction,
    Publish,
    RemoveSpooled,
    StartUpload,
)
from luna_farm.core.job import Image, ImageState
from luna_farm.core.leases import busy
from luna_farm.core.messages import ImageResult, SaveOptions
from luna_farm.core.shards import ShardState
from luna_farm.core.state import Farm
from luna_farm.core.typed import typed
from luna_farm.errors import FarmBusy, InvalidRequest
from luna_farm.locations import is_url, parse

S, U = ImageState, UploadState
SPOOL_AGAIN_S = 0.5
"""When a request may come again that found the spool full."""
FAIL, HOLD, INTERRUPTED = "fail", "hold", "interrupted"
"""Decisions of an answer; any other means: again."""


def uploads_of(image: Image, result: ImageResult) -> list[Upload]:
    """Return the uploads that a worker's result names. An earlier attempt may have sent what goes to a
    destination."""
    uploads: list[Upload] = []
    disks = image.task.mirror_mounts or {}
    for number, target in enumerate(result.uploads):
        upload = Upload(*image.key, number, target["spool"], target["root"], target["name"])
        upload.mount = mount_at(disks, upload.root, upload.name)
        upload.again = image.task.recovered and is_url(target["root"]) and not image.task.archive
        if "bytes" in target:
            upload.state, upload.bytes = U.SAVED, target["bytes"]
        # What the spool of a predecessor says was read from a disk.
        uploads.append(typed(upload) if image.task.recovered else upload)
    return uploads


def begin(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """The files of an image are in the spool: journal that, and put its uploads into the queues of their
    destinations. One that its worker has sent is saved."""
    image.uploads = uploads_of(image, image.result)
    farm.spool_used_bytes += image.result.spool_bytes
    records: list[dict[str, Any]] = []
    for upload in image.uploads:
        if image.task.archive:
            records += archives.assign(farm, image, upload, now)
        circuit = circuit_of(farm, upload)
        if upload.state is U.WAITING:
            circuit.waiting.append(upload)
    if all(upload.state is U.SAVED for upload in image.uploads):
        return _saved(farm, image, now)
    task = image.task
    uploading = ImageUploading(task.job_id, task.index, task.path, image.result.bytes)
    return [Append((*records, image_record(image))), Publish(uploading)]


def circuit_of(farm: Farm, upload: Upload) -> Circuit:
    """Return the circuit of the destination that an upload goes to, or of the archive that it becomes a part
    of."""
    circuit = farm.circuits.get(upload.place)
    if circuit is None:
        circuit = archives.circuit_of(farm, upload) if upload.shard else circuit_at(farm, upload.root)
        upload.place = circuit.place
    return circuit


def start_uploads(farm: Farm, now: float) -> list[Instruction]:
    """Start what may start now. To be called when no event is left to handle."""
    if not farm.circuits and not farm.shards:
        return []
    done: list[Instruction] = []
    for circuit in farm.circuits.values():
        while (upload := circuit.take(now)) is not None:
            done.append(_start(farm, upload, circuit))
    return done + archives.advance(farm, now) if farm.shards else done


def _start(farm: Farm, upload: Upload, circuit: Circuit) -> Instruction:
    image = farm.image(upload.job_id, upload.index)
    if upload.shard and image is not None:
        return archives.add_member(farm, image, upload)
    size = image.result.spool_bytes if image else farm.shards[upload.job_id].bytes
    where = (upload.spool, upload.root, upload.name, upload.again, size)
    when = (circuit.timeout_s, circuit.place, upload.mount)
    return StartUpload(upload.job_id, upload.index, upload.number, *where, *when)


def upload_finished(farm: Farm, event: events.UploadFinished, now: float) -> list[Instruction]:
    """A destination has confirmed a file, or has not. A whole archive has the index -1."""
    image = farm.image(event.job_id, event.index)
    # A job with an unfinished image is kept, and so is an archive.
    upload = (image or farm.shards[event.job_id]).uploads[event.number]
    circuit = circuit_of(farm, upload)
    if event.decision == INTERRUPTED:
        circuit.interrupted(upload)
        if not upload.given_up:
            return []
        return cancel(farm, image, now) if image else complete_archives.cancel(farm, event.job_id, now)
    if not event.error:
        return _stored(farm, image, upload, circuit, event, now)
    if event.decision == FAIL or upload.given_up or circuit.hopeless(upload):
        circuit.refused(upload, event.error)
        if image is None:
            return complete_archives.refused(farm, event.job_id, now)
        if upload.shard:
            archives.given_up(farm, image, upload)
        return [Append((image_record(image),)), *_end_if_over(farm, image, now)]
    if circuit.failed(upload, event.error, now, hold=event.decision == HOLD, wait_s=event.wait_s):
        return [Publish(DestinationFailing(circuit.place, event.error))]
    return []


def _stored(
    farm: Farm,
    image: Image | None,
    upload: Upload,
    circuit: Circuit,
    event: events.UploadFinished,
    now: float,
) -> list[Instruction]:
    recovered = circuit.succeeded(
        upload, archives.state_when_added(farm, upload) if upload.shard else U.SAVED
    )
    done: list[Instruction] = [Publish(DestinationRecovered(circuit.place))] if recovered else []
    if image is None:
        upload.name, upload.bytes = event.name, event.bytes
        return [*done, *complete_archives.sent(farm, event.job_id, now)]
    if upload.shard:
        return [*archives.added(farm, image, upload, event, now), *done]
    if event.name != upload.name:
        taken = upload.name.rpartition("/")[2]
        told = f"{taken} was at {circuit.place} already; this is the next free name."
        image.result = replace(image.result, warnings=(*image.result.warnings, told))
    upload.name, upload.bytes = event.name, event.bytes
    if any(at.state is not U.SAVED for at in image.uploads):
        return [Append((image_record(image),)), *done, *_end_if_over(farm, image, now)]
    return [*done, *_saved(farm, image, now)]


def _saved(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """Every destination has confirmed: the image is saved."""
    published = _published(farm, image, now)
    return [Append((image_record(image),)), *published, *close(farm, farm.jobs[image.task.job_id], now)]


def _published(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """An image is saved where it was to be: its files leave the spool."""
    result, task = image.result, image.task
    image.move(S(result.state))
    path = image.uploads[0].path if is_url(task.root) else result.path
    row = [Catalogue(result.row, path)] if result.row else []
    result.path, result.row = path, b""  # nothing but this image knows it
    farm.count_saved(result)
    farm.spool_used_bytes -= result.spool_bytes
    farm.free_name(image)
    return [*_unspooled(image), *row, Publish(saved_event(image, now))]


def _unspooled(image: Image) -> list[Instruction]:
    spools = dict.fromkeys(upload.spool for upload in image.uploads if upload.spool)
    return [RemoveSpooled(spool) for spool in spools]


def _end_if_over(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """An upload has failed for good: so has the image, once the others are finished. Its files stay, unless
    its job was cancelled."""
    failed = [upload for upload in image.uploads if upload.state is U.FAILED]
    if not failed or any(upload.state in (U.WAITING, U.RUNNING) for upload in image.uploads):
        return []
    image.move(S.FAILED)
    if any(upload.given_up for upload in failed):
        farm.free_name(image)
        given_up = dismiss(farm, image, now)
        return [Append((image_record(image),)), *given_up, *close(farm, farm.jobs[image.task.job_id], now)]
    farm.totals["images_failed"] += 1
    farm.free_name(image)
    error = failed[0].error
    image.result = replace(image.result, error=error, code="destination")
    task = image.task
    told = ImageFailed(task.job_id, task.index, task.path, error, "destination")
    job = farm.jobs[task.job_id]
    failed_row = CatalogueFailed(task, job.options, error)
    return [Append((image_record(image),)), failed_row, Publish(told), *close(farm, job, now)]


def retry(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """Send again what failed for good."""
    shard = farm.shards.get(image.uploads[0].shard)
    if shard is not None and shard.state is ShardState.FAILED:
        return complete_archives.retry(farm, shard)
    if image.state is not S.FAILED:
        return []  # an archive that was sent again took it along
    records: list[dict[str, Any]] = []
    image.move(S.UPLOADING)
    image.result = replace(image.result, error="", code="")
    farm.take_name(image)
    for upload in image.uploads:
        if upload.state is U.FAILED:
            upload.move(U.WAITING)
            upload.tries, upload.retry_at, upload.again = 0, 0.0, True
            if upload.shard:
                records += archives.assign(farm, image, upload, now)
            circuit_of(farm, upload).waiting.append(upload)
    return [Append(tuple(records))] if records else []


def cancel(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """Try no upload of an image again. One that runs may still succeed."""
    for upload in image.uploads:
        if upload.state in (U.WAITING, U.RUNNING):
            upload.given_up = True
        if upload.state is U.WAITING:
            circuit_of(farm, upload).give_up(upload)
    return [Append((image_record(image),)), *_end_if_over(farm, image, now)]


def dismiss(farm: Farm, image: Image, now: float) -> list[Instruction]:
    """Give up what failed for good. An image that is stored where its request named it first is saved,
    without its copies; another one is cancelled."""
    failed = [upload for upload in image.uploads if upload.state is U.FAILED]
    if (image.task.archive or is_url(image.task.root)) and image.uploads[0] in failed:
        image.move(S.CANCELLED)
        farm.spool_used_bytes -= image.result.spool_bytes
        return [*_unspooled(image), *complete_archives.dismissed(farm, image)]
    given_up = tuple(f"Its copy at {at.path} was given up: {at.error}" for at in failed)
    image.result = replace(image.result, error="", code="", warnings=(*image.result.warnings, *given_up))
    if image.task.archive:
        return complete_archives.without_copies(farm, image, now)
    return _published(farm, image, now)


def of_records(key: tuple[str, int], given: list[dict[str, Any]]) -> list[Upload]:
    """Return the uploads of a predecessor's image, from its journal record."""
    return [Upload.of_record(*key, number, record) for number, record in enumerate(given)]


def restore(farm: Farm, image: Image, spooled: Callable[[str], bool], now: float) -> list[Instruction]:
    """Take up the uploads of a predecessor's image. Without its spooled file it is lost."""
    if image.state not in (S.UPLOADING, S.FAILED):
        return []
    left = [upload for upload in image.uploads if upload.state is not U.SAVED]
    gone = [at.spool for at in left if at.state is not U.PACKED and not spooled(at.spool)]
    if image.state is S.UPLOADING and gone:
        return _lose(farm, image, gone[0])
    farm.spool_used_bytes += image.result.spool_bytes
    if image.state is S.FAILED:
        return []
    image.queued_at = now
    if image.task.archive:
        return archive_recovery.restore_image(farm, image, now)
    farm.take_name(image)
    for upload in left:
        if upload.state is U.WAITING:
            circuit_of(farm, upload).waiting.append(upload)
    return [] if left else _saved(farm, image, now)


def _lose(farm: Farm, image: Image, spool: str) -> list[Instruction]:
    reason = f"Its encoded file {spool} is gone or damaged, before every destination had confirmed it."
    return lose(farm, image, image.task.path, reason)


def uploader_ready(farm: Farm, event: events.UploaderReady, now: float) -> list[Instruction]:
    """The uploader runs: its pid is in the journal, so that a successor can fence it off."""
    farm.uploader = (event.pid, event.created)
    return [Append((uploader_record(farm.uploader),))]


def uploader_record(uploader: tuple[int, float]) -> dict[str, Any]:
    """The journal record by which a successor can fence off the uploader, as it does the workers."""
    return {"r": "worker", "pid": uploader[0], "created": uploader[1]}


def _spool_busy(farm: Farm) -> FarmBusy:
    circuits = [circuit for circuit in farm.circuits.values() if not circuit.idle]
    waiting = ", ".join(circuit.place for circuit in circuits)
    what = f"the spool holds {farm.spool_used_bytes:,} bytes that wait for {waiting} (setting spool_bytes)"
    failing = [circuit.error.rstrip(".") for circuit in circuits if circuit.error]
    return busy(farm, "; ".join((what, *failing)), SPOOL_AGAIN_S)


def check(farm: Farm, options: SaveOptions) -> None:
    """Raise InvalidRequest for a URL that the farm may not send to, FarmBusy while the spool is full."""
    archive, shared = options.archive != "none", archive_names.shared(options)
    if not (archive or shared or options.mirrors or is_url(options.output_dir)):
        return  # one folder of this machine, as in most requests
    places = [("output_dir", options.output_dir), *(("mirrors", mirror) for mirror in options.mirrors)]
    urls = [(field, parse(field, place)) for field, place in places if is_url(place)]
    known = farm.limits.destinations
    for field, location in urls if farm.limits.only_destinations else ():
        if not any(location.below(at.location) for at in known):
            names = ", ".join(at.location.url for at in known) or "there is none"
            allowed = f"a place below one of the farm's destinations: {names} (setting allowed_dirs)"
            raise InvalidRequest.of(field, location.url, allowed)
    if len({place.rstrip("/\\") for _, place in places}) < len(places):
        allowed = "places that differ from one another and from output_dir"
        raise InvalidRequest.of("mirrors", list(options.mirrors), allowed)
    if (urls or options.mirrors or archive) and options.if_exists != "number":
        allowed = (
            "number, for a request with an archive: each archive gets the next number of its name"
            if archive
            else "number, for a request with destinations or mirrors: nothing is replaced or looked for there"
        )
        raise InvalidRequest.of("if_exists", options.if_exists, allowed)
    if not archive and shared:
        needed = "which shard_images, shard_bytes and shard_idle_s need; allowed: zip | tar"
        text = f"archive: none is given, {needed}."
        raise InvalidRequest(text, "archive", options.archive, "zip | tar")
    if (urls or options.mirrors or archive) and farm.spool_full():
        raise _spool_busy(farm)
