"""The spool: whole and on the disk under its name, or not there at all."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from luna_farm import system
from luna_farm.errors import DiskError, InvalidRequest
from luna_farm.storage.arena import Arena, Segments
from luna_farm.storage.spool import Spool


def _pixels(size: int, start: int = 0) -> memoryview:
    return memoryview(bytes((start + number) % 251 for number in range(size)))


def test_spooled_pixels_are_a_segment_like_any_other(tmp_path: Path) -> None:
    pixels = _pixels(4097)
    segment = Spool(tmp_path / "spool").write("a1b2", 3, pixels, {})
    assert segment == f"file:{tmp_path}/spool/a1b2-3.pixels"
    assert Segments().view(segment, 0, 4097) == pixels


def test_folder_and_files_are_for_this_user_only(tmp_path: Path) -> None:
    segment = Spool(tmp_path / "spool").write("a1b2", 0, _pixels(10), {})
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert Path(segment[5:]).stat().st_mode & 0o777 == 0o600


def test_the_same_image_again_replaces_what_a_crash_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write("a1b2", 0, _pixels(10), {})
    segment = spool.write("a1b2", 0, _pixels(20, start=7), {})
    assert bytes(Arena.attach(segment).view(0, 20)) == bytes(_pixels(20, start=7))
    assert spool.segments() == [segment]


def test_a_removed_image_is_gone_and_removing_it_again_is_harmless(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first, second = (spool.write("a1b2", number, _pixels(10), {}) for number in range(2))
    assert spool.segments() == [first, second]
    assert (spool.remove(first), spool.remove(first)) == (True, False)
    assert spool.segments() == [second]


def test_it_removes_nothing_outside_its_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    spool = Spool(tmp_path / "spool")
    for segment in (f"file:{victim}", f"file:{tmp_path}/spool/../victim", "shm:luna-x", ""):
        assert spool.remove(segment) is False
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("job_id", ["", "../x", "a/b", "a\0b", "ä", "x" * 65, "."])
def test_an_id_that_could_leave_the_folder_is_refused(tmp_path: Path, job_id: str) -> None:
    with pytest.raises(InvalidRequest, match="job_id"):
        Spool(tmp_path).write(job_id, 0, _pixels(1), {})


def test_a_sweep_leaves_only_what_unfinished_jobs_need(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    kept, orphan = spool.write("kept", 0, _pixels(10), {}), spool.write("orphan", 0, _pixels(10), {})
    (tmp_path / "half-0.pixels.new").write_bytes(b"half")
    assert spool.sweep({kept}) == 2
    assert spool.segments() == [kept]
    assert orphan != kept


def test_a_disk_that_fails_leaves_nothing_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path)
    monkeypatch.setattr(system, "sync_data", full)
    with pytest.raises(DiskError, match=r"No space left on device \(ENOSPC\)") as caught:
        spool.write("a1b2", 0, _pixels(10), {})
    assert (caught.value.errno, os.listdir(tmp_path)) == (28, [])


def test_a_folder_that_cannot_be_made_or_read_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="make the folder"):
        Spool(tmp_path / "file" / "spool")
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    with pytest.raises(DiskError, match="look into"):
        spool.segments()


WRITE = """
import sys
from luna_farm.storage.spool import Spool
spool = Spool(sys.argv[1])
print(spool.write("old", 0, memoryview(b"x" * 5000), {}))
print(spool.write("new", 0, memoryview(b"y" * 5000), {}))
assert "numpy" not in sys.modules
"""


@pytest.mark.parametrize("point", ["spool.half_written", "spool.written"])
def test_a_kill_in_the_middle_leaves_no_half_image_under_its_name(
    tmp_path: Path, python: Any, point: str
) -> None:
    assert python(WRITE, str(tmp_path), LUNA_FARM_CRASH=f"{point}:2").returncode == -signal.SIGKILL
    spool = Spool(tmp_path)
    assert spool.segments() == [f"file:{tmp_path}/old-0.pixels"]
    assert spool.sweep(spool.segments()) == 1
    ended = python(WRITE, str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_each_image_carries_its_request(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    request = {"job_id": "a1b2", "num_images": 2, "task": {"path": "/out/\udce4.png"}, "options": {}}
    segment = spool.write("a1b2", 0, _pixels(5000), request)
    assert dict(spool.requests()) == {segment: request}
    assert Segments().view(segment, 0, 5000) == _pixels(5000), "the pixels are what they were"


@pytest.mark.parametrize("at", [-1, -10, -15, -25])
def test_a_request_that_is_damaged_is_none(tmp_path: Path, at: int) -> None:
    spool = Spool(tmp_path)
    path = Path(spool.write("a1b2", 0, _pixels(5000), {"job_id": "a1b2"})[5:])
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert [request for _, request in spool.requests()] == [None]


def test_a_file_without_a_request_is_named_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "old-0.pixels").write_bytes(b"as version 0.1 wrote it")
    (tmp_path / "short-0.pixels").write_bytes(b"")
    spool = Spool(tmp_path)
    assert [request for _, request in spool.requests()] == [None, None]
