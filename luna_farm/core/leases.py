"""Leases: who may write where, and how many wait. Decides, as `farm.handle` documents; acts on nothing.

A slot that somebody may still be writing into must never be free.
"""

from __future__ import annotations

from typing import Any

from luna_farm.core import events, filenames
from luna_farm.core.instructions import Forget, Instruction, Reply
from luna_farm.core.protocol import refusal
from luna_farm.core.slots import Slot
from luna_farm.core.state import Farm
from luna_farm.errors import FarmBusy, FarmDraining, FarmError, TooLarge

QUARANTINE_S = 10.0
"""How long the slots of a vanished connection rest, whose process may still be copying into them."""
SPARE_SHARE = 0.25
"""Share of the arena that leases granted ahead (with an acknowledgement) may hold."""
LEASED_JOBS = 2
"""Jobs of max_images for which a client may hold leases: the one it fills, and one ahead."""


def busy(farm: Farm, what: str) -> FarmBusy:
    """The refusal at a bound, with the depth and a hint when to come again."""
    per_image_s = 0.02
    hint = min(2.0, max(0.02, per_image_s * farm.depth / max(1, len(farm.alive()))))
    return FarmBusy(
        f"The farm is busy: {what}. {farm.depth} images are ahead; try again in {hint:.2f} s.",
        farm.depth,
        hint,
    )


def grant(farm: Farm, slots: list[Slot]) -> list[dict[str, Any]]:
    """What a client is told about its leases."""
    return [{"lease": s.number, "segment": farm.segment, "offset": s.offset, "size": s.size} for s in slots]


def lease_asked(farm: Farm, event: events.LeaseAsked, now: float) -> list[Instruction]:
    """Grant slots, all or none."""
    if farm.draining:
        error: FarmError = FarmDraining("The farm is stopping and takes nothing new.")
    elif not farm.slots.fits(event.sizes):
        error = TooLarge.of(
            "sizes",
            sum(event.sizes),
            f"at most {farm.slots.size:,} bytes, the size of the arena (setting arena_bytes)",
        )
    elif farm.slots.leases_of(event.client) + len(event.sizes) > _most_leases(farm):
        error = TooLarge.of(
            "sizes",
            len(event.sizes),
            f"at most {_most_leases(farm)} leases at a time, and this connection holds "
            f"{farm.slots.leases_of(event.client)}; give back (release) what is not used",
        )
    else:
        slots = farm.slots.lease(event.client, event.sizes)
        if slots is not None:
            return [Reply(event.client, event.reply, {"leases": grant(farm, slots)})]
        error = busy(
            farm, f"{farm.slots.used_bytes:,} of {farm.slots.size:,} bytes of its shared memory are in use"
        )
    return [Reply(event.client, event.reply, refusal(error))]


def prefetched(farm: Farm, client: int, want: tuple[int, ...]) -> list[dict[str, Any]]:
    """Leases for the next submit of a client, while the arena has room for such."""
    room = farm.slots.leased_bytes + sum(want) <= farm.slots.size * SPARE_SHARE
    if not want or farm.draining or not room or farm.slots.leases_of(client) + len(want) > _most_leases(farm):
        return []
    return grant(farm, farm.slots.lease(client, want) or [])


def _most_leases(farm: Farm) -> int:
    return LEASED_JOBS * farm.limits.max_images


def leases_returned(farm: Farm, event: events.LeasesReturned, now: float) -> list[Instruction]:
    """Take unused leases back, and with them the submit that awaits their pixels; numbers that the client
    does not hold are passed over."""
    awaited = farm.awaited.get(event.client)
    done = give_up(farm, awaited) if awaited and set(event.leases) & set(farm.pending[awaited].slots) else []
    for number in event.leases:
        slot = farm.slots.held_by(event.client, number)
        if slot:
            farm.slots.release(slot)
    return done


def client_gone(farm: Farm, event: events.ClientGone, now: float) -> list[Instruction]:
    """Free what a connection held; its accepted jobs go on."""
    awaited = farm.awaited.get(event.client)
    done = give_up(farm, awaited) if awaited else []
    farm.slots.drop_client(event.client, now + QUARANTINE_S if event.may_write else None)
    farm.waiters = [waiter for waiter in farm.waiters if waiter.client != event.client]
    return done


def give_up(farm: Farm, job_id: str) -> list[Instruction]:
    """Undo what was done for a submit that comes to nothing."""
    pending = farm.pending.pop(job_id)
    del farm.requests[pending.submit.request_id]
    farm.taken.difference_update(filenames.collision_key(path) for path in pending.paths)
    if pending.awaited:
        del farm.awaited[pending.client]
        for number in pending.slots:
            farm.slots.stop_awaiting(farm.slots[number])
        return []
    for number, entry in zip(pending.slots, pending.submit.entries, strict=True):
        for _ in range(entry.batch):
            farm.slots.done_with(number)
    spools = dict.fromkeys(image.spool for image in pending.job.images if image.spool) if pending.job else {}
    return list(map(Forget, spools))
