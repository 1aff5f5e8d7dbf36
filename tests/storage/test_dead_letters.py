"""Dead letters: set aside whole, opened by numpy, found again, bounded."""

from __future__ import annotations

import errno
import io
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm import system
from luna_farm.errors import DiskError, InvalidRequest, UnknownJob
from luna_farm.storage.dead_letters import DeadLetters, npy_header

JOB = {"output_dir": "/out", "prompt": '{"a": 1}', "filename": "\ud83d odd"}
PIXELS = memoryview(bytes(number % 251 for number in range(4 * 5 * 3)))


def _task(job_id: str = "a1b2", index: int = 0) -> dict[str, Any]:
    return {"job_id": job_id, "index": index, "height": 4, "width": 5, "channels": 3, "path": "/out/a.png"}


def test_numpy_opens_the_pixels_and_the_request_comes_back(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead")
    path = letters.put(JOB, _task(), PIXELS, "killed its worker three times")
    (letter,) = letters.letters()
    assert (letter.id, letter.job_id, letter.index, letter.bytes, letter.path) == (
        "a1b2-0",
        "a1b2",
        0,
        60,
        path,
    )
    assert letter.reason == "killed its worker three times"
    pixels = np.load(letter.pixels_path)
    assert (pixels.shape, pixels.dtype, pixels.tobytes()) == ((4, 5, 3), np.uint8, bytes(PIXELS))
    assert letters.load("a1b2-0") == (JOB, _task())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize("frames", [1, 2])
def test_numpy_opens_pixels_of_any_depth_and_moving_images(tmp_path: Path, dtype: str, frames: int) -> None:
    shape = (4, 5, 3) if frames == 1 else (frames, 4, 5, 3)
    pixels = np.arange(60 * frames).reshape(shape).astype(dtype)
    letters = DeadLetters(tmp_path / "dead")
    view = memoryview(pixels.tobytes())
    letters.put(JOB, {**_task(), "dtype": dtype, "frames": frames}, view, "no worker could save it")
    assert np.array_equal(np.load(letters.letters()[0].pixels_path), pixels)
    (found,) = DeadLetters(tmp_path / "dead").letters()
    assert found.bytes == pixels.nbytes


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4).map(tuple))
def test_the_header_is_what_numpy_writes(shape: tuple[int, ...]) -> None:
    own = io.BytesIO()
    np.lib.format.write_array_header_1_0(own, {"descr": "|u1", "fortran_order": False, "shape": shape})
    given_back = np.lib.format.read_array_header_1_0
    ours = io.BytesIO(npy_header(shape))
    assert len(ours.getvalue()) % 64 == 0
    ours.seek(8)
    own.seek(8)
    assert given_back(ours) == given_back(own) == (shape, False, np.dtype("uint8"))


def test_the_next_supervisor_finds_them(tmp_path: Path) -> None:
    DeadLetters(tmp_path).put(JOB, _task(index=1), PIXELS, "no")
    DeadLetters(tmp_path).put(JOB, _task(index=0), PIXELS, "no")
    letters = DeadLetters(tmp_path)
    assert sorted(letter.id for letter in letters.letters()) == ["a1b2-0", "a1b2-1"]


def test_a_removed_letter_leaves_no_file(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.put(JOB, _task(), PIXELS, "no")
    assert (letters.remove("a1b2-0"), letters.remove("a1b2-0")) == (True, False)
    assert (letters.letters(), os.listdir(tmp_path)) == ([], [])


def test_the_same_image_again_replaces_its_letter(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, max_letters=1)
    letters.put(JOB, _task(), PIXELS, "first")
    letters.put(JOB, _task(), PIXELS, "second")
    assert [letter.reason for letter in DeadLetters(tmp_path).letters()] == ["second"]


@pytest.mark.parametrize("bounds", [{"max_letters": 1}, {"max_bytes": 119}])
def test_at_the_bound_the_caller_is_told_and_no_letter_is_dropped(
    tmp_path: Path, bounds: dict[str, int]
) -> None:
    letters = DeadLetters(tmp_path, **bounds)
    letters.put(JOB, _task("a"), PIXELS, "no")
    with pytest.raises(
        DiskError, match=r"holds 1 dead letters of 60 bytes; allowed:.*luna-farm retry"
    ) as caught:
        letters.put(JOB, _task("b"), PIXELS, "no")
    assert caught.value.errno == errno.EDQUOT
    assert sorted(os.listdir(tmp_path)) == ["a-0.json", "a-0.npy"]


def test_what_is_not_there_is_an_unknown_job(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    with pytest.raises(UnknownJob, match="no dead letter 'x-0'"):
        letters.load("x-0")


def test_an_id_that_could_leave_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="job_id"):
        DeadLetters(tmp_path).put(JOB, _task("../x"), PIXELS, "no")


def test_pixels_of_another_size_than_the_task_says_are_a_bug_of_the_farm(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="60 bytes of pixels"):
        DeadLetters(tmp_path).put(JOB, {**_task(), "height": 9}, PIXELS, "no")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"\xff\xff", b'{"job": 1, "task": {}}'])
def test_a_damaged_request_is_no_letter_and_stays_where_it_is(tmp_path: Path, damage: bytes) -> None:
    letters = DeadLetters(tmp_path)
    letters.put(JOB, _task(), PIXELS, "no")
    (tmp_path / "a1b2-0.json").write_bytes(damage)
    assert DeadLetters(tmp_path).letters() == []
    assert (tmp_path / "a1b2-0.json").exists()


def test_a_request_that_became_unreadable_meanwhile_is_a_disk_error(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.put(JOB, _task(), PIXELS, "no")
    (tmp_path / "a1b2-0.json").write_bytes(b"{}")
    with pytest.raises(DiskError, match="is damaged"):
        letters.load("a1b2-0")
    (tmp_path / "a1b2-0.json").unlink()
    with pytest.raises(DiskError, match="Cannot read the dead letter"):
        letters.load("a1b2-0")


def test_a_disk_that_fails_leaves_no_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    letters = DeadLetters(tmp_path)
    monkeypatch.setattr(system, "sync_data", full)
    with pytest.raises(DiskError, match="ENOSPC"):
        letters.put(JOB, _task(), PIXELS, "no")
    assert (letters.letters(), os.listdir(tmp_path)) == ([], [])


def test_a_folder_that_cannot_be_made_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="open the folder"):
        DeadLetters(tmp_path / "file" / "dead")


def test_a_kill_between_the_two_files_leaves_no_letter_and_the_next_try_makes_it(
    tmp_path: Path, python: Any
) -> None:
    code = """
import sys
from luna_farm.storage.dead_letters import DeadLetters
task = {"job_id": "a", "index": 0, "height": 1, "width": 2, "channels": 3}
DeadLetters(sys.argv[1]).put({}, task, memoryview(b"abcdef"), "no")
assert "numpy" not in sys.modules
"""
    killed = python(code, str(tmp_path), LUNA_FARM_CRASH="dead_letter.pixels_written")
    assert killed.returncode == -signal.SIGKILL
    assert DeadLetters(tmp_path).letters() == []
    assert (python(code, str(tmp_path)).returncode, len(DeadLetters(tmp_path).letters())) == (0, 1)
