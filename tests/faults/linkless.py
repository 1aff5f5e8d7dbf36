"""A FUSE file system that has no hard links: python linkless.py BACKING MOUNT ERRNO_FILE

Everything is passed on to the folder BACKING, but operations fail as ERRNO_FILE says: "link 1,rename 5" names
each with its error, and `link` always fails. "rename_over" is a rename to a name that exists. Which libfuse
serves it is the choice of FUSE_LIBRARY_PATH: with libfuse 2 a rename that must not replace is refused, too.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

import mfusepy


class Linkless(mfusepy.Operations):
    """Passes calls on to a folder."""

    use_ns = True  # the time of modification is part of a file's identity

    def __init__(self, backing: str, errno_file: str) -> None:
        self._backing = backing
        self._errno_file = errno_file

    def _at(self, path: str) -> str:
        return self._backing + path

    def _refuse(self, operation: str) -> None:
        """Fail as the file says."""
        with open(self._errno_file, encoding="ascii") as file:
            errors = dict(pair.split() for pair in file.read().split(","))
        if operation in errors:
            raise mfusepy.FuseOSError(int(errors[operation]) or errno.ENOSYS)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at(path))
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino")
        times = ("st_atime", "st_mtime", "st_ctime")
        return {
            **{name: getattr(status, name) for name in names},
            **{name: getattr(status, f"{name}_ns") for name in times},
        }

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, Any], int]]:
        for name in (".", "..", *os.listdir(self._at(path))):
            yield name, self.getattr(f"{path}/{name}"), 0

    def mkdir(self, path: str, mode: int) -> int:
        self._refuse("mkdir")
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._refuse("create")
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~(os.O_CREAT | os.O_EXCL))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._refuse("write")
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._refuse("fsync")
        os.fsync(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._refuse("fsyncdir")
        return 0

    def flush(self, path: str, fh: int) -> int:
        self._refuse("flush")
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        self._refuse("rename")
        if os.path.lexists(self._at(new)):
            self._refuse("rename_over")
        os.rename(self._at(old), self._at(new))
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._refuse("utimens")
        os.utime(self._at(path), ns=times)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._backing)
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "frsize", "namemax")
        return {f"f_{name}": getattr(found, f"f_{name}") for name in names}

    def link(self, target: str, source: str) -> int:
        self._refuse("link")
        raise mfusepy.FuseOSError(errno.EPERM)


if __name__ == "__main__":
    backing, mount, errno_file = sys.argv[1:]
    mfusepy.FUSE(Linkless(backing, errno_file), mount, foreground=True, nothreads=True, use_ino=True)
