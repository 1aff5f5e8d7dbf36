"""The arena: what one process puts there another reads, and nobody destroys it by dying, attaching or
failing."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.errors import ArenaError
from luna_farm.storage import arena, mapping
from luna_farm.storage.arena import HEADER_BYTES, Arena, Segments

MIB = 1 << 20


@pytest.fixture(params=["shm", "file"])
def name(request: pytest.FixtureRequest, segment: str, tmp_path: Path) -> str:
    """A segment of either kind."""
    return segment if request.param == "shm" else f"file:{tmp_path / 'segment'}"


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    """A segment of 100 bytes."""
    return Arena.create(f"file:{tmp_path_factory.mktemp('arena') / 'segment'}", 100)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_written_here_is_read_by_another_attachment(name: str) -> None:
    made = Arena.create(name, 5000)
    made.view(4990, 10)[:] = b"0123456789"
    seen = Arena.attach(name)
    assert bytes(seen.view(4990, 10)) == b"0123456789"
    assert (seen.size, seen.uuid, seen.name, seen.header) == (5000, made.uuid, name, made.header)
    assert seen.header.owner_pid == os.getpid()


def test_a_new_segment_holds_zeros(name: str) -> None:
    assert not any(Arena.create(name, 70_000).view(0, 70_000))


def test_each_segment_has_an_identity_of_its_own(name: str) -> None:
    first = Arena.create(name, 1)
    first.unlink()
    assert Arena.create(name, 1).uuid != first.uuid


@given(offset=st.integers(-10, 110), size=st.integers(-10, 110))
@settings(max_examples=60)
def test_a_view_lies_inside_or_is_refused(hundred: Arena, offset: int, size: int) -> None:
    if min(offset, size) >= 0 and offset + size <= 100:
        assert hundred.view(offset, size).nbytes == size
    else:
        with pytest.raises(ArenaError, match=r"do not lie in 0 to 100"):
            hundred.view(offset, size)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        "shm:",
        "shm:a/b",
        "shm:../x",
        "shm:" + "a" * 31,
        "shm:ä",
        "file:",
        "file:relative",
        "file:/a\0b",
        "tcp:x",
    ],
)
def test_a_name_that_is_none_is_refused_with_what_is_allowed(bad: str) -> None:
    for action in (Arena.attach, arena.remove, lambda name: Arena.create(name, 1)):
        with pytest.raises(ArenaError, match="allowed: shm: and up to 30"):
            action(bad)


def test_a_size_below_one_is_refused(name: str) -> None:
    with pytest.raises(ArenaError, match=r"0 bytes is not allowed"):
        Arena.create(name, 0)


def test_a_segment_is_never_made_twice_and_the_first_stays(name: str) -> None:
    made = Arena.create(name, 10)
    with pytest.raises(ArenaError, match="exists already"):
        Arena.create(name, 10)
    assert Arena.attach(name).uuid == made.uuid


def test_attaching_to_nothing_says_that_it_is_gone(name: str) -> None:
    with pytest.raises(ArenaError, match="is gone"):
        Arena.attach(name)
    assert arena.remove(name) is False


def test_who_attached_cannot_unlink_but_the_creator_can(name: str) -> None:
    made = Arena.create(name, 10)
    with pytest.raises(ArenaError, match=f"belongs to process {os.getpid()}"):
        Arena.attach(name).unlink()
    made.unlink()
    with pytest.raises(ArenaError, match="is gone"):
        Arena.attach(name)


def test_views_outlive_close_and_the_memory_goes_with_the_last(name: str) -> None:
    made = Arena.create(name, 100)
    view = made.view(0, 100)
    made.close()
    made.close()
    view[:3] = b"abc"
    assert bytes(Arena.attach(name).view(0, 3)) == b"abc"
    with pytest.raises(ArenaError, match="is closed"):
        made.view(0, 1)
    mapped = Path("/proc/self/maps")
    del view, made
    gc.collect()
    assert name[5:] not in mapped.read_text()


def test_one_attachment_costs_one_descriptor_and_close_gives_it_back(name: str) -> None:
    before = _descriptors()
    made = Arena.create(name, 100)
    assert _descriptors() == before + 2, "the owner has one more, by which it grows"
    attached = Arena.attach(name)
    assert _descriptors() == before + 3
    attached.close()
    made.close()
    del made, attached
    gc.collect()
    assert _descriptors() == before


def _there(name: str) -> int:
    """Bytes of memory or disk that a segment takes."""
    kind, _, rest = name.partition(":")
    return os.stat(f"/dev/shm/{rest}" if kind == "shm" else rest).st_blocks * 512


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: what a segment takes is asked of Linux")
def test_memory_is_taken_as_it_is_needed_and_given_back(name: str) -> None:
    made = Arena.create(name, 64 * MIB, MIB)
    seen = Arena.attach(name)
    assert (made.size, made.reserved, seen.reserved) == (64 * MIB, MIB, MIB)
    assert _there(name) < 2 * MIB
    made.reserve(8 * MIB)
    made.reserve(4 * MIB)
    assert (made.reserved, seen.reserved) == (8 * MIB, 8 * MIB)
    assert 8 * MIB <= _there(name) < 9 * MIB
    seen.view(0, 8 * MIB)[:] = b"x" * (8 * MIB)
    made.give_back(2 * MIB)
    assert made.reserved == seen.reserved == 2 * MIB
    assert _there(name) < 3 * MIB
    assert bytes(seen.view(2 * MIB - 1, 2)) == b"x\0", "what was kept is as it was, the rest is gone for all"
    made.give_back(3 * MIB)
    assert made.reserved == 2 * MIB
    made.reserve(1 << 40)
    assert made.reserved == 64 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory is given back on Linux only")
def test_what_a_client_has_claimed_stays(name: str) -> None:
    made = Arena.create(name, 4 * MIB)
    seen = Arena.attach(name)
    assert not made.claimed
    seen.claim()
    assert made.claimed
    made.give_back(MIB)
    assert made.reserved == 4 * MIB
    assert _there(name) >= 4 * MIB


def test_where_nothing_can_be_given_back_all_of_it_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "_remove_pages", lambda *_: False)
    made = Arena.create(name, 4 * MIB)
    made.give_back(MIB)
    assert made.reserved == 4 * MIB


def test_no_room_to_grow_is_an_error_and_costs_nothing_that_was_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Arena.create(name, 4 * MIB, MIB)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapping, "_reserve", full)
    with pytest.raises(ArenaError, match=r"reserve 1\.0 MiB more"):
        made.reserve(2 * MIB)
    assert made.reserved == MIB


def _damage(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_every_damaged_byte_of_the_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    Arena.create(f"file:{path}", 10)
    whole = path.read_bytes()
    length = len(Arena.attach(f"file:{path}").header.pack())
    for at in range(length):
        _damage(path, at, bytes([whole[at] ^ 0x40]))
        with pytest.raises(ArenaError, match="its header does not check"):
            Arena.attach(f"file:{path}")
        _damage(path, at, whole[at : at + 1])
    assert Arena.attach(f"file:{path}").size == 10


def test_a_segment_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"file:{tmp_path / 'segment'}"
    with monkeypatch.context() as patch:
        patch.setattr(arena, "FORMAT_VERSION", 99)
        Arena.create(name, 10)
    with pytest.raises(ArenaError, match="has format 99, this program reads 1"):
        Arena.attach(name)


@pytest.mark.parametrize("left", [0, 1, 50, HEADER_BYTES, HEADER_BYTES + 9_999])
def test_a_segment_cut_short_is_refused_before_anyone_reads_behind_its_end(tmp_path: Path, left: int) -> None:
    path = tmp_path / "segment"
    Arena.create(f"file:{path}", 10_000).close()
    os.truncate(path, left)
    with pytest.raises(ArenaError):
        Arena.attach(f"file:{path}")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(bytes(8192))
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "link", tmp_path / "pipe", tmp_path / "real"):
        with pytest.raises(ArenaError):
            Arena.attach(f"file:{path}")


def test_files_are_for_this_user_only(tmp_path: Path) -> None:
    Arena.create(f"file:{tmp_path / 'segment'}", 10)
    assert (tmp_path / "segment").stat().st_mode & 0o777 == 0o600


def test_warming_changes_no_byte_and_is_refused_nowhere(name: str) -> None:
    made = Arena.create(name, 3 * MIB)
    made.view(MIB, 4)[:] = b"kept"
    made.warm()
    made.warm(offset=MIB + 1, size=10)
    assert bytes(made.view(MIB, 4)) == b"kept"
    assert not any(made.view(0, MIB))


def test_a_kernel_without_populate_is_no_error(segment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "_MADV_POPULATE_WRITE", 9999)
    Arena.create(segment, MIB).warm()


def test_the_cache_attaches_once_and_again_after_forgetting(name: str) -> None:
    made = Arena.create(name, 100)
    made.view(0, 3)[:] = b"abc"
    segments = Segments()
    assert bytes(segments.view(name, 0, 3)) == b"abc"
    first = segments.arena(name)
    assert segments.arena(name) is first
    segments.forget(name)
    segments.forget(name)
    assert segments.arena(name) is not first
    segments.close()


def test_the_cache_takes_in_what_this_process_made(name: str) -> None:
    made = Arena.create(name, 10)
    segments = Segments()
    segments.add(made)
    assert segments.arena(name) is made


def test_the_cache_is_bounded_and_a_view_of_what_it_closed_stays_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "MAX_ATTACHED", 2)
    names = [f"file:{tmp_path / str(number)}" for number in range(4)]
    for number, each in enumerate(names):
        Arena.create(each, 10).view(0, 1)[:] = bytes([number])
    segments = Segments()
    views = [segments.view(each, 0, 1) for each in names]
    assert [view[0] for view in views] == [0, 1, 2, 3]
    assert len(segments._arenas) == 2


def test_what_this_process_made_stays_open_however_many_it_attaches(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "MAX_ATTACHED", 2)
    segments, made = Segments(), Arena.create(name, 10)
    segments.add(made)
    for number in range(4):
        Arena.create(f"file:{tmp_path / str(number)}", 10).close()
        segments.view(f"file:{tmp_path / str(number)}", 0, 1)
    assert made.reserved == 10
    assert segments.arena(name) is made
    assert len(segments._arenas) == 2


def test_the_tracker_hears_of_other_threads_but_not_of_us(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(resource_tracker, "register", lambda name, rtype: heard.append(name))
    with mapping._untracked():
        resource_tracker.register("ours", "shared_memory")
        other = threading.Thread(target=lambda: resource_tracker.register("theirs", "shared_memory"))
        other.start()
        other.join()
    resource_tracker.register("after", "shared_memory")
    assert heard == ["theirs", "after"]


ATTACH = """
import sys
from luna_farm.storage.arena import Arena
from multiprocessing import resource_tracker
seen = Arena.attach(sys.argv[1])
seen.view(0, 3)[:] = b"new"
kept = seen.view(0, 10)
assert resource_tracker._resource_tracker._pid is None, "a resource tracker was started"
"""


def test_a_plain_process_that_attached_and_exits_leaves_the_segment_and_prints_nothing(
    name: str, python: Any
) -> None:
    made = Arena.create(name, 100)
    for _ in range(2):
        ended = python(ATTACH, name)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert bytes(Arena.attach(name).view(0, 3)) == b"new"
    assert made.uuid == Arena.attach(name).uuid


def test_a_creator_that_is_killed_leaves_the_segment(name: str, python: Any) -> None:
    code = """
