"""Many small requests in one message: accepted together or not at all, by one record of the journal.

Each request is a job of its own, with a receipt of its own. All of their pixels lie in one slot, one image
behind the other. Decides, as `farm.handle` documents; a submit of one request goes on to `intake.py`.
"""

from __future__ import annotations

from luna_farm.core import events, intake, new_jobs, objections
from luna_farm.core.completion import job_record, request_of
from luna_farm.core.instructions import Append, Forget, Instruction, Reply, SpoolPixels
from luna_farm.core.job import ImageState, Job
from luna_farm.core.leases import busy, prefetched
from luna_farm.core.open_submits import OpenBundle, OpenSubmit, Step
from luna_farm.core.protocol import refusal
from luna_farm.core.schema import aligned
from luna_farm.core.state import FILE_STEP_NS, Farm
from luna_farm.errors import FarmError, InvalidRequest, TooLarge

S = ImageState


def submitted(farm: Farm, event: events.ManySubmitted, now: float) -> list[Instruction]:
    """Validate requests against the state of the farm and have their names reserved. Requests that are sent
    again, because the answer was lost, get the receipts of their jobs."""
    known = [job for s in event.submits if (job := farm.jobs.get(farm.requests.get(s.request_id, "")))]
    whole = not any(job.job_id in farm.submits or job.count(S.MISSING) for job in known)
    if len(known) == len(event.submits) and whole:
        answer = _receipts(farm, known, event.client, event.want)
        return [Reply(event.client, event.reply, {**answer, "known": True})]
    bundle = OpenBundle(event.client, event.reply, event.want)
    wanted: list[Instruction] = []
    try:
        if any(job.job_id in farm.submits for job in known):
            raise busy(farm, "one of these requests is being accepted")
        if known:
            allowed = "ids of requests that are all new, or were all sent together before"
            raise InvalidRequest.of("request_id", known[0].request_id, allowed)
        for job_id, submit in zip(event.job_ids, event.submits, strict=True):
            again = events.Submitted(event.client, event.reply, submit, job_id)
            error = objections.objection(farm, again, None)
            if error:
                raise error
            opened = OpenSubmit(job_id, event.client, event.reply, submit, bundle=bundle)
            wanted.append(intake.named(farm, opened))
            bundle.opened.append(opened)
    except FarmError as refused:
        return [Reply(event.client, event.reply, refusal(refused))]
    for opened in bundle.opened:
        farm.requests[opened.submit.request_id] = opened.job_id
        farm.submits[opened.job_id] = opened
    farm.bundles[event.client] = bundle
    bundle.left = len(bundle.opened)
    return wanted


def names_reserved(farm: Farm, event: events.NamesReserved, now: float) -> list[Instruction]:
    """The names of one request are reserved; go on once those of all are."""
    opened = farm.submits[event.job_id]
    bundle = opened.bundle
    if bundle is None:
        return intake.names_reserved(farm, event, now)
    bundle.left -= 1
    if event.error is not None:
        bundle.error = bundle.error or event.error
    else:
        new_jobs.make_job(farm, opened, event)
    return _go_on(farm, bundle, now)


def sealed(farm: Farm, event: events.Sealed, now: float) -> list[Instruction]:
    """The pixels of all requests are complete, in one slot."""
    bundle = farm.bundles.get(event.client)
    if bundle is None or bundle.reply != event.reply:
        return intake.sealed(farm, event, now)
    if bundle.slot is not None:  # sealed before: the answer is on its way
        return intake.release(farm, event)
    (part, *more) = event.parts
    slot = farm.slots.held_by(event.client, part.lease)
    images = sum(opened.submit.num_images for opened in bundle.opened)
    size = _size(bundle)
    if slot is None:
        bundle.error = bundle.error or objections.stale(part)
    elif more or part.images != images:
        allowed = f"one part with the {images} images of all requests"
        bundle.error = bundle.error or InvalidRequest.of("parts", len(event.parts), allowed)
    elif size > slot.size:
        allowed = f"at most {slot.size} bytes, the size of the lease"
        bundle.error = bundle.error or TooLarge.of("parts", size, allowed)
    else:
        farm.slots.seal(slot, images)
        bundle.slot, bundle.flaws = slot, part.flaws
        bundle.file_time_ns = farm.file_times(event.time_ns, images)
    return _go_on(farm, bundle, now)


def _size(bundle: OpenBundle) -> int:
    """Bytes of all images; each batch begins at an aligned offset."""
    size = 0
    for opened in bundle.opened:
        for batch in opened.submit.batches:
            size = aligned(size) + batch.batch * batch.image_bytes
    return size


def _go_on(farm: Farm, bundle: OpenBundle, now: float) -> list[Instruction]:
    """Take the next step once nothing is under way."""
    if bundle.left:
        return []
    if bundle.error is not None:
        return _fail(farm, bundle, bundle.error)
    if bundle.slot is None:
        return [] if bundle.listening else _fail(farm, bundle, None)
    if bundle.step is Step.NAMES:
        _take(farm, bundle)
        durable = [opened for opened in bundle.opened if opened.submit.options.durable]
        bundle.step, bundle.left = Step.SPOOL, len(durable)
        if durable:
            return [_spool(opened) for opened in durable]
    bundle.step, bundle.left = Step.JOURNAL, 1
    jobs = bundle.jobs
    for job in jobs:
        for image in job.images:
            image.move(S.QUEUED)
    sync = any(job.options.durable for job in jobs)
    record = {"r": "jobs", "jobs": [job_record(job) for job in jobs]}
    return [Append((record,), jobs[0].job_id, sync=sync)]


