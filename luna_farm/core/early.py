"""Receipts before the seal: nothing is left to wait for once the pixels are copied.

A client that copies into leased slots of this machine may name them in its submit. The farm then journals the
job and sends the receipt while the client still copies. What makes the images accepted is a mark at the end
of each slot, which the client writes behind the pixels: shared memory outlives both processes, so a successor
that finds the job in the journal looks at the marks (`recovery.py`), and so does a farm whose client is gone.

The farm gives such a submit up only after it has said so in the mark, and the client looks for that after it
has set its own: of the two, at least one sees the other. Decides, as `farm.handle` documents.
"""

from __future__ import annotations

from luna_farm.core.completion import job_record
from luna_farm.core.instructions import Append, Instruction, Reply
from luna_farm.core.job import ImageState, Job
from luna_farm.core.job_requests import unknown
from luna_farm.core.new_jobs import receipt
from luna_farm.core.open_submits import OpenSubmit, Step
from luna_farm.core.protocol import refusal
from luna_farm.core.slots import MARK_BYTES, Slot
from luna_farm.core.state import Farm


def begin(farm: Farm, opened: OpenSubmit) -> list[Instruction]:
    """Journal a job whose images are still being copied, if its submit says where to and that is enough; else
    ask its client for a seal. Durable images and those of archives take the long way."""
    job, options = opened.job, opened.submit.options
    assert job is not None, "the names are reserved"
    slots = _places(farm, opened)
    if not slots or options.durable or opened.archive or opened.parts or not opened.listening:
        return ask_for_seal(opened)
    for image, slot in zip(job.images, slots, strict=True):
        image.task = image.task.with_fields(
            segment=slot.segment or farm.segment,
            offset=slot.offset,
            mark=(slot.number, slot.offset + slot.size - MARK_BYTES),
        )
    opened.early, opened.step = True, Step.JOURNAL
    return [Append((job_record(job),), job.job_id)]


def ask_for_seal(opened: OpenSubmit) -> list[Instruction]:
    """Tell a client that hopes for a receipt before its seal that there will be none."""
    hopes = opened.submit.into and opened.listening
    return [Reply(opened.client, opened.reply, {"seal": True})] if hopes else []


def _places(farm: Farm, opened: OpenSubmit) -> list[Slot]:
    """Return the slots that a submit names, [] unless each image has one of its own with room for a mark."""
    into, slots = opened.submit.into, []
    if len(set(into)) != opened.submit.num_images:
        return []
    for index, lease in enumerate(into):
        slot = farm.slots.held_by(opened.client, lease)
        if slot is None or opened.submit.batch_of(index)[0].image_bytes + MARK_BYTES > slot.size:
            return []
        slots.append(slot)
    return slots


def journaled(farm: Farm, opened: OpenSubmit, now: float) -> list[Instruction]:
    """The job is in the journal: send its receipt."""
    job = opened.job
    assert job is not None, "it was journaled"
    job.early, job.accepted_at = True, now
    farm.jobs[job.job_id] = farm.open_jobs[job.job_id] = job
    if not opened.listening:  # its leases would be granted to a client that has left
        return []
    return [Reply(opened.client, opened.reply, receipt(farm, job, opened.client, opened.submit.want))]


def came_to_nothing(job: Job) -> bool:
    """Whether no image of a job was sealed after its receipt."""
    return job.count(ImageState.FILLING) == job.num_images


def withdraw(farm: Farm, job: Job) -> list[Instruction]:
    """Forget a job of which nothing was sealed: its client does not count on it."""
    del farm.jobs[job.job_id], farm.open_jobs[job.job_id], farm.requests[job.request_id]
    for image in job.images:
        farm.free_name(image)
    waiting = [waiter for waiter in farm.waiters if waiter.job_id == job.job_id]
    farm.waiters = [waiter for waiter in farm.waiters if waiter.job_id != job.job_id]
    answer = refusal(unknown(job.job_id), job.job_id)
    record = {"r": "withdrawn", "job_id": job.job_id}
    return [Append((record,)), *(Reply(waiter.client, waiter.reply, answer) for waiter in waiting)]
