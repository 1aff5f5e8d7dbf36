"""Where the arena lies: as asked, or the best this machine has, and found again after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luna_farm import system
from luna_farm.errors import ArenaError, DiskError
from luna_farm.storage import arena, arena_size
from luna_farm.storage.arena import Arena

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A state folder; what its note names is gone after the test."""
    yield tmp_path
    for name in arena_size.noted(tmp_path):
        arena.remove(name)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int | None], None]:
    """`machine(memory, free)`: how much memory there is, and how much is free in shared memory (None: no such
    bound)."""

    def pretend(memory: int, free: int | None) -> None:
        monkeypatch.setattr(system, "memory_bytes", lambda: memory)
        monkeypatch.setattr(system, "shm_bytes", lambda: None if free is None else (free, 2 * free))

    return pretend


@pytest.mark.parametrize(
    ("memory", "free", "expected"),
    [
        (4 * GIB, 4 * GIB, GIB // 2),
        (64 * GIB, 64 * GIB, GIB),
        (64 * GIB, None, GIB),
        (64 * MIB, 64 * MIB, 16 * MIB),
        (64 * GIB, 64 * MIB, int(51.2 * MIB)),
        (64 * GIB, 8 * MIB, int(6.4 * MIB)),
    ],
)
def test_the_default_is_a_share_of_memory_within_bounds(
    machine: Any, memory: int, free: int | None, expected: int
) -> None:
    machine(memory, free)
    assert min(arena_size._share_of_memory(), arena_size._shm_room()) == expected


def test_what_is_asked_for_is_made_without_a_word(folder: Path) -> None:
    made, warnings = arena_size.establish(MIB, folder)
    assert (folder / arena_size.NOTE).stat().st_mode & 0o777 == 0o600
    assert (made.size, warnings, made.name[:9]) == (MIB, [], "shm:luna-")


def test_too_little_shared_memory_gives_a_smaller_arena_and_says_so(folder: Path, machine: Any) -> None:
    machine(64 * GIB, 40 * MIB)
    made, warnings = arena_size.establish(100 * MIB, folder)
    assert (made.name[:4], made.size) == ("shm:", 32 * MIB)
    assert warnings == [
        "Shared memory has no room for 100.0 MiB, the arena has 32.0 MiB: it can give 32.0 MiB."
    ]


def test_a_tiny_shared_memory_gives_a_file_in_the_state_folder_and_says_so(
    folder: Path, machine: Any
) -> None:
    machine(GIB, 8 * MIB)
    made, warnings = arena_size.establish(0, folder)
    assert (made.name[:5], made.size) == ("file:", GIB // 8)
    assert Path(made.name[5:]).parent == folder
    assert "no room for an arena of 16.0 MiB" in warnings[0]
    assert "luna-farm doctor" in warnings[1]


def test_a_refusal_by_the_system_is_met_with_half_as_much(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Arena.create

    def refuse(name: str, size: int, reserved: int) -> Arena:
        if size > 20 * MIB:
            raise ArenaError("No space left on device.")
        return create(name, size, reserved)

    monkeypatch.setattr(Arena, "create", refuse)
    made, warnings = arena_size.establish(64 * MIB, folder)
    assert (made.name[:4], made.size) == ("shm:", 16 * MIB)
    assert "No space left on device." in warnings[0]


def test_no_room_anywhere_is_an_error_that_names_both_places(
    folder: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(GIB, MIB)
    monkeypatch.setattr(system, "disk_bytes", lambda path: (MIB, GIB))
    with pytest.raises(ArenaError, match=r"Shared memory .*The disk of .*make room"):
        arena_size.establish(0, folder)


def test_the_arena_of_a_killed_supervisor_is_removed_at_the_next_start(folder: Path) -> None:
    old, _ = arena_size.establish(MIB, folder)
    new, _ = arena_size.establish(MIB, folder)
    assert old.name != new.name
    with pytest.raises(ArenaError, match="is gone"):
        Arena.attach(old.name)


def test_a_damaged_note_names_nothing_and_removes_nothing(folder: Path) -> None:
    victim = folder / "victim"
    victim.write_text("mine")
    noise = bytes(range(256)) + f"\nfile:{victim}\nfile:{folder}/arena-/../victim\nshm:\n".encode()
    (folder / arena_size.NOTE).write_bytes(noise)
    made, _ = arena_size.establish(MIB, folder)
    made.close()
    assert victim.read_text() == "mine"


SMALL = """
import os, sys
from luna_farm.storage import arena_size
made, warnings = arena_size.establish(60 << 20, sys.argv[1])
made.view(0, made.size)[:] = b"x" * made.size
print(made.name.partition(":")[0], made.size, len(warnings))
made.unlink()
assert os.listdir("/dev/shm") == []
"""


@pytest.mark.parametrize(("mebibytes", "kind"), [(8, "file"), (64, "shm")])
def test_a_real_small_shm_is_used_as_far_as_it_goes(
    python: Any, small_shm: Any, tmp_path: Path, mebibytes: int, kind: str
) -> None:
    ended = python(SMALL, str(tmp_path), before=small_shm(mebibytes))
    assert ended.stderr == ""
    made, size, warnings = ended.stdout.split()
    assert (made, int(warnings) > 0) == (kind, True)
    assert int(size) >= 16 * MIB


def test_an_arena_that_unfinished_jobs_need_stays_until_a_start_without_them(folder: Path) -> None:
    old, _ = arena_size.establish(MIB, folder)
    old.view(0, 4)[:] = b"kept"
    arena_size.establish(MIB, folder, keep={old.name, "file:/spool/of/a/durable.pixels"})
    assert bytes(Arena.attach(old.name).view(0, 4)) == b"kept"
    arena_size.establish(MIB, folder)
    with pytest.raises(ArenaError, match="is gone"):
        Arena.attach(old.name)


def test_a_note_that_cannot_be_written_is_a_disk_error_and_no_arena_is_made(tmp_path: Path) -> None:
    (tmp_path / arena_size.NOTE).mkdir()
    with pytest.raises(DiskError, match="Cannot write"):
        arena_size.establish(MIB, tmp_path)
