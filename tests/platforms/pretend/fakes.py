"""What Windows and macOS answer to the calls that the project makes, as far as Linux can play it.

Each fake refuses what the platform refuses. What they allow is Linux's own.
"""

from __future__ import annotations

import errno
import os
import sys
import types

# Whatever looks at sys.platform while it is imported has to see Linux.
# isort: off
import asyncio
import multiprocessing.managers
import multiprocessing.popen_spawn_posix
import multiprocessing.resource_tracker
import multiprocessing.shared_memory as shared_memory
import multiprocessing.spawn  # noqa: F401
import asyncio.sslproto  # noqa: F401
import concurrent.futures.thread  # noqa: F401
import ctypes.util  # noqa: F401
import logging.handlers  # noqa: F401
import pathlib
import shutil
import socket
import subprocess
import tempfile  # noqa: F401
import urllib.request  # noqa: F401
import webbrowser  # noqa: F401

import numpy  # noqa: F401
import PIL.Image  # noqa: F401
import platformdirs  # noqa: F401
import psutil
import rich.console  # noqa: F401
import websockets.asyncio.server  # noqa: F401

# isort: on
try:
    import coverage
except ImportError:
    coverage = None

POSIX_NAMES = [
    *("getuid", "geteuid", "getgid", "setuid", "seteuid", "nice", "statvfs", "sched_getaffinity"),
    *("sched_setaffinity", "writev", "posix_fallocate", "register_at_fork", "fdatasync", "fchmod", "fork"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "memfd_create"),
]
MAC_LACKS = ["sched_getaffinity", "sched_setaffinity", "posix_fallocate", "fdatasync", "memfd_create"]
SHARED_NAME_BYTES = 31
F_FULLFSYNC = 51

real = types.SimpleNamespace(
    open=os.open,
    link=os.link,
    rename=os.rename,
    lstat=os.lstat,
    stat=os.stat,
    unlink=os.unlink,
    fsync=os.fsync,
    statvfs=os.statvfs,
)


def apply(platform: str | None) -> None:
    """Answer like `platform` from now on."""
    {"windows": windows, "macos": macos}[str(platform)]()


def windows() -> None:
    """No POSIX calls, no folders as files, no rename over a file, no unlink of a mapped file."""
    import fcntl

    _without_linux_files()
    _ignore_case()
    sys.modules["msvcrt"] = _msvcrt(fcntl)
    sys.modules["fcntl"] = sys.modules["resource"] = sys.modules["_posixshmem"] = None  # type: ignore[assignment]
    for name in POSIX_NAMES:
        if hasattr(os, name):
            delattr(os, name)
    os.O_BINARY = 0  # type: ignore[attr-defined]
    os.supports_dir_fd = set()
    unix, pair = socket.AF_UNIX, socket.socketpair
    socket.socketpair = lambda *_, **__: pair(unix)  # Windows makes one of two TCP sockets
    for name in ("AF_UNIX", "AF_NETLINK"):
        if hasattr(socket, name):
            delattr(socket, name)
    open_before, rename_before = os.open, os.rename

    def open_(path, flags, mode=0o777, *, dir_fd=None):
        assert dir_fd is None, "Windows has no files relative to an open folder"
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied: a folder", path)
        return open_before(path, flags, mode)

    def rename(source, target, *, src_dir_fd=None, dst_dir_fd=None):
        assert src_dir_fd is None, "Windows has no files relative to an open folder"
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "File exists", source, None, target)
        rename_before(source, target)

    def unlink(path, *, dir_fd=None):
        assert dir_fd is None, "Windows has no files relative to an open folder"
        if _mapped(os.path.realpath(path)):
            raise PermissionError(errno.EACCES, "The process cannot access the file: it is in use", path)
        real.unlink(path)

    os.open, os.rename, os.unlink = open_, rename, unlink
    os.remove = unlink
    psutil.BELOW_NORMAL_PRIORITY_CLASS = 10
    psutil.Process.num_handles = psutil.Process.num_fds
    subprocess.DETACHED_PROCESS = subprocess.CREATE_NEW_PROCESS_GROUP = 0

    def disk_usage(path):
        found = real.statvfs(path)
        total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        return types.SimpleNamespace(total=total, used=total - free, free=free)

    shutil.disk_usage = disk_usage

    def no_shared_memory(*_, **__):
        raise AssertionError("On Windows shared memory goes with its last handle: the farm must not use it.")

    shared_memory.SharedMemory.__init__ = no_shared_memory
    sys.platform = "win32"