import os, signal, sys
from luna_farm.storage.arena import Arena
made = Arena.create(sys.argv[1], 100)
made.view(0, 5)[:] = b"saved"
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, name).returncode == -signal.SIGKILL
    found = Arena.attach(name)
    assert bytes(found.view(0, 5)) == b"saved"
    assert found.header.owner_pid != os.getpid()


def test_a_process_too_starved_to_attach_does_not_destroy_the_segment(name: str, python: Any) -> None:
    made = Arena.create(name, 256 * MIB)
    code = """
import resource, sys
from luna_farm.errors import ArenaError
from luna_farm.storage.arena import Arena
resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
try:
    Arena.attach(sys.argv[1])
except ArenaError as error:
    assert "Cannot attach" in str(error), error
else:
    raise AssertionError("attached")
"""
    ended = python(code, name)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Arena.attach(name).uuid == made.uuid


FULL = """
import os, sys
from luna_farm.errors import ArenaError
from luna_farm.storage.arena import Arena
made = Arena.create("shm:luna-fits", 3 << 20)
try:
    Arena.create("shm:luna-large", int(sys.argv[1]) << 20)
except ArenaError as error:
    assert "No space left" in str(error) and "ENOSPC" in str(error), error
else:
    raise AssertionError("a segment larger than its file system was made")
assert os.listdir("/dev/shm") == ["luna-fits"], os.listdir("/dev/shm")
made.view(0, made.size)[:] = b"x" * made.size
"""


