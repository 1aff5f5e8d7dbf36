"""An open folder below the output folder, in which files are made, named and removed without following a
link, unless the administrator has allowed that (`storage/allowed.py`).

On Linux and macOS everything happens relative to a descriptor that was reached without a link, so that
folders may be swapped for links meanwhile and nothing lands outside. Windows has no such calls: each part
of the path is looked at and paths are used, which leaves an instant in between (see docs/names.md). This
module must never keep a folder open between two files: what its path leads to may change.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from types import TracebackType

from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.system import sync_folder, sync_open_folder
from luna_farm.system_files import (
    FOLDER_FLAGS,
    HAS_DIR_FD,
    ROOT_FLAGS,
    is_real_folder,
    open_folder_beneath,
    rename_no_replace,
)

_CREATE = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip
_APPEND = (_CREATE & ~(os.O_EXCL | os.O_WRONLY)) | os.O_RDWR
_READ = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip
_UNNAMED = getattr(os, "O_TMPFILE", 0)
_OPEN_FILES = "/proc/self/fd" if os.path.isdir("/proc/self/fd") and sys.platform == "linux" else ""


class Folder:
    """Made by `Folder.open`, closed by `with`. All names are single parts; all methods raise OSError."""

    def __init__(self, path: str, fd: int | None) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def open(
        cls,
        output_dir: str,
        parts: Sequence[str],
        *,
        create: bool,
        sync: bool,
        allowed: Allowed = ANYWHERE,
    ) -> Folder:
        """Open `parts` below `output_dir`, which itself may be a link; with `create`, make what is missing.

        `sync`: a folder made here is on disk before this returns. `allowed`: whether parts may be links, and
        to where. Raises OSError: ELOOP or ENOTDIR for a link that may not be followed, EACCES for one that
        leads out of the allowed folders.
        """
        path = os.path.join(output_dir, *parts, "")
        try:
            root = os.open(output_dir, ROOT_FLAGS) if HAS_DIR_FD else None
        except FileNotFoundError:
            if not create:
                raise
            _make_root(output_dir, sync)
            root = os.open(output_dir, ROOT_FLAGS)
        if root is None:
            _make_path(output_dir, parts, create, allowed)
            return cls(path, None)
        if not parts:
            return cls(path, root)
        try:
            if allowed.follow_links:
                return cls(
                    path, _walk(root, parts, create, sync, lambda at: _follow(output_dir, at, allowed))
                )
            return cls(path, open_folder_beneath(root, parts))
        except FileNotFoundError:
            if not create:
                raise
            return cls(path, _walk(root, parts, create, sync))
        finally:
            os.close(root)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def _at(self, name: str) -> str:
        return name if self._fd is not None else self.path + name

    def create(self, name: str) -> int:
        """Create a file that must not exist and return its descriptor for writing. The umask decides the
        mode."""
        return os.open(self._at(name), _CREATE, 0o666, dir_fd=self._fd)

    def open_file(self, name: str) -> int:
        """Open a file for reading and writing, made if it is missing; return its descriptor."""
        return os.open(self._at(name), _APPEND, 0o666, dir_fd=self._fd)

    def open_existing(self, name: str) -> int:
        """Open what has the name for reading, unless it is a link, and return its descriptor. A pipe does not
        block."""
        return os.open(self._at(name), _READ, dir_fd=self._fd)

    def real(self) -> str:
        """Return the path of the folder that is open, without links."""
        if self._fd is None or not _OPEN_FILES:
            return os.path.realpath(self.path)
        return os.readlink(f"{_OPEN_FILES}/{self._fd}")

    def create_unnamed(self) -> int:
        """Create a file without a name, which `link` gives one, and return its descriptor for writing.

        Nothing is left of it if this process dies. Linux, on most file systems of its own; elsewhere OSError.
        """
        if not _UNNAMED or not _OPEN_FILES or self._fd is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), self.path)
        return os.open(".", os.O_WRONLY | _UNNAMED | getattr(os, "O_CLOEXEC", 0), 0o666, dir_fd=self._fd)

    @cached_property
    def device(self) -> int:
        """The number of the file system that the folder is on."""
        return os.stat(self.path if self._fd is None else self._fd).st_dev

    def stat(self, name: str) -> os.stat_result | None:
        """Return the status of what has the name (of a link itself, not its target), or None."""
        try:
            return os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_file(self, name: str, fd: int) -> bool:
        """Whether the name is one of the open file `fd`."""
        status = self.stat(name)
        return status is not None and os.path.samestat(status, os.fstat(fd))

    def named(self, inode: int) -> list[str]:
        """Return the names in the folder of the file with this inode number."""
        with os.scandir(self.path if self._fd is None else self._fd) as entries:
            return [entry.name for entry in entries if entry.inode() == inode]

    def link(self, fd: int, source: str, target: str) -> None:
        """Give the open file `fd`, whose temporary name is `source`, a name that must not exist.

        Where the system has names for open files (Linux), `source` is not even looked at: if another process
        has put a file of its own there, that one is not published. Raises FileNotFoundError then.
        """
        if _OPEN_FILES:
            os.link(f"{_OPEN_FILES}/{fd}", target, dst_dir_fd=self._fd, follow_symlinks=True)
        else:
            os.link(self._at(source), self._at(target), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def rename(self, source: str, target: str) -> None:
        """Rename to a name that must not exist."""
        rename_no_replace(self._at(source), self._at(target), self._fd)

    def replace(self, source: str, target: str) -> None:
        """Rename over a file of our own."""
        os.replace(self._at(source), self._at(target), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def unlink(self, name: str) -> None:
        """Remove a name."""
        os.unlink(self._at(name), dir_fd=self._fd)

    def discard(self, name: str) -> None:
        """Remove a name if that is possible: to clean up behind an error that matters more."""
        try:
            self.unlink(name)
        except OSError:
            return

    def sync(self) -> None:
        """Return once the names in the folder are on disk."""
        if self._fd is None:
            sync_folder(self.path)
        else:
            sync_open_folder(self._fd)


def _walk(
    root: int,
    parts: Sequence[str],
    create: bool,
    sync: bool,
    follow: Callable[[Sequence[str]], int] | None = None,
) -> int:
    """Open `parts` below an open folder one by one and return the last, open; with `create`, make what is
    missing. A link is opened by `follow`, which gets the parts up to it; without it, it is an error."""
    fd = os.dup(root)
    for number, part in enumerate(parts, 1):
        try:
            try:
                child = os.open(part, FOLDER_FLAGS, dir_fd=fd)
            except FileNotFoundError:
                if not create:
                    raise
                _make(part, fd)
                if sync:
                    sync_open_folder(fd)
                child = os.open(part, FOLDER_FLAGS, dir_fd=fd)
            except OSError as error:
                if follow is None or error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                child = follow(parts[:number])
        finally:
            os.close(fd)
        fd = child
    return fd


def _follow(output_dir: str, parts: Sequence[str], allowed: Allowed) -> int:
    """Open the folder that a link leads to. What was opened is judged, not the path, which may change."""
    path = os.path.join(output_dir, *parts)
    fd = os.open(path, ROOT_FLAGS)
    try:
        _judge(path, Folder(path, fd).real(), allowed)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _judge(path: str, real: str, allowed: Allowed) -> None:
    if not allowed.holds(real):
        raise PermissionError(errno.EACCES, f"the link leads out of allowed_dirs, to {real}", path)


def _make(path: str, dir_fd: int | None) -> None:
    try:
        os.mkdir(path, dir_fd=dir_fd)
    except FileExistsError:
        return  # another worker was faster; whether it is a folder shows when it is opened


def _make_root(output_dir: str, sync: bool) -> None:
    """Make the output folder and what is missing above it. The user named that path: links are fine.

    Raises OSError: EINVAL for a relative path, ENOENT for one on a drive or share that is not there.
    """
    if not os.path.isabs(output_dir):
        raise OSError(errno.EINVAL, "the output folder is not an absolute path", output_dir)
    missing = [output_dir.rstrip("/" + os.sep)]
    while not os.path.isdir(parent := os.path.dirname(missing[-1])):
        if parent == missing[-1]:
            break  # the top itself, such as a drive that was unplugged, is missing: making it says so
        missing.append(parent)
    for path in reversed(missing):
        _make(path, None)
        if sync:
            sync_folder(os.path.dirname(path))


def _make_path(output_dir: str, parts: Sequence[str], create: bool, allowed: Allowed) -> None:
    """Walk, and with `create` make, `parts` by path where nothing better exists; refuse links and junctions
    that may not be followed."""
    if create and not os.path.isdir(output_dir):
        _make_root(output_dir, False)
    path = output_dir
    for part in parts:
        path = os.path.join(path, part)
        if create:
            _make(path, None)
        if is_real_folder(os.lstat(path)):
            continue
        if allowed.follow_links and os.path.isdir(path):
            _judge(path, os.path.realpath(path), allowed)
        else:
            reason = "a link or a file is where a folder should be"
            raise NotADirectoryError(errno.ENOTDIR, reason, path)
