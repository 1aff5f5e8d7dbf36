"""Acceptance: a submit, its names, its sealed images, its job. Decides, as `farm.handle` documents.

A submit creates a job whose images are sealed one after the other. Sealed images are journaled, then queued,
while their client still copies the next ones; the receipt follows the record of the last one. The order is
the promise: an image is in the journal before its client learns that it was accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from luna_farm.core import archive_names, early, events, filenames, new_jobs, objections, replaced, uploads
from luna_farm.core.completion import close, job_record, missing, request_of, whole_record
from luna_farm.core.feed_events import JobQueued
from luna_farm.core.instructions import Append, Forget, Instruction, Publish, Reply, ReserveNames, SpoolPixels
from luna_farm.core.job import NOTHING_YET, Image, ImageState, Job
from luna_farm.core.leases import QUARANTINE_S
from luna_farm.core.needs import needs
from luna_farm.core.open_submits import OpenSubmit, Step
from luna_farm.core.protocol import refusal
from luna_farm.core.state import FILE_STEP_NS, Farm
from luna_farm.errors import FarmError, InvalidRequest

S = ImageState


def submitted(farm: Farm, event: events.Submitted, now: float) -> list[Instruction]:
    """Validate a submit against the state of the farm and have its names reserved.

    One that is sent again, because its answer was lost, gets the receipt of its job, or goes on with the
    images that are missing in it.
    """
    submit = event.submit
    known = farm.jobs.get(farm.requests.get(submit.request_id, ""))
    error = objections.objection(farm, event, known)
    if error:
        return [Reply(event.client, event.reply, refusal(error))]
    if known is not None and not known.count(S.MISSING):
        answer = new_jobs.receipt(farm, known, event.client, submit.want)
        return [Reply(event.client, event.reply, {**answer, "known": True})]
    opened = OpenSubmit(event.job_id, event.client, event.reply, submit)
    if known is not None:
        return _reopen(farm, opened, known)
    try:
        wanted = named(farm, opened)
    except FarmError as refused:
        return [Reply(event.client, event.reply, refusal(refused))]
    _open(farm, opened)
    return [wanted]


def named(farm: Farm, opened: OpenSubmit) -> ReserveNames:
    """Name the images of a submit; returns the request for free names. Raises InvalidRequest, FarmBusy."""
    submit, options = opened.submit, opened.submit.options
    uploads.check(farm, options)
    names = filenames.image_names(submit, farm.limits.path_bytes)
    told = (*replaced.warnings(submit), *names.warnings)
    needed = needs(submit, farm.pools)
    if options.archive != "none":
        opened.members, opened.archive = names.members, names.archive
        wanted = archive_names.names_wanted(farm, opened.job_id, options, names.archive)
        return replace(wanted, warnings=told, needs=needed)
    return ReserveNames(
        opened.job_id,
        options.output_dir,
        names.relatives,
        told,
        options.numbers,
        options.sidecar,
        options.if_exists,
        options.mirrors,
        needs=needed,
    )


def _open(farm: Farm, opened: OpenSubmit) -> None:
    farm.requests[opened.submit.request_id] = opened.job_id
    farm.submits[opened.job_id] = farm.submitting[opened.client] = opened


def _reopen(farm: Farm, opened: OpenSubmit, job: Job) -> list[Instruction]:
    if job.num_images != opened.submit.num_images:
        allowed = f"{job.num_images} images, as in the first submit of this request"
        error = InvalidRequest.of("images", opened.submit.num_images, allowed)
        return [Reply(opened.client, opened.reply, refusal(error))]
    opened.job_id, opened.job, opened.step = job.job_id, job, Step.CLIENT
    left = [image for image in job.images if image.state is S.MISSING]
    farm.uncount_failed(len(left))
    for image in left:
        farm.take_name(image)
    farm.open_jobs[job.job_id] = job
    _open(farm, opened)
    done = early.ask_for_seal(opened)
    return [Append((job_record(job),)), *done]  # the journal holds open jobs only, and this one was finished


def names_reserved(farm: Farm, event: events.NamesReserved, now: float) -> list[Instruction]:
    """The names are reserved: accept what is sealed by now."""
    opened = farm.submits[event.job_id]
    if event.error is not None:
        return _fail(farm, opened, event.error, now)
    new_jobs.make_job(farm, opened, event)
    done = early.begin(farm, opened)
    return [*done, *_accept(farm, opened, now)]


def sealed(farm: Farm, event: events.Sealed, now: float) -> list[Instruction]:
    """Pixels are complete. Those of a submit that was refused in the meantime free their slots."""
    opened = farm.submitting.get(event.client)
    if opened is None or opened.reply != event.reply:
        return release(farm, event)
    for part in event.parts:
        slot = farm.slots.held_by(event.client, part.lease)
        error = objections.wrong_part(opened, part, slot)
        if error or slot is None:
            answer = refusal(error or objections.stale(part), opened.job_id)
            return [Reply(event.client, event.reply, answer), *_leave(farm, opened, now)]
        farm.slots.seal(slot, part.images)
        file_time = farm.file_times(event.time_ns, part.images)
        opened.parts.append((slot, part.images, part.flaws, file_time))
        opened.sealed += part.images
    return _accept(farm, opened, now)


def release(farm: Farm, event: events.Sealed) -> list[Instruction]:
    """Free the slots of a seal that is not needed."""
    for part in event.parts:
        slot = farm.slots.held_by(event.client, part.lease)
        if slot:
            farm.slots.release(slot)
    return []


def _accept(farm: Farm, opened: OpenSubmit, now: float) -> list[Instruction]:
    """Take the next step with a submit that waits for nothing but its client."""
    if opened.step is not Step.CLIENT:
        return []
    places = _take_parts(farm, opened) if opened.parts else ()
    if not opened.taking:
        return _end_if_over(farm, opened, now)
    if opened.submit.options.durable:
        opened.step = Step.SPOOL
        job = opened.job
        assert job is not None, "parts are taken once the names are reserved"
        requests = tuple(request_of(job, image) for image in opened.taking)
        return [SpoolPixels(opened.job_id, places, requests)]
    return _journal(farm, opened)


def _take_parts(farm: Farm, opened: OpenSubmit) -> tuple[tuple[str, int, int], ...]:
    """Give the pixels of the sealed parts to their images; returns where they are, for the spool."""
    places: list[tuple[str, int, int]] = []
    assert opened.job is not None, "parts are taken once the names are reserved"
    while opened.parts:
        slot, count, flaws, file_time = opened.parts.popleft()
        size = opened.submit.batch_of(opened.taken)[0].image_bytes
        for place in range(count):
            image = opened.job.images[opened.taken]
            opened.taken += 1
            if image.state not in (
                S.FILLING,
                S.MISSING,
            ):  # accepted before this submit was sent again, or cancelled
                farm.slots.done_with(slot.number)
                continue
            segment, offset = slot.segment or farm.segment, slot.offset + place * size
            task = image.task  # nothing but this image knows it yet
            task.segment, task.offset, task.flaws = segment, offset, flaws[place] if flaws else 0
            task.file_time_ns = file_time and file_time + place * FILE_STEP_NS
            task.mark = ()
            image.slot, image.result = slot.number, NOTHING_YET
            opened.taking.append(image)
            places.append((segment, offset, size))
    return tuple(places)


def pixels_spooled(farm: Farm, event: events.PixelsSpooled, now: float) -> list[Instruction]:
    """The pixels are on disk: journal their images. If the disk refuses, so does the farm."""
    opened = farm.submits[event.job_id]
    if event.error is not None:
        return _fail(farm, opened, event.error, now)
    for image, segment in zip(opened.taking, event.segments, strict=True):
        image.spool, image.spool_offset = segment, 0
    return _journal(farm, opened)


def _journal(farm: Farm, opened: OpenSubmit) -> list[Instruction]:
    opened.step = Step.JOURNAL
    job = opened.job
    assert job is not None, "a job is made before it is journaled"
    for image in opened.taking:
        image.move(S.QUEUED)
    known = job.job_id in farm.jobs
    # Whole records: a compaction meanwhile may have written the image as it was before.
    records = tuple(map(whole_record, opened.taking)) if known else (job_record(job),)
    return [Append(records, job.job_id, sync=job.options.durable)]


def journaled(farm: Farm, event: events.Journaled, now: float) -> list[Instruction]:
    """The images survive everything from here on: queue them; after the last one acknowledge the job."""
    opened = farm.submits[event.job_id]
    job = opened.job
    assert job is not None, "a job is made before it is journaled"
    later: list[Instruction] = []
    if event.error is not None:
        if not job.early:
            return _fail(farm, opened, objections.not_journaled(farm, event.error), now)
        # Their receipt was sent, and a successor knows by their marks: written once the disk allows.
        later.append(Append(tuple(map(whole_record, opened.taking))))
    elif opened.early and job.job_id not in farm.jobs:
        opened.step = Step.CLIENT
        return [*early.journaled(farm, opened, now), *_accept(farm, opened, now)]
    done = [*later, *accepted(farm, job, opened.taking, now)]
    opened.taking, opened.step = [], Step.CLIENT
    # The receipt goes out first: its client waits for it.
    return [*_accept(farm, opened, now), *done]


def accepted(farm: Farm, job: Job, images: Sequence[Image], now: float) -> list[Instruction]:
    """Images of a job are in the journal: queue them. Returns what the feed gets to know."""
    done: list[Instruction] = []
    if job.early or job.job_id not in farm.jobs:
        farm.jobs[job.job_id] = job
        farm.totals["jobs"] += 1
        job.accepted_at, job.early = now, False
        done.append(Publish(JobQueued(job.job_id, len(job.images), tuple([i.task.path for i in job.images]))))
    farm.open_jobs[job.job_id] = job
    for image in images:
        farm.keep_pixels(image)
        farm.queue(image, now)
    return done


def _end_if_over(farm: Farm, opened: OpenSubmit, now: float) -> list[Instruction]:
    if not opened.complete and opened.listening:
        return []
    job = opened.job
    assert job is not None, "the names are reserved"
    _forget(farm, opened)
    if not opened.complete:
        return _missing(farm, opened, now)
    done: list[Instruction] = []
    if opened.listening and not opened.early:  # else its leases would be granted to a client that has left
        answer = new_jobs.receipt(farm, job, opened.client, opened.submit.want)
        done.append(Reply(opened.client, opened.reply, answer))
    # A job whose last images were cancelled before they were sealed has no other end.
    return [*done, *close(farm, job, now)]


def aborted(farm: Farm, event: events.Aborted, now: float) -> list[Instruction]:
    """A client gives up what it has not sealed. One that was refused in the meantime has its answer
    already."""
    opened = farm.submitting.get(event.client)
    if opened is None or opened.reply != event.reply:
        return []
    answer = {"success": True, "aborted": True, "job_id": opened.job_id, "sealed": opened.sealed}
    return [Reply(event.client, event.reply, answer), *_leave(farm, opened, now)]


def client_gone(farm: Farm, event: events.ClientGone, now: float) -> list[Instruction]:
    """Free what a connection held; what it has sealed stays accepted."""
    opened = farm.submitting.get(event.client)
    done = _leave(farm, opened, now) if opened else []
    farm.slots.drop_client(event.client, now + QUARANTINE_S if event.may_write else None)
    farm.waiters = [waiter for waiter in farm.waiters if waiter.client != event.client]
    farm.creating = {key: size for key, size in farm.creating.items() if key[0] != event.client}
    return done


def _leave(farm: Farm, opened: OpenSubmit, now: float) -> list[Instruction]:
    opened.listening = False
    farm.submitting.pop(opened.client, None)
    return _accept(farm, opened, now)


def _fail(farm: Farm, opened: OpenSubmit, error: FarmError, now: float) -> list[Instruction]:
    """End a submit whose names, spool or journal failed. What was journaled before stays accepted."""
    _forget(farm, opened)
    done: list[Instruction] = []
    if opened.listening:
        done.append(Reply(opened.client, opened.reply, refusal(error, opened.job_id)))
    for slot, count, *_ in opened.parts:
        for _ in range(count):
            farm.slots.done_with(slot.number)
    for image in opened.taking:
        if image.state is S.QUEUED:
            image.move(S.MISSING)  # what is not in the journal was not accepted
        if image.spool:
            done.append(Forget(image.spool))
        assert image.slot is not None, "an image is taken from a slot"
        farm.slots.done_with(image.slot)
        image.slot, image.spool = None, ""
    return [*done, *_missing(farm, opened, now)]


def _missing(farm: Farm, opened: OpenSubmit, now: float) -> list[Instruction]:
    """Name the images that were never sealed; a job without any accepted image comes to nothing."""
    job = opened.job
    if job is None or job.job_id not in farm.jobs:
        del farm.requests[opened.submit.request_id]
        for image in job.images if job else ():
            farm.free_name(image)
        return []
    if job.early and early.came_to_nothing(job):
        return early.withdraw(farm, job)
    for image in job.images:
        if image.state in (S.FILLING, S.MISSING):
            farm.free_name(image)
    return [*missing(farm, job), *close(farm, job, now)]


def _forget(farm: Farm, opened: OpenSubmit) -> None:
    del farm.submits[opened.job_id]
    if farm.submitting.get(opened.client) is opened:  # after an abort it may have begun another
        del farm.submitting[opened.client]
