"""Memory mapped from a POSIX shared memory object or from a file, behind one small interface.

The only user of `multiprocessing.shared_memory`, whose habits are dangerous here: its resource tracker
unlinks the segment when any process that attached exits (Python 3.10 to 3.12 cannot be told not to,
cpython#82300), and a failed attach unlinks the segment outright (cpython#153279). This module must never
register anything with that tracker and never unlink what it did not create in the same call.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker, shared_memory
from typing import Protocol

if sys.platform != "win32":
    import _posixshmem  # type: ignore[import-not-found]  # what the stdlib itself calls; no stubs

_MADV_POPULATE_WRITE = 23  # Linux 5.14 and later; `mmap` has no name for it
_FILL_BYTES = 1 << 20
_NO_RESERVATION = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class Mapping(Protocol):
    """Bytes shared with other processes."""

    def view(self) -> memoryview:
        """Return all of them, writable; at least as many as asked for, at most rounded up to whole pages."""

    def populate(self, start: int, size: int) -> bool:
        """Map the pages of a range now (`start` on a page); False where that cannot be asked for."""

    def reserve(self, start: int, size: int) -> None:
        """Take the room of a range, for the process that made it. Raises OSError; the range may be there in
        part then."""

    def give_back(self, start: int, size: int) -> bool:
        """Return the memory of a range (both on pages) to the system: it reads as zeros from then on. False
        where that is not possible."""

    def close(self) -> None:
        """Let go; slices of `view` still in use keep the memory until they go too. Safe to call twice."""


class SharedMapping(shared_memory.SharedMemory):
    """A shared memory object that no resource tracker knows, so that it survives its creator."""

    _fd: int
    _buf: memoryview | None
    _mmap: mmap.mmap | None

    def __init__(self, name: str, size: int | None, reserved: int | None = None) -> None:
        """Create it with `size` bytes, the first `reserved` of them reserved (default: all), or, if `size` is
        None, attach to it. Raises OSError, ValueError."""
        self._may_unlink = size is not None
        if sys.version_info >= (3, 13):
            super().__init__(name, create=size is not None, size=size or 0, track=False)
        else:
            with _untracked():
                super().__init__(name, create=size is not None, size=size or 0)
        if sys.platform == "win32":
            return
        try:
            if size is not None:
                _reserve(self._fd, 0, size if reserved is None else reserved, fill=False)
        except BaseException:
            self.unlink()
            self.close()
            raise
        self._may_unlink = False
        if size is None:
            os.close(self._fd)  # the mmap holds a descriptor of its own, and descriptors can be scarce
            self._fd = -1

    def view(self) -> memoryview:
        """Return the mapped bytes."""
        assert self.buf is not None, "a mapping is not looked at after its close()"
        return self.buf

    def populate(self, start: int, size: int) -> bool:
        """Map pages for writing. Linux only: macOS and Windows map each page at the first write to it."""
        memory = self.view().obj
        if sys.platform != "linux" or not isinstance(memory, mmap.mmap):
            return False
        try:
            memory.madvise(_MADV_POPULATE_WRITE, start, size)
        except OSError:  # an older kernel says EINVAL; all that is missing then is speed
            return False
        return True

    def reserve(self, start: int, size: int) -> None:
        """Take the room of a range. Windows and macOS: nothing to do, memory itself is the bound there."""
        if self._fd >= 0:
            _reserve(self._fd, start, size, fill=False)

    def give_back(self, start: int, size: int) -> bool:
        """Return the memory of a range. Linux only: elsewhere it stays until the segment goes."""
        return _remove_pages(self.view().obj, start, size)

    def close(self) -> None:
        """Let go. While views are in use the stdlib raises BufferError and keeps everything; here the last of
        them frees the memory, and nothing is printed at exit."""
        try:
            super().close()
        except BufferError:
            self._buf = None
            self._mmap = None
            super().close()

    def unlink(self) -> None:
        """Undo a creation that failed. The stdlib calls this after a failed attach too: it does nothing
        then."""
        if self._may_unlink:
            unlink_shared(self.name)


class FileMapping:
    """A file mapped into memory: what stands in for shared memory where there is none, or too little."""

    def __init__(self, path: str, size: int | None, reserved: int | None = None) -> None:
        """Create the file (mode 0600) with `size` bytes, the first `reserved` of them on disk (default: all),
        or, if `size` is None, attach to it. Raises OSError, ValueError. Nothing is left behind when the disk
        is full."""
        flags = (
            os.O_RDWR
            | getattr(os, "O_CLOEXEC", 0)
            | getattr(os, "O_NOFOLLOW", 0)
            | getattr(os, "O_BINARY", 0)
        )
        fd = os.open(path, flags if size is None else flags | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if size is not None:
                os.ftruncate(fd, size)
                _reserve(fd, 0, size if reserved is None else reserved, fill=True)
            elif not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            self._mmap: mmap.mmap | None = mmap.mmap(fd, size or os.fstat(fd).st_size)
            self._view: memoryview | None = memoryview(self._mmap)
        except BaseException:
            os.close(fd)
            if size is not None:
                os.unlink(path)
            raise
        self._fd = fd
        if size is None:
            self._close_file()

    def _close_file(self) -> None:
        """Close the descriptor: the mmap holds one of its own."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def view(self) -> memoryview:
        """Return the mapped bytes."""
        assert self._view is not None, "a mapping is not looked at after its close()"
        return self._view

    def populate(self, start: int, size: int) -> bool:
        """Do nothing: populating for writing would mark every page as changed and send it to the disk."""
        return False

    def reserve(self, start: int, size: int) -> None:
        """Take the room of a range on the disk."""
        if self._fd >= 0:
            _reserve(self._fd, start, size, fill=True)

    def give_back(self, start: int, size: int) -> bool:
        """Return the room of a range to the disk. Linux only, and only where the file system can."""
        return _remove_pages(self._mmap, start, size)

    def close(self) -> None:
        """Let go; views in use keep the mapping until they go."""
        self._view = None
        self._mmap = None
        self._close_file()


