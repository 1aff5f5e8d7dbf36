"""The memory of the arena: there before a lease needs it, and given back when none does."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.slots import Slot, Slots
from luna_farm.errors import ArenaError
from luna_farm.storage.arena import Arena
from luna_farm.supervisor.arena_memory import IDLE_S, MOST_AHEAD_BYTES, STEP_BYTES, ArenaMemory

MIB = 1 << 20
SIZE, FIRST = 256 * MIB, 6 * MIB


class Made(Arena):
    """An arena of which only the bookkeeping is there: its memory ends at `room`."""

    def __init__(self, room: int = SIZE) -> None:
        self.room, self.there = room, FIRST
        self.wanted_by_gpu = False

    @property
    def reserved(self) -> int:
        return self.there

    @property
    def claimed(self) -> bool:
        return self.wanted_by_gpu

    def reserve(self, end: int) -> None:
        if min(end, SIZE) > self.room:
            raise ArenaError("No space left on device.")
        self.there = max(self.there, min(end, SIZE))

    def give_back(self, end: int) -> None:
        if not self.wanted_by_gpu:
            self.there = min(self.there, end)


class World:
    def __init__(self, room: int = SIZE) -> None:
        self.time = 0.0
        self.arena = Made(room)
        self.slots = Slots(SIZE)
        self.memory = ArenaMemory(self.arena, self.slots, lambda: self.time)

    def passes(self, seconds: float) -> None:
        """Ticks come four times a second."""
        for _ in range(int(seconds * 4)):
            self.time += 0.25
            self.memory.tick()
            assert self.slots.top <= self.slots.reserved == self.arena.reserved

    def lease(self, *sizes: int) -> list[Slot]:
        granted = self.slots.lease(1, sizes)
        assert granted is not None
        return granted

    def free(self, slots: list[Slot]) -> None:
        for slot in slots:
            self.slots.release(slot)


def test_an_idle_farm_keeps_what_it_began_with() -> None:
    world = World()
    world.passes(3 * IDLE_S)
    assert world.slots.reserved == FIRST


def test_it_grows_for_a_lease_and_ahead_of_the_next_and_shrinks_after_a_minute() -> None:
    world = World()
    slots = world.lease(50 * MIB)
    assert world.slots.reserved == 52 * MIB, "at once, in whole steps"
    world.passes(2)
    assert world.slots.reserved == 76 * MIB, "half as much again, before a lease asks"
    world.free(slots)
    world.passes(IDLE_S - 3)
    assert world.slots.reserved == 76 * MIB
    world.passes(IDLE_S / 2)
    assert world.slots.reserved == FIRST


def test_a_burst_between_two_ticks_counts_as_use() -> None:
    world = World()
    for _ in range(int(3 * IDLE_S)):
        world.free(world.lease(50 * MIB))
        world.passes(1)
        assert world.slots.reserved >= 50 * MIB, "it is not reserved anew for each burst"


def test_what_is_in_use_is_never_given_back() -> None:
    world = World()
    low, high = world.lease(20 * MIB, 20 * MIB)
    world.free([low])
    world.passes(5 * IDLE_S)
    assert world.slots.reserved >= 40 * MIB
    world.free([high])
    world.passes(2 * IDLE_S)
    assert world.slots.reserved == FIRST


def test_the_most_that_is_reserved_ahead_is_bounded() -> None:
    world = World()
    world.lease(180 * MIB)
    world.passes(2)
    assert world.slots.reserved <= 180 * MIB + MOST_AHEAD_BYTES


def test_a_system_without_memory_means_busy_and_is_told_until_it_is_over() -> None:
    world = World(room=20 * MIB)
    assert world.slots.lease(1, (30 * MIB,)) is None
    assert "No space left" in world.memory.problem
    assert world.slots.used_bytes == 0
    slots = world.lease(18 * MIB)
    assert world.memory.problem == ""
    world.passes(2)
    assert world.slots.reserved == 20 * MIB
    world.arena.room = SIZE
    world.free([*slots, *world.lease(30 * MIB)])
    assert world.memory.problem == ""
    world.passes(2 * IDLE_S)
    assert world.slots.reserved == FIRST


def test_a_client_with_a_gpu_gets_all_of_it_for_good() -> None:
    world = World()
    world.arena.wanted_by_gpu = True
    world.passes(3)
    assert world.slots.reserved == SIZE
    world.passes(3 * IDLE_S)
    assert world.slots.reserved == SIZE


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 90), st.booleans()), max_size=40))
def test_no_slot_ever_lies_where_no_memory_is(steps: list[tuple[int, int, bool]]) -> None:
    world = World(room=200 * MIB)
    held: list[list[Slot]] = []
    for size, seconds, lease in steps:
        if lease:
            granted = world.slots.lease(1, (size * MIB, size * 1000))
            held += [granted] if granted else []
        elif held:
            world.free(held.pop(size % len(held)))
        for slots in held:
            assert all(slot.offset + slot.size <= world.arena.reserved for slot in slots)
        world.passes(seconds)


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena.create(f"shm:luna-{secrets.token_hex(8)}", SIZE, FIRST)
    yield made
    made.unlink()
    made.close()


def test_with_a_real_arena(arena: Arena) -> None:
    clock = [0.0]
    slots = Slots(SIZE)
    memory = ArenaMemory(arena, slots, lambda: clock[0])
    (slot,) = slots.lease(1, (10 * MIB,)) or []
    arena.view(slot.offset, slot.size)[:] = bytes(slot.size)
    assert arena.reserved >= 10 * MIB
    slots.release(slot)
    for clock[0] in range(0, 200, 10):
        memory.tick()
    assert arena.reserved <= FIRST + STEP_BYTES
