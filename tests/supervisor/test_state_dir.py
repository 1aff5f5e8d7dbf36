"""The state folder: nothing is written through what another user put there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from luna_farm.errors import DiskError
from luna_farm.supervisor import state_dir

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="NOT TESTED: another user's files need root"
)
STRANGER = 65534


def start(state: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "luna_farm", "start", "--port", "0", "--feed-port", "off"]
    return subprocess.run(
        [*command, "--state-dir", str(state), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_root
@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_folder_that_another_user_made_is_refused_and_nothing_in_it_is_touched(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    state, target = tmp_path / "state", tmp_path / "precious"
    target.write_text("of root")
    state.mkdir(mode=0o755)
    for name in ("lock", "luna-farm.log", "start.log", "token"):
        (state / name).symlink_to(target)
    os.chown(state, STRANGER, STRANGER)
    done = start(state, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"{state} belongs to user {STRANGER}" in done.stderr
    assert target.read_text() == "of root"
    assert sorted(path.name for path in state.iterdir()) == ["lock", "luna-farm.log", "start.log", "token"]


@pytest.mark.parametrize(
    "name", ["lock", "luna-farm.log", "start.log", "token", "endpoint.json", "journal", "arena", "spool"]
)
def test_a_link_in_a_folder_of_ours_is_refused_and_not_followed(name: str, tmp_path: Path) -> None:
    state, target = tmp_path / "state", tmp_path / "precious"
    target.write_text("mine")
    state.mkdir(mode=0o755)
    (state / name).symlink_to(target)
    with pytest.raises(DiskError, match=f"{name} is a symbolic link.*remove it"):
        state_dir.prepare(state)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("name", sorted(state_dir.FILES | state_dir.FOLDERS))
def test_something_of_another_kind_under_a_name_of_the_farm_is_named(name: str, tmp_path: Path) -> None:
    """A pipe would keep the start waiting for ever, a folder under the log's name would leave no log."""
    state = tmp_path / "state"
    state.mkdir()
    if name in state_dir.FILES:
        os.mkfifo(state / name) if hasattr(os, "mkfifo") else (state / name).mkdir()
    else:
        (state / name).touch()
    with pytest.raises(DiskError, match=f"{name} is no (file|folder).*remove it"):
        state_dir.prepare(state)


def test_a_state_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    done = start(tmp_path / "state")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"The state folder {tmp_path / 'state'} is no folder. Choose another one (--state-dir).\n"
    )


@needs_root
def test_a_file_of_another_user_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    os.chown(tmp_path / "journal", STRANGER, STRANGER)
    with pytest.raises(DiskError, match=f"journal belongs to user {STRANGER}"):
        state_dir.secure(tmp_path)


@needs_root
def test_a_link_of_another_user_to_a_folder_of_ours_is_refused(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    state_dir.secure(link)  # our own link is what we wanted
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(DiskError, match=f"belongs to user {STRANGER}"):
        state_dir.secure(link)


def test_a_folder_that_is_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    state_dir.prepare(tmp_path / "new").release()
    state_dir.secure(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path, tmp_path / "new")] == [0o700, 0o700]


def test_what_is_left_is_a_sentence_until_it_is_taken_up(tmp_path: Path) -> None:
    assert state_dir.read_left(tmp_path) == ""
    state_dir.write_left(tmp_path, 14, [f"job{n}" for n in range(5)], ["/out"])
    text = state_dir.read_left(tmp_path)
    jobs = "jobs job0, job1, job2 and 2 more for folder /out"
    assert text.startswith(f"14 images are accepted and not written yet, of {jobs}.")
    assert "luna-farm start" in text
    state_dir.write_left(tmp_path, 1, ["job0"], ["/out"])
    assert state_dir.read_left(tmp_path).startswith("1 image is accepted and not written yet, of job job0")
    state_dir.forget_left(tmp_path)
    state_dir.forget_left(tmp_path)
    assert state_dir.read_left(tmp_path) == ""
    (tmp_path / state_dir.LEFT).write_text('{"images": "many"}')
    assert state_dir.read_left(tmp_path) == ""