def macos() -> None:
    """No /proc and no /dev/shm, short names of shared memory, its own way to flush a disk."""
    import _posixshmem
    import fcntl

    _without_linux_files()
    _ignore_case()
    for name in MAC_LACKS:
        if hasattr(os, name):
            delattr(os, name)
    if hasattr(socket, "AF_NETLINK"):
        del socket.AF_NETLINK
    shm_open, call = _posixshmem.shm_open, fcntl.fcntl

    def short_open(path, flags, mode=0o777):
        if len(os.fsencode(path)) > SHARED_NAME_BYTES:
            raise OSError(errno.ENAMETOOLONG, "File name too long", path)
        return shm_open(path, flags, mode)

    def full_sync(fd, command, argument=0):
        return real.fsync(fd) or 0 if command == F_FULLFSYNC else call(fd, command, argument)

    shared_memory._posixshmem.shm_open = short_open
    fcntl.F_FULLFSYNC, fcntl.fcntl = F_FULLFSYNC, full_sync
    sys.platform = "darwin"


def _msvcrt(fcntl):
    module = types.ModuleType("msvcrt")
    module.LK_NBLCK, module.LK_UNLCK = 2, 0

    def locking(fd, mode, nbytes):
        try:
            fcntl.flock(fd, fcntl.LOCK_UN if mode == 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    module.locking = locking
    return module


def _mapped(path: str) -> bool:
    """Whether a process of this user has mapped a file."""
    if not path.rpartition("/")[2].startswith("arena"):
        return False
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines:
                    if any(line.rstrip().endswith(path) for line in lines):
                        return True
            except OSError:
                continue
    return False


def _without_linux_files() -> None:
    """Hide /proc and /dev/shm from pathlib and os.path, which the project looks there with."""
    isdir, exists = os.path.isdir, os.path.exists
    hidden = ("/proc", "/dev/shm", "/sys")

    def is_hidden(path):
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(hidden)

    os.path.isdir = lambda path: not is_hidden(path) and isdir(path)
    os.path.exists = lambda path: not is_hidden(path) and exists(path)
    for name in ("read_text", "read_bytes", "open", "stat"):
        before = getattr(pathlib.Path, name)

        def refuse(self, *args, before=before, **options):
            if is_hidden(self):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))
            return before(self, *args, **options)

        setattr(pathlib.Path, name, refuse)


def _ignore_case() -> None:
    """Find files by a name of another case, as NTFS and APFS do."""

    def found(path, dir_fd):
        try:
            (real.lstat(path) if dir_fd is None else real.stat(path, dir_fd=dir_fd, follow_symlinks=False))
        except FileNotFoundError:
            folder, name = os.path.split(os.fspath(path))
            try:
                names = os.listdir(dir_fd if dir_fd is not None and not folder else folder or ".")
            except OSError:
                return path
            if isinstance(name, bytes):
                return path
            same = next((other for other in names if other.lower() == name.lower()), name)
            return os.path.join(folder, same)
        except (OSError, ValueError):
            return path
        return path

    def open_(path, flags, mode=0o777, *, dir_fd=None):
        return real.open(found(path, dir_fd), flags, mode, dir_fd=dir_fd)

    def link(source, target, *, src_dir_fd=None, dst_dir_fd=None, follow_symlinks=True):
        real.link(
            source,
            found(target, dst_dir_fd),
            src_dir_fd=src_dir_fd,
            dst_dir_fd=dst_dir_fd,
            follow_symlinks=follow_symlinks,
        )

    def rename(source, target, *, src_dir_fd=None, dst_dir_fd=None):
        real.rename(source, found(target, dst_dir_fd), src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def lstat(path, *, dir_fd=None):
        return real.lstat(found(path, dir_fd), dir_fd=dir_fd)

    os.open, os.link, os.rename, os.lstat = open_, link, rename, lstat
    os.supports_dir_fd = os.supports_dir_fd | {open_, link, rename, lstat}
