"""The lock of the state folder: one supervisor at a time, and the pid of the one that is there.

It must never outlive the process that holds it, however that dies, and never be inherited by a worker.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from luna_farm import system
from luna_farm.errors import AlreadyRunning

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
"""A link under this name is never ours: what it leads to must not be cut to our pid."""
_LOCKED_BYTE = 1 << 30
_PID_BYTES = 32


class StateLock:
    """Held by the one supervisor of a state folder for as long as it lives; the kernel drops it when it dies.

    Linux, macOS: flock of the whole file. Windows: msvcrt.locking of one byte far behind the text, since a
    locked byte cannot be read there and the next supervisor wants to read the pid. The file itself stays:
    unlinking it would let two processes lock two files of one name.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def acquire(cls, path: str | os.PathLike[str]) -> StateLock:
        """Take the lock at `path` (made if missing, mode 0600) and write our pid into it.

        Raises AlreadyRunning, with the pid of the holder, if another process has it; DiskError if the file
        cannot be opened.
        """
        try:
            fd = os.open(path, _FLAGS | os.O_CREAT, 0o600)
        except OSError as error:
            raise system.disk_error("open the lock file", path, error) from error
        try:
            _lock(fd)
        except OSError as error:
            holder = _read_pid(fd)
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise system.disk_error("lock", path, error) from error
            named = f"process {holder}" if holder else "another process"
            raise AlreadyRunning(
                f"A farm already runs on the state folder {Path(path).parent}: {named} holds its lock."
                " Stop it with `luna-farm stop`, or start this one with another --state-dir and port.",
                holder,
            ) from error
        try:
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode("ascii"))
        except OSError as error:  # a full disk: the lock holds all the same, only the pid is missing in it
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                os.close(fd)
                raise system.disk_error("write the pid into", path, error) from error
        return cls(os.fspath(path), fd)

    def in_place(self) -> bool:
        """Whether the locked file still has its name: another supervisor could lock a new one of that
        name."""
        try:
            return os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(self._fd))
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def lock_holder(path: str | os.PathLike[str]) -> int | None:
    """Return the pid that holds the lock at `path` (0: held by an unknown one), None if it is free."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        pid = _read_pid(fd)
        if pid and not system.process_exists(pid):
            return None  # without trying: for that moment a supervisor that starts would be refused
        _lock(fd)
    except OSError:
        return pid
    else:
        return None
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_pid(fd: int) -> int:
    os.lseek(fd, 0, os.SEEK_SET)
    text = os.read(fd, _PID_BYTES).strip()
    return int(text) if text.isdigit() else 0
