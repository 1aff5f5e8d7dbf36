"""Page-locking an arena: once, in the background, and never unmapped while it is locked."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

import pytest
from farm_process import until

from luna_farm.storage import arena as arenas
from luna_farm.storage.arena import Arena
from luna_farm_client import mapped
from luna_farm_client.mapped import MappedSegments


class Gpu:
    """Stands for the CUDA driver: notes what was locked and unlocked, in order."""

    def __init__(self, willing: bool = True) -> None:
        self.calls: list[str] = []
        self.done = threading.Event()
        self._willing = willing

    def register(self, view: memoryview) -> bool:
        self.calls.append(f"lock {view.nbytes}")
        self.done.set()
        return self._willing

    def unregister(self, view: memoryview) -> None:
        self.calls.append(f"unlock {view.nbytes}")


def fresh_name() -> str:
    """The name of a segment that no other run on this machine makes."""
    return f"shm:luna-{secrets.token_hex(8)}"


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena.create(fresh_name(), 1 << 16)
    yield made
    made.close()
    arenas.remove(made.name)


def locked(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> MappedSegments:
    monkeypatch.setattr(mapped, "register_cuda", gpu.register)
    monkeypatch.setattr(mapped, "unregister_cuda", gpu.unregister)
    monkeypatch.setattr(mapped, "is_on_gpu", lambda pixels: pixels == "on the GPU")
    return MappedSegments()


def join_page_lock() -> None:
    for thread in threading.enumerate():
        if thread.name == "page-lock":
            thread.join(60)


def test_an_arena_is_locked_once_and_unlocked_before_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, arena: Arena
) -> None:
    gpu = Gpu()
    segments = locked(monkeypatch, gpu)
    attached = segments.arena(arena.name)
    for _ in range(3):
        segments.about_to_fill(attached, "on the GPU")
    assert gpu.done.wait(60)
    join_page_lock()
    segments.close()
    assert gpu.calls == ["lock 65536", "unlock 65536"]


def test_images_in_ordinary_memory_lock_nothing(monkeypatch: pytest.MonkeyPatch, arena: Arena) -> None:
    gpu = Gpu()
    segments = locked(monkeypatch, gpu)
    segments.about_to_fill(segments.arena(arena.name), "on the CPU")
    join_page_lock()
    segments.close()
    assert gpu.calls == []


def test_what_could_not_be_locked_is_not_unlocked_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, arena: Arena
) -> None:
    gpu = Gpu(willing=False)
    segments = locked(monkeypatch, gpu)
    attached = segments.arena(arena.name)
    segments.about_to_fill(attached, "on the GPU")
    assert gpu.done.wait(60)
    join_page_lock()
    segments.about_to_fill(attached, "on the GPU")
    segments.close()
    assert gpu.calls == ["lock 65536"]


def test_memory_is_locked_only_once_all_of_it_is_there_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU writes to a page past the kernel: one that the farm gives back must never be locked."""
    monkeypatch.setattr(mapped, "CLAIM_POLL_S", 0.0)
    owned = Arena.create(fresh_name(), 1 << 20, 1 << 16)
    try:
        gpu = Gpu()
        segments = locked(monkeypatch, gpu)
        attached = segments.arena(owned.name)
        segments.about_to_fill(attached, "on the GPU")
        until(lambda: owned.claimed, "the client asks for all of it")
        assert gpu.calls == []
        owned.reserve(owned.size)
        assert gpu.done.wait(60)
        join_page_lock()
        owned.give_back(0)
        assert owned.reserved == owned.size
        segments.close()
        assert gpu.calls == ["lock 1048576", "unlock 1048576"]
    finally:
        owned.unlink()
        owned.close()


def test_a_farm_without_room_for_all_of_it_is_used_the_slower_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "CLAIM_S", 0.0)
    owned = Arena.create(fresh_name(), 1 << 20, 1 << 16)
    try:
        gpu = Gpu()
        segments = locked(monkeypatch, gpu)
        segments.about_to_fill(segments.arena(owned.name), "on the GPU")
        join_page_lock()
        segments.close()
        assert gpu.calls == []
    finally:
        owned.unlink()
        owned.close()