def _take(farm: Farm, bundle: OpenBundle) -> None:
    """Give each image its place in the slot."""
    slot, at, count = bundle.slot, 0, 0
    assert slot is not None, "the pixels are sealed"
    for opened, job in zip(bundle.opened, bundle.jobs, strict=True):
        for index, image in enumerate(job.images):
            at = at if opened.submit.batch_of(index)[1] else aligned(at)
            task = image.task
            task.segment, task.offset = slot.segment or farm.segment, slot.offset + at
            task.flaws = bundle.flaws[count] if bundle.flaws else 0
            task.file_time_ns = bundle.file_time_ns and bundle.file_time_ns + count * FILE_STEP_NS
            image.slot = slot.number
            at, count = at + image.task.nbytes, count + 1


def _spool(opened: OpenSubmit) -> Instruction:
    job = opened.job
    assert job is not None, "its names are reserved"
    opened.taking, opened.step = list(job.images), Step.SPOOL
    places = tuple((i.task.segment, i.task.offset, i.task.nbytes) for i in job.images)
    return SpoolPixels(opened.job_id, places, tuple(request_of(job, image) for image in job.images))


def pixels_spooled(farm: Farm, event: events.PixelsSpooled, now: float) -> list[Instruction]:
    """The pixels of one durable request are on disk."""
    opened = farm.submits[event.job_id]
    bundle = opened.bundle
    if bundle is None:
        return intake.pixels_spooled(farm, event, now)
    bundle.left -= 1
    if event.error is not None:
        bundle.error = bundle.error or event.error
    else:
        for image, segment in zip(opened.taking, event.segments, strict=True):
            image.spool, image.spool_offset = segment, 0
    return _go_on(farm, bundle, now)


def journaled(farm: Farm, event: events.Journaled, now: float) -> list[Instruction]:
    """All jobs survive everything from here on: queue their images, then acknowledge them."""
    bundle = farm.submits[event.job_id].bundle
    if bundle is None:
        return intake.journaled(farm, event, now)
    if event.error is not None:
        return _fail(farm, bundle, objections.not_journaled(farm, event.error))
    jobs = bundle.jobs
    told: list[Instruction] = []
    for job in jobs:
        told += intake.accepted(farm, job, job.images, now)
    _forget(farm, bundle)
    if bundle.listening:
        answer = _receipts(farm, jobs, bundle.client, bundle.want)
        return [Reply(bundle.client, bundle.reply, answer), *told]
    return told


def aborted(farm: Farm, event: events.Aborted, now: float) -> list[Instruction]:
    """A client gives requests up that it has not sealed."""
    bundle = farm.bundles.get(event.client)
    if bundle is None or bundle.reply != event.reply:
        return intake.aborted(farm, event, now)
    answer = {"success": True, "aborted": True, "sealed": 0}
    return [Reply(event.client, event.reply, answer), *_leave(farm, bundle, now)]


def client_gone(farm: Farm, event: events.ClientGone, now: float) -> list[Instruction]:
    """Free what a connection held. What it has sealed is accepted all the same."""
    bundle = farm.bundles.get(event.client)
    done = _leave(farm, bundle, now) if bundle is not None else []
    return [*done, *intake.client_gone(farm, event, now)]


def _leave(farm: Farm, bundle: OpenBundle, now: float) -> list[Instruction]:
    bundle.listening = False
    farm.bundles.pop(bundle.client, None)
    return _go_on(farm, bundle, now)


def _fail(farm: Farm, bundle: OpenBundle, error: FarmError | None) -> list[Instruction]:
    """End requests of which one could not be accepted: none of them is."""
    _forget(farm, bundle)
    done: list[Instruction] = []
    if bundle.listening and error is not None:
        done.append(Reply(bundle.client, bundle.reply, refusal(error)))
    for opened in bundle.opened:
        del farm.requests[opened.submit.request_id]
        for image in opened.job.images if opened.job else ():
            farm.free_name(image)
            if image.spool:
                done.append(Forget(image.spool))
    if bundle.slot is not None:
        for _ in range(sum(opened.submit.num_images for opened in bundle.opened)):
            farm.slots.done_with(bundle.slot.number)
    return done


def _forget(farm: Farm, bundle: OpenBundle) -> None:
    for opened in bundle.opened:
        del farm.submits[opened.job_id]
    if farm.bundles.get(bundle.client) is bundle:
        del farm.bundles[bundle.client]


def _receipts(farm: Farm, jobs: list[Job], client: int, want: tuple[int, ...]) -> dict[str, object]:
    receipts = [new_jobs.receipt(farm, job, client, ()) for job in jobs]
    for receipt in receipts:
        del receipt["leases"]
    return {"success": True, "receipts": receipts, "leases": prefetched(farm, client, want)}
