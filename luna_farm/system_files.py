"""Folders and names as the platforms handle them: opened without following links, renamed without replacing.

The second half of `system.py`, with the same rule: each function says what it does on Linux and what its
counterpart on macOS and Windows is. This module must never import anything of the project.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import sys
from collections.abc import Callable, Sequence

HAS_DIR_FD = {os.open, os.mkdir, os.stat, os.link, os.unlink, os.rename} <= os.supports_dir_fd
"""Whether files can be named relative to an open folder: Linux, macOS. On Windows paths are all there is."""

ROOT_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
"""How a folder is opened that a user named: it may be a link."""

FOLDER_FLAGS = ROOT_FLAGS | getattr(os, "O_NOFOLLOW", 0)
"""How a folder below it is opened."""


WALK_INSTEAD = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN, errno.EINVAL, errno.E2BIG, errno.EXDEV})
"""Errors of openat2 after which each folder is opened by itself. EAGAIN: something was renamed meanwhile.
EPERM: forbidden by a container's filter."""


def open_folder_beneath(root_fd: int, parts: Sequence[str]) -> int:
    """Open the folder `parts` below an open one for reading, such that no part is a symbolic link.

    Linux 5.6: one openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS. Older ones, containers that forbid it
    and macOS: part by part with O_NOFOLLOW. Raises OSError: ELOOP or ENOTDIR for a link, ENOENT if missing.
    """
    if ".." in parts:
        raise OSError(errno.EXDEV, "not below the folder", "/".join(parts))
    openat2 = _openat2()
    if openat2 is not None:
        fd = openat2(root_fd, os.fsencode("/".join(parts)))
        if fd is not None:
            return fd
    fd = root_fd
    for part in parts:
        try:
            child = os.open(part, FOLDER_FLAGS, dir_fd=fd)
        finally:
            if fd != root_fd:
                os.close(fd)
        fd = child
    return fd


@functools.cache
def _openat2() -> Callable[[int, bytes], int | None] | None:
    """Return a caller of openat2 (None from it: not allowed here, walk instead), or None without Linux."""
    if sys.platform != "linux":
        return None
    import ctypes  # only here: the supervisor opens no folders and does not pay for it

    class OpenHow(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))

    # include/uapi/linux/openat2.h: RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH
    how = ctypes.byref(OpenHow(FOLDER_FLAGS, 0, 0x02 | 0x04 | 0x08))
    size = ctypes.c_size_t(24)
    number = ctypes.c_long(437)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long

    def call(root_fd: int, relative: bytes) -> int | None:
        fd: int = syscall(number, ctypes.c_int(root_fd), relative, how, size)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code in WALK_INSTEAD:
            return None
        raise OSError(code, os.strerror(code), os.fsdecode(relative))

    return call


def rename_no_replace(source: str, target: str, dir_fd: int | None) -> None:
    """Rename within one folder, never over an existing file; FileExistsError if there is one.

    Linux: renameat2 with RENAME_NOREPLACE. macOS: renameatx_np with RENAME_EXCL. Windows: os.rename, which
    replaces nothing there. Raises OSError(ENOSYS or EINVAL) where system or file system cannot.
    """
    if sys.platform == "win32":
        os.rename(source, target)
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    name, flag = ("renameatx_np", 0x4) if sys.platform == "darwin" else ("renameat2", 0x1)
    rename = getattr(libc, name, None)  # an older musl has no renameat2
    code = errno.ENOSYS
    if rename is not None and dir_fd is not None:
        if rename(dir_fd, os.fsencode(source), dir_fd, os.fsencode(target), ctypes.c_uint(flag)) == 0:
            return
        code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), source, None, target)


def is_real_folder(status: os.stat_result) -> bool:
    """Whether an lstat is that of a folder itself: no symbolic link and, on Windows, no junction."""
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)
    return stat.S_ISDIR(status.st_mode) and getattr(status, "st_reparse_tag", 0) != junction