def unlink_shared(name: str) -> None:
    """Remove the name of a shared memory object, whatever it holds. Raises FileNotFoundError. Windows:
    nothing to do, the memory goes with its last handle."""
    if sys.platform != "win32":
        _posixshmem.shm_unlink(f"/{name}")


@contextmanager
def _untracked() -> Iterator[None]:
    """Keep this thread's registrations away from the resource tracker; those of other threads pass."""
    me = threading.get_ident()

    def register(name: str, rtype: str) -> None:
        if threading.get_ident() != me:
            real(name, rtype)

    with _patching:
        real = resource_tracker.register
        resource_tracker.register = register  # type: ignore[assignment]
        try:
            yield
        finally:
            resource_tracker.register = real


_patching = threading.Lock()


def _remove_pages(memory: object, start: int, size: int) -> bool:
    """Take pages out of the object behind a mapping, and out of every process that has mapped them."""
    if sys.platform != "linux" or not isinstance(memory, mmap.mmap):
        return False
    try:
        memory.madvise(mmap.MADV_REMOVE, start, size)
    except OSError:
        return False
    return True


def _reserve(fd: int, start: int, size: int, fill: bool) -> None:
    """Take the room for `size` bytes from `start` now, so that no write can meet a full file system (SIGBUS)
    later.

    Raises OSError (ENOSPC). macOS and Windows have no posix_fallocate: a file is filled with zeros instead;
    shared memory needs nothing there, its bound is memory and not a file system.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, start, size)
        except OSError as error:
            if error.errno not in _NO_RESERVATION or not fill:
                raise
        else:
            return
    if fill:
        zeros = bytes(_FILL_BYTES)
        os.lseek(fd, start, os.SEEK_SET)
        left = size
        while left > 0:
            left -= os.write(fd, zeros[:left])
