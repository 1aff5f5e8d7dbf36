"""Taking over: a submit, its names, its job. Decides, as `farm.handle` documents; acts on nothing.

The order of `accept` and `job_journaled` is the promise: the record is in the journal before the client hears
yes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from luna_farm.core import events, filenames
from luna_farm.core.completion import whole_record
from luna_farm.core.dispatch import advance
from luna_farm.core.instructions import (
    AppendJob,
    Instruction,
    Publish,
    Reply,
    ReserveNames,
    SpoolPixels,
)
from luna_farm.core.job import Image, Job
from luna_farm.core.leases import busy, give_up, leases_returned, prefetched
from luna_farm.core.messages import ImageTask
from luna_farm.core.protocol import refusal
from luna_farm.core.state import Farm, Pending, folder_of
from luna_farm.errors import FarmDraining, FarmError, InvalidRequest, StaleLease, TooLarge


def submitted(farm: Farm, event: events.Submitted, now: float) -> list[Instruction]:
    """Judge a submit against the state of the farm and have its names reserved."""
    submit = event.submit
    known = farm.requests.get(submit.request_id)
    if known in farm.jobs and not submit.coming:
        leases_returned(
            farm, events.LeasesReturned(event.client, tuple(e.lease for e in submit.entries)), now
        )
        return [Reply(event.client, event.reply, receipt(farm, farm.jobs[known], event.client, submit.want))]
    error = _objection(farm, event, known)
    if error:
        return [Reply(event.client, event.reply, refusal(error))]
    try:
        names = filenames.image_names(submit, farm.limits.path_bytes)
    except InvalidRequest as refused:
        return [Reply(event.client, event.reply, refusal(refused))]
    slots = []
    for entry in submit.entries:
        slot = farm.slots.held_by(event.client, entry.lease)
        assert slot is not None, "the objections made sure of the lease"
        slots.append(slot.number)
    pending = Pending(event.client, event.reply, submit, tuple(slots), names.relatives)
    farm.requests[submit.request_id] = event.job_id
    farm.pending[event.job_id] = pending
    if submit.coming:
        _await(farm, event.job_id, pending)
    else:
        _fill(farm, pending)
    options = submit.options
    return [
        ReserveNames(
            event.job_id,
            options.output_dir,
            names.relatives,
            names.warnings,
            options.numbers,
            options.sidecar,
        )
    ]


def _await(farm: Farm, job_id: str, pending: Pending) -> None:
    """Judge it and find its names while its client copies the pixels: half a millisecond of both is gone
    for nobody."""
    pending.awaited = True
    farm.awaited[pending.client] = job_id
    for number in pending.slots:
        farm.slots.await_pixels(farm.slots[number])


def _fill(farm: Farm, pending: Pending) -> None:
    for number, entry in zip(pending.slots, pending.submit.entries, strict=True):
        farm.slots.fill(farm.slots[number], entry.batch)


def pixels_came(farm: Farm, event: events.PixelsCame, now: float) -> list[Instruction]:
    """The slots of a submit are filled. One that was refused in the meantime has its answer already."""
    job_id = farm.awaited.pop(event.client, None)
    if job_id is None:
        return []
    pending = farm.pending[job_id]
    pending.awaited = False
    _fill(farm, pending)
    return _take_over(farm, job_id) if pending.paths else []


def _objection(farm: Farm, event: events.Submitted, known: str | None) -> FarmError | None:
    if known in farm.pending:
        return busy(farm, "this very request is being taken over")
    if event.submit.coming and event.client in farm.awaited:
        return InvalidRequest.of("coming", True, "one submit at a time whose pixels are coming")
    if farm.draining:
        return FarmDraining("The farm is stopping and takes nothing new.")
    if len(farm.open_jobs) + len(farm.pending) >= farm.limits.max_jobs:
        return busy(farm, f"{len(farm.open_jobs)} jobs are open, as many as the setting max_jobs allows")
    if known in farm.jobs:  # its client may be writing into slots that nobody needs
        return InvalidRequest.of("coming", True, "false in a submit that is sent again")
    numbers = [entry.lease for entry in event.submit.entries]
    for entry in event.submit.entries:
        slot = farm.slots.held_by(event.client, entry.lease)
        if slot is None or numbers.count(entry.lease) > 1:
            return StaleLease(
                f"This connection does not hold lease {entry.lease}; lease again, fill and submit."
            )
        if slot.size < entry.nbytes:
            return TooLarge.of("shape", entry.nbytes, f"at most {slot.size} bytes, the size of the lease")
    return None


def names_reserved(farm: Farm, event: events.NamesReserved, now: float) -> list[Instruction]:
    """The names stand: go on, unless the pixels are not there yet."""
    pending = farm.pending.get(event.job_id)
    if pending is None:  # its client left
        farm.taken.difference_update(filenames.collision_key(path) for path in event.paths)
        return []
    pending.paths, pending.warnings, pending.root = event.paths, event.warnings, event.root
    farm.taken.update(filenames.collision_key(path) for path in event.paths)
    if not pending.awaited:
        return _take_over(farm, event.job_id)
    if not pending.submit.options.durable:  # there is time now, and none once the pixels are there
        pending.job = _job(farm, event.job_id, ())
    return []


def _take_over(farm: Farm, job_id: str) -> list[Instruction]:
    """Spool what must be durable, else accept."""
    pending = farm.pending[job_id]
    if pending.submit.options.durable:
        slots = [farm.slots[number] for number in pending.slots]
        sizes = [entry.nbytes for entry in pending.submit.entries]
        places = tuple((farm.segment, slot.offset, size) for slot, size in zip(slots, sizes, strict=True))
        return [SpoolPixels(job_id, places)]
    return accept(farm, job_id)


def names_refused(farm: Farm, event: events.NamesRefused, now: float) -> list[Instruction]:
    """No names, no job."""
    return _refuse(farm, event.job_id, event.error) if event.job_id in farm.pending else []


def spooled(farm: Farm, event: events.Spooled, now: float) -> list[Instruction]:
    """The pixels are on disk: accept."""
    return accept(farm, event.job_id, event.segments)


def spool_failed(farm: Farm, event: events.SpoolFailed, now: float) -> list[Instruction]:
    """Durable was asked for and cannot be had: say so."""
    return _refuse(farm, event.job_id, event.error)


def _refuse(farm: Farm, job_id: str, error: FarmError) -> list[Instruction]:
    pending = farm.pending[job_id]
    return [Reply(pending.client, pending.reply, refusal(error, job_id)), *give_up(farm, job_id)]


def accept(farm: Farm, job_id: str, spools: tuple[str, ...] = ()) -> list[Instruction]:
    """Make the job and have it journaled: only `job_journaled` acknowledges it."""
    pending = farm.pending[job_id]
    pending.job = pending.job or _job(farm, job_id, spools)
    return [AppendJob(job_id, job_record(pending.job))]


def _job(farm: Farm, job_id: str, spools: tuple[str, ...]) -> Job:
    pending = farm.pending[job_id]
    images = _images(farm, job_id, pending, spools)
    job = Job(job_id, pending.submit.request_id, pending.submit.options, images, 0.0, pending.warnings)
    failing = {
        folder: farm.folders[folder].error for image in images if (folder := folder_of(image)) in farm.folders
    }
    for folder, error in failing.items():
        job.warnings += (
            f"{folder} cannot be written now ({error}); the images are kept and saved once it can.",
        )
    return job


def job_journaled(farm: Farm, event: events.JobJournaled, now: float) -> Iterator[Instruction]:
    """The job survives everything from here on: acknowledge it, then get it done, in this order.

    One after the other: what is to be done is thought of when the client has its answer.
    """
    pending = farm.pending.pop(event.job_id)
    job = pending.job
    assert job is not None, "a job is made before it is journaled"
    farm.jobs[job.job_id] = farm.open_jobs[job.job_id] = job
    farm.totals["jobs"] += 1
    job.accepted_at = now
    for image in job.images:
        image.queued_at = now
        farm.keep_pixels(image)
        farm.waiting.append(image)
    answer = receipt(farm, job, pending.client, pending.submit.want)
    yield Reply(pending.client, pending.reply, answer)
    told = {"event": "save_job_queued", "job_id": job.job_id, "num_images": len(job.images)}
    yield Publish({**told, "paths": answer["paths"]})
    yield from advance(farm, now)


def journal_failed(farm: Farm, event: events.JournalFailed, now: float) -> list[Instruction]:
    """What is not in the journal is not accepted: nothing was begun, the client is told to come again."""
    return _refuse(farm, event.job_id, busy(farm, f"its journal cannot be written now ({event.error})"))


def _images(farm: Farm, job_id: str, pending: Pending, spools: tuple[str, ...]) -> list[Image]:
    images: list[Image] = []
    for at, (entry, number) in enumerate(zip(pending.submit.entries, pending.slots, strict=True)):
        size = entry.height * entry.width * entry.channels
        for batch_index in range(entry.batch):
            index = len(images)
            task = ImageTask(
                job_id=job_id,
                index=index,
                affix=entry.affix,
                format=entry.format,
                batch_index=batch_index,
                batch_size=entry.batch,
                path=pending.paths[index],
                segment=farm.segment,
                offset=farm.slots[number].offset + batch_index * size,
                height=entry.height,
                width=entry.width,
                channels=entry.channels,
                metadata=entry.metadata,
                in_affix_folder=entry.subdir and bool(entry.affix.strip(" .")),
                root=pending.root or pending.submit.options.output_dir,
            )
            spool = spools[at] if spools else ""
            images.append(Image(task, slot=number, spool=spool, spool_offset=batch_index * size))
    return images


def receipt(farm: Farm, job: Job, client: int, want: tuple[int, ...]) -> dict[str, Any]:
    """The acknowledgement of a job, with leases for the next submit while the arena has room for such."""
    return {
        "success": True,
        "job_id": job.job_id,
        "message": f"Image save job submitted (ID: {job.job_id})",
        "num_images": len(job.images),
        "paths": [image.task.path for image in job.images],
        "warnings": list(job.warnings),
        "leases": prefetched(farm, client, want),
    }


def job_record(job: Job) -> dict[str, Any]:
    """The journal record from which `recovery.py` makes the job again."""
    return {
        "r": "job",
        "job_id": job.job_id,
        "request_id": job.request_id,
        "options": job.options.to_map(),
        "warnings": list(job.warnings),
        "images": [whole_record(image) for image in job.images],
    }
