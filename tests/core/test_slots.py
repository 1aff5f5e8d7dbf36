"""Slots never overlap, are never lost, and are granted all or none."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.slots import ALIGN, TRANSITIONS, Slot, Slots, SlotState

PAGE = ALIGN


def test_slots_start_on_pages_and_are_counted_in_whole_pages() -> None:
    slots = Slots(10 * PAGE)
    first, second = slots.lease(1, (1, PAGE + 1)) or []
    assert (first.offset, first.size) == (0, PAGE)
    assert (second.offset, second.size) == (PAGE, 2 * PAGE)
    assert slots.used_bytes == slots.leased_bytes == 3 * PAGE
    assert len(slots) == 2
    assert slots[first.number] is first


def test_a_lease_of_nothing_still_has_a_page() -> None:
    (slot,) = Slots(PAGE).lease(1, (0,)) or []
    assert slot.size == PAGE


def test_all_or_none() -> None:
    slots = Slots(4 * PAGE)
    assert slots.lease(1, (3 * PAGE, 2 * PAGE)) is None
    assert slots.used_bytes == 0
    assert slots.lease(1, (4 * PAGE,)) is not None


def test_what_no_gap_can_hold_is_refused_and_nothing_stays_taken() -> None:
    slots = Slots(6 * PAGE)
    a, b, c, d, e, f = slots.lease(1, (PAGE,) * 6) or []
    for slot in (a, c, e):
        slots.release(slot)
    assert slots.lease(1, (PAGE, 2 * PAGE)) is None, "three pages are free, but none side by side"
    assert slots.used_bytes == 3 * PAGE
    slots.release(b)
    assert slots.lease(1, (3 * PAGE,)) is not None, "neighbours that are free are one gap"
    assert slots.lease(1, (PAGE,)) is not None, "the gap behind it is left"
    assert slots[d.number] is d
    assert slots[f.number] is f


def test_what_can_never_be_granted_is_known_by_whole_pages() -> None:
    slots = Slots(4 * PAGE)
    assert slots.fits((4 * PAGE,))
    assert slots.fits((PAGE, 3 * PAGE))
    assert not slots.fits((1, 4 * PAGE - 1)), "together no more than the arena, but five pages"
    assert not slots.fits((4 * PAGE + 1,))


def test_an_arena_of_nothing_grants_nothing() -> None:
    assert Slots(0).lease(1, (1,)) is None


def test_above_the_high_mark_it_pauses_until_below_the_low_one() -> None:
    slots = Slots(100 * PAGE, high=0.9, low=0.5)
    held = slots.lease(1, (PAGE,) * 90) or []
    assert slots.lease(2, (PAGE,)) is None
    for slot in held[:39]:
        slots.release(slot)
    assert slots.lease(2, (PAGE,)) is None, "51 pages are in use: still paused"
    slots.release(held[39])
    assert slots.lease(2, (PAGE,)) is not None


def test_a_refusal_of_something_large_does_not_pause_an_arena_that_is_mostly_free() -> None:
    slots = Slots(100 * PAGE, low=0.5)
    slots.lease(1, (40 * PAGE,))
    assert slots.lease(1, (70 * PAGE,)) is None
    assert slots.lease(1, (PAGE,)) is not None


def test_a_lease_is_held_by_its_client_only_and_only_until_it_is_sealed() -> None:
    slots = Slots(4 * PAGE)
    (slot,) = slots.lease(1, (PAGE,)) or []
    assert slots.held_by(1, slot.number) is slot
    assert slots.held_by(2, slot.number) is None
    assert slots.held_by(1, 99) is None
    slots.seal(slot, 1)
    assert slots.held_by(1, slot.number) is None


def test_the_last_image_of_a_batch_frees_its_slot() -> None:
    slots = Slots(4 * PAGE)
    (slot,) = slots.lease(1, (PAGE,)) or []
    slots.seal(slot, 2)
    assert slots.leased_bytes == 0
    slots.done_with(slot.number)
    assert slots.used_bytes == PAGE
    slots.done_with(slot.number)
    assert slots.used_bytes == 0
    assert len(slots) == 0


def test_the_leases_of_a_client_that_is_gone_are_free_at_once() -> None:
    slots = Slots(4 * PAGE)
    sealed, _ = slots.lease(1, (PAGE, PAGE)) or []
    (other,) = slots.lease(2, (PAGE,)) or []
    slots.seal(sealed, 1)
    slots.drop_client(1, None)
    assert slots.used_bytes == 2 * PAGE, "what is sealed belongs to its images"
    assert slots.held_by(2, other.number) is other


def test_what_a_client_may_still_be_writing_into_rests_first() -> None:
    slots = Slots(PAGE)
    (slot,) = slots.lease(1, (PAGE,)) or []
    slots.drop_client(1, 20.0)
    assert slot.state is SlotState.QUARANTINED
    assert slots.held_by(1, slot.number) is None
    assert slots.leased_bytes == 0
    slots.expire(19.9)
    assert slots.lease(2, (PAGE,)) is None
    slots.expire(20.0)
    assert slots.lease(2, (PAGE,)) is not None


@pytest.mark.parametrize("start", SlotState)
@pytest.mark.parametrize("to", SlotState)
def test_only_what_the_table_lists_may_happen_to_a_slot(start: SlotState, to: SlotState) -> None:
    slot = Slot(3, 0, PAGE, 1, state=start)
    if to in TRANSITIONS[start]:
        slot.move(to)
        assert slot.state is to
    else:
        with pytest.raises(AssertionError, match=f"slot 3 cannot go from {start.value} to {to.value}"):
            slot.move(to)


def overlaps(slots: list[Slot]) -> bool:
    """Whether two slots share a byte."""
    ordered = sorted(slots, key=lambda s: s.offset)
    return any(a.offset + a.size > b.offset for a, b in itertools.pairwise(ordered))


@given(
    st.lists(
        st.tuples(st.sampled_from(("lease", "fill", "done", "gone", "expire")), st.integers(0, 11)),
        max_size=60,
    )
)
def test_whatever_happens_no_two_slots_share_a_byte_and_all_comes_back(steps: list[tuple[str, int]]) -> None:
    slots = Slots(12 * PAGE)
    living: dict[int, Slot] = {}
    now = 0.0
    for step, n in steps:
        leased = [s for s in living.values() if s.state is SlotState.FILLING]
        sealed = [s for s in living.values() if s.state is SlotState.SEALED]
        if step == "lease":
            for slot in slots.lease(n % 3, (PAGE * (n + 1) // 2, PAGE)) or []:
                living[slot.number] = slot
        elif step == "fill" and leased:
            slots.seal(leased[n % len(leased)], 1 + n % 2)
        elif step == "done" and sealed:
            slots.done_with(sealed[n % len(sealed)].number)
        elif step == "gone":
            slots.drop_client(n % 3, now + n if n % 2 else None)
        elif step == "expire":
            now += n
            slots.expire(now)
        living = {number: slot for number, slot in living.items() if slot.state is not SlotState.FREE}
        assert not overlaps(list(living.values()))
        assert slots.used_bytes == sum(s.size for s in living.values())
        assert slots.leased_bytes == sum(s.size for s in living.values() if s.state is SlotState.FILLING)
    for client in range(3):
        slots.drop_client(client, None)
    slots.expire(1e9)
    for slot in [s for s in living.values() if s.state is SlotState.SEALED]:
        for _ in range(slot.users):
            slots.done_with(slot.number)
    assert slots.used_bytes == slots.leased_bytes == len(slots) == 0
    assert slots.lease(1, (12 * PAGE,)) is not None, "the free bytes are one piece again"


def test_the_top_of_a_full_arena_is_its_size() -> None:
    slots = Slots(2 * PAGE)
    assert slots.top == 0
    slots.lease(1, (2 * PAGE,))
    assert slots.top == 2 * PAGE
