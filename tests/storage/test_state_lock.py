"""The lock of the state folder: a second supervisor is refused, a dead one holds nothing."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from plain_process import start_python

from luna_farm.errors import AlreadyRunning, DiskError
from luna_farm.storage import state_lock
from luna_farm.storage.state_lock import StateLock, lock_holder


def test_a_second_supervisor_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = StateLock.acquire(tmp_path / "lock")
    with pytest.raises(
        AlreadyRunning, match=rf"already runs on .*{tmp_path.name}: process {os.getpid()}"
    ) as caught:
        StateLock.acquire(tmp_path / "lock")
    assert caught.value.pid == lock_holder(tmp_path / "lock") == os.getpid()
    first.release()
    first.release()
    assert lock_holder(tmp_path / "lock") is None
    StateLock.acquire(tmp_path / "lock").release()


HOLD = """
import sys
from luna_farm.storage.state_lock import StateLock
lock = StateLock.acquire(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_supervisor_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with start_python(HOLD, str(path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert lock_holder(path) == process.pid
        process.send_signal(signal.SIGKILL)
    assert lock_holder(path) is None
    StateLock.acquire(path).release()


def test_a_holder_without_a_readable_pid_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = StateLock.acquire(path)
    path.write_text("not a number")
    with pytest.raises(AlreadyRunning, match="another process holds"):
        StateLock.acquire(path)
    assert lock_holder(path) == 0
    held.release()


def test_a_lock_is_not_inherited_and_is_for_this_user_only(tmp_path: Path) -> None:
    held = StateLock.acquire(tmp_path / "lock")
    assert os.get_inheritable(held._fd) is False
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    held.release()


def test_a_lock_that_cannot_be_made_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="Cannot open the lock file"):
        StateLock.acquire(tmp_path / "none" / "lock")
    assert lock_holder(tmp_path / "none" / "lock") is None


@pytest.mark.parametrize(("number", "held"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_full_disk_does_not_keep_the_farm_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, held: bool
) -> None:
    def fail(fd: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    if held:
        StateLock.acquire(tmp_path / "lock").release()
    else:
        with pytest.raises(DiskError, match="write the pid"):
            StateLock.acquire(tmp_path / "lock")


def test_a_file_system_without_locks_is_a_disk_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(state_lock, "_lock", fail)
    with pytest.raises(DiskError, match="Cannot lock"):
        StateLock.acquire(tmp_path / "lock")