@pytest.mark.parametrize("mebibytes", [8, 64])
def test_a_small_shm_gives_an_error_at_once_never_sigbus_later(
    python: Any, small_shm: Any, mebibytes: int
) -> None:
    ended = python(FULL, str(mebibytes), before=small_shm(mebibytes))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_file_that_does_not_fit_leaves_nothing_behind(python: Any, small_shm: Any) -> None:
    code = FULL.replace("shm:luna-", "file:/dev/shm/luna-")
    ended = python(code, "8", before=small_shm(8))
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has no limit on the size of files")
def test_a_creation_that_fails_in_the_middle_leaves_nothing_behind(name: str, python: Any) -> None:
    code = """
import resource, sys
from luna_farm.errors import ArenaError
from luna_farm.storage.arena import Arena
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    Arena.create(sys.argv[1], 2 << 20)
except ArenaError as error:
    assert "Cannot reserve 2.0 MiB" in str(error), error
else:
    raise AssertionError("created")
try:
    Arena.attach(sys.argv[1])
except ArenaError as error:
    assert "is gone" in str(error), error
"""
    ended = python(code, name)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_without_reservation_a_file_is_filled_with_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    path = tmp_path / "segment"
    Arena.create(f"file:{path}", 3 * MIB + 7)
    assert path.stat().st_blocks * 512 >= 3 * MIB
    monkeypatch.delattr(os, "posix_fallocate")
    Arena.create(f"file:{path}2", 3 * MIB + 7)
    assert Path(f"{path}2").stat().st_blocks * 512 >= 3 * MIB


def test_what_the_system_will_not_remove_is_an_arena_error(tmp_path: Path) -> None:
    with pytest.raises(ArenaError, match=f"Cannot remove file:{tmp_path}"):
        arena.remove(f"file:{tmp_path}")
