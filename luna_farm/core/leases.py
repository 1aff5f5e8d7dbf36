"""Leases: which client may write where. The lease is the backpressure: no queue of pixels exists.

Decides, as `farm.handle` documents; acts on nothing. A slot that a client may still be writing into is never
free.
"""

from __future__ import annotations

from typing import Any

from luna_farm.core import events
from luna_farm.core.held import relieve
from luna_farm.core.instructions import CreateSegment, Forget, Instruction, Reply
from luna_farm.core.protocol import refusal
from luna_farm.core.slots import Slot
from luna_farm.core.state import Farm
from luna_farm.errors import FarmBusy, FarmDraining, FarmError, TooLarge

QUARANTINE_S = 10.0
"""How long the slots of a lost connection rest while its process may still be writing into them."""
SPARE_SHARE = 0.25
"""Share of the arena that prefetched leases (granted with a receipt) may hold."""
MAX_LEASES = 1024
"""Leases that one connection may hold."""
CHANNELS = 4


def busy(farm: Farm, what: str, least_s: float = 0.02) -> FarmBusy:
    """The refusal at a bound, with the queue depth and a hint when to come again, in `least_s` or later."""
    per_image_s = 0.02
    if farm.paused:
        what += ", and it is paused (`luna-farm resume`)"
    hint = min(2.0, max(least_s, per_image_s * farm.depth / max(1, len(farm.alive()))))
    return FarmBusy(
        f"The farm is busy: {what}. {farm.depth} images are queued; try again in {hint:.2f} s.",
        farm.depth,
        hint,
    )


def grant(farm: Farm, slots: list[Slot]) -> list[dict[str, Any]]:
    """What a client learns about its leases."""
    return [
        {"lease": s.number, "segment": s.segment or farm.segment, "offset": s.offset, "size": s.size}
        for s in slots
    ]


def lease_requested(farm: Farm, event: events.LeaseRequested, now: float) -> list[Instruction]:
    """Grant slots, all or none. A single image larger than the arena gets a segment of its own."""
    if farm.draining:
        error: FarmError = FarmDraining("The farm is stopping and takes nothing new.")
    elif len(event.sizes) == 1 and not farm.slots.fits(event.sizes):
        return _own_segment(farm, event)
    elif not farm.slots.fits(event.sizes):
        error = TooLarge.of(
            "sizes",
            sum(event.sizes),
            f"at most {farm.slots.size:,} bytes together, the size of the arena (setting arena_bytes)",
        )
    elif farm.slots.leases_of(event.client) + len(event.sizes) > MAX_LEASES:
        error = TooLarge.of(
            "sizes",
            len(event.sizes),
            f"at most {MAX_LEASES} leases at a time, and this connection holds "
            f"{farm.slots.leases_of(event.client)}; give back (release) what is not used",
        )
    else:
        slots = farm.slots.lease(event.client, event.sizes)
        if slots is not None:
            return [Reply(event.client, event.reply, {"leases": grant(farm, slots)})]
        farm.pressed = True
        error = busy(
            farm, f"{farm.slots.used_bytes:,} of {farm.slots.size:,} bytes of its shared memory are in use"
        )
    return [Reply(event.client, event.reply, refusal(error)), *(relieve(farm, now) if farm.pressed else [])]


def _own_segment(farm: Farm, event: events.LeaseRequested) -> list[Instruction]:
    (size,) = event.sizes
    most = farm.limits.max_pixels * CHANNELS
    if size > most:
        allowed = (
            f"at most {most:,} bytes an image, {CHANNELS} for each of max_pixels (setting max_pixels),"
            " or save_here, without the farm"
        )
        error: FarmError = TooLarge.of("sizes", size, allowed)
    elif farm.slots.own_bytes + sum(farm.creating.values()) + size > most:
        error = busy(farm, f"images larger than its arena hold {farm.slots.own_bytes:,} bytes")
    else:
        farm.creating[event.client, event.reply] = size
        return [CreateSegment(event.client, event.reply, size)]
    return [Reply(event.client, event.reply, refusal(error))]


def segment_created(farm: Farm, event: events.SegmentCreated, now: float) -> list[Instruction]:
    """The segment is there, or its disk has no room for it."""
    if farm.creating.pop((event.client, event.reply), None) is None:  # its client has left
        return [Forget(event.segment)] if event.segment else []
    if event.error is not None:
        error = busy(farm, f"an image larger than its arena has no room ({event.error})")
        return [Reply(event.client, event.reply, refusal(error))]
    slot = farm.slots.add(event.client, event.segment, event.size)
    return [Reply(event.client, event.reply, {"leases": grant(farm, [slot])})]


def prefetched(farm: Farm, client: int, want: tuple[int, ...]) -> list[dict[str, Any]]:
    """Leases for the next submit of a client, while the arena has room for such. What rests counts, too: of a
    program that drops its connections these may be prefetched ones, a new one with each image."""
    held = farm.slots.leased_bytes + farm.slots.resting_bytes
    room = held + sum(want) <= farm.slots.size * SPARE_SHARE
    if not want or farm.draining or not room or farm.slots.leases_of(client) + len(want) > MAX_LEASES:
        return []
    return grant(farm, farm.slots.lease(client, want) or [])


def leases_returned(farm: Farm, event: events.LeasesReturned, now: float) -> list[Instruction]:
    """Take unused leases back; numbers that the client does not hold are passed over."""
    for number in event.leases:
        slot = farm.slots.held_by(event.client, number)
        if slot:
            farm.slots.release(slot)
    return []
