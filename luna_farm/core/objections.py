"""Why the farm does not take a submit, or a seal of one, now. Pure."""

from __future__ import annotations

from luna_farm.core import events
from luna_farm.core.job import ImageState, Job
from luna_farm.core.leases import busy
from luna_farm.core.open_submits import OpenSubmit
from luna_farm.core.schema import Part
from luna_farm.core.slots import Slot
from luna_farm.core.state import Farm
from luna_farm.errors import FarmDraining, FarmError, InvalidRequest, StaleLease, TooLarge

S = ImageState


def objection(farm: Farm, event: events.Submitted, known: Job | None) -> FarmError | None:
    """Return why the farm does not take a submit now, None if it does."""
    if farm.requests.get(event.submit.request_id) in farm.submits:
        return busy(farm, "this very request is being accepted")
    if event.client in farm.submitting or event.client in farm.bundles:
        return InvalidRequest.of(
            "cmd", "save_images_async", "seal or abort, for this connection has an open submit"
        )
    if known is not None and not known.count(S.MISSING):
        return None  # its receipt costs nothing, even while the farm stops
    if farm.draining:
        return FarmDraining("The farm is stopping and takes nothing new.")
    # A submit that goes on with a job that is known is open as that job already.
    if (
        len(farm.open_jobs) + sum(job_id not in farm.open_jobs for job_id in farm.submits)
        >= farm.limits.max_jobs
    ):
        return busy(farm, f"{len(farm.open_jobs)} jobs are open, as many as the setting max_jobs allows")
    return None


def stale(part: Part) -> StaleLease:
    """Return the refusal of a seal with a lease that the connection does not hold."""
    return StaleLease(f"This connection does not hold lease {part.lease}; lease again, and submit again.")


def wrong_part(opened: OpenSubmit, part: Part, slot: Slot | None) -> FarmError | None:
    """Return what is wrong with a part of a seal, for the lease in `slot`; None if nothing is."""
    if slot is None:
        return stale(part)
    left = opened.submit.num_images - opened.sealed
    if part.images > left:
        return InvalidRequest.of("parts", part.images, f"at most the {left} images that are not sealed yet")
    batch, place = opened.submit.batch_of(opened.sealed)
    if part.images > batch.batch - place:
        return InvalidRequest.of("parts", part.images, f"the {batch.batch - place} images left of this batch")
    if part.images * batch.image_bytes > slot.size:
        allowed = f"at most {slot.size} bytes, the size of the lease"
        return TooLarge.of("parts", part.images * batch.image_bytes, allowed)
    return None


def not_journaled(farm: Farm, error: FarmError) -> FarmError:
    """Return the refusal of a submit whose record could not be written."""
    return busy(farm, f"its journal cannot be written now ({error})")
