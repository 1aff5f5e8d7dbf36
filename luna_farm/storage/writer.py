"""Publishes a file: whole, under its final name, below its folder, and never over another.

The road: a temporary file beside the final name, all bytes, sync, a hard link to the final name (which
fails if that exists), sync of the folder. The temporary name stays until the result is in the journal
(`settle`): a temporary file with two links was published before a crash, so the one fact that recovery
needs lies in the file system itself. This module must never open a path that it did not walk without links,
never replace a file, never retry a sync.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from luna_farm.core.filenames import with_number
from luna_farm.core.messages import temp_name as temp_name
from luna_farm.errors import InvalidRequest
from luna_farm.storage.folder import Folder
from luna_farm.storage.names import first_free, parts_below
from luna_farm.system import disk_error, sync_data
from luna_farm.testing.faults import crash_point, half_write

Buffer = bytes | bytearray | memoryview

COMPARED_NAMES = 1000
"""How many numbered names recovery looks through for a file with its bytes."""

_IOV_MAX = 1024
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
_NO_RENAME = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Published:
    """A file that is there: its final path, its size, the temporary path to settle ("" if none is left)."""

    path: str
    bytes: int
    temp: str


def publish(
    path: str,
    buffers: Sequence[Buffer],
    *,
    output_dir: str,
    temp_name: str,
    fsync: bool,
    recovered: bool,
    replace: bool = False,
) -> Published:
    """Write `buffers` to `path`, or to the next free number behind it if that is taken; folders are made.

    `replace`: on the caller's wish a file of that name is replaced, whole by whole, and gets no number.

    `temp_name` is unique to this file, so that what a crash left is recognised. With `recovered` (it may
    have been published before) a file with the same bytes under its name counts as this one. `fsync`: on
    disk before this returns. Raises InvalidRequest for a path that is not below `output_dir`, DiskError for
    everything that a disk may refuse; no file is left behind then.
    """
    *folders, name = parts_below(path, output_dir)
    _check_temp(temp_name)
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    try:
        with Folder.open(output_dir, folders, create=True, sync=fsync) as folder:
            known = _published_before(folder, name, temp_name)
            if known is None and recovered:
                known = _same_bytes(folder, name, temp_name, views)
            if known is None:
                return _report(path, temp_name, _publish(folder, name, views, temp_name, fsync, replace))
            if fsync:
                folder.sync()
            return _report(path, temp_name, known)
    except OSError as error:
        raise disk_error("write", path, error) from error
    except UnicodeEncodeError as error:
        allowed = f"a name that the file system can hold ({error.reason})"
        raise InvalidRequest.of("path", path, allowed) from error


def published_before(path: str, output_dir: str, temp_name: str) -> Published | None:
    """Return the file that was published as `path` (or the next free number) and not reported, or None.

    It shows by its temporary name, which is a second name of it. Raises InvalidRequest and DiskError.
    """
    *folders, name = parts_below(path, output_dir)
    try:
        with Folder.open(output_dir, folders, create=False, sync=False) as folder:
            known = _published_before(folder, name, temp_name)
            return _report(path, temp_name, known) if known else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error("look at", path, error) from error


def settle(temp: str, output_dir: str) -> None:
    """Remove a temporary name once its result is in the journal or its job is given up. "" is fine.

    Raises InvalidRequest if `temp` is no temporary file below `output_dir`, DiskError if it cannot be
    removed.
    """
    if not temp:
        return
    *folders, name = parts_below(temp, output_dir)
    _check_temp(name)
    try:
        with Folder.open(output_dir, folders, create=False, sync=False) as folder:
            folder.unlink(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise disk_error("remove", temp, error) from error
    crash_point("writer.settled")


def _check_temp(name: str) -> None:
    if not name.startswith(".luna-") or not name.endswith(".tmp") or os.path.basename(name) != name:
        raise InvalidRequest.of("temp_name", name, "a name made by temp_name()")


@dataclass(frozen=True, slots=True)
class _Named:
    """A file under its final name; `linked`: the temporary name is still there."""

    name: str
    size: int
    linked: bool


def _report(path: str, temp_name: str, named: _Named) -> Published:
    folder = path[: -len(os.path.basename(path))]
    return Published(folder + named.name, named.size, folder + temp_name if named.linked else "")


def _publish(
    folder: Folder, name: str, views: list[memoryview], temp_name: str, fsync: bool, replace: bool
) -> _Named:
    try:
        fd = folder.create(temp_name)
    except FileExistsError:
        folder.unlink(temp_name)  # half a file, left by a crash
        fd = folder.create(temp_name)
    named = None
    try:
        size = _fill(fd, views, fsync)
        if replace:
            folder.replace(temp_name, name)
            named = _Named(name, size, False)
        else:
            named = _give_name(folder, fd, temp_name, name, size)
        crash_point("writer.linked")
        if fsync:
            folder.sync()
        crash_point("writer.folder_synced")
    except BaseException:
        if named and not replace and folder.is_file(named.name, fd):
            folder.discard(named.name)
        folder.discard(temp_name)
        raise
    finally:
        os.close(fd)
    return named


def _fill(fd: int, views: list[memoryview], fsync: bool) -> int:
    """Write everything and sync; return the size in bytes."""
    crash_point("writer.temp_created")
    half_write("writer.half_written", fd, views[-1] if views else b"")
    size = write_all(fd, views)
    crash_point("writer.written")
    if fsync:
        sync_data(fd)
    os.close(
        os.dup(fd)
    )  # some network folders tell of a full disk at a close: ask before the file has its name
    crash_point("writer.synced")
    return size


def write_all(fd: int, views: Sequence[memoryview]) -> int:
    """Write all of `views` (bytes, not empty as a rule) to `fd`, however little each call takes; return the
    sum."""
    pending = [view for view in views if len(view)]
    size = sum(map(len, pending))
    while pending:
        written = os.writev(fd, pending[:_IOV_MAX]) if hasattr(os, "writev") else os.write(fd, pending[0])
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if written:
            pending[0] = pending[0][written:]
    return size


def _give_name(folder: Folder, fd: int, temp_name: str, name: str, size: int) -> _Named:
    """Give the temporary file, open as `fd`, its name or the next free number behind it."""
    candidate = name
    while True:
        try:
            return _Named(candidate, size, _give(folder, fd, temp_name, candidate))
        except FileExistsError:
            number = first_free(folder.path + name, lambda n: folder.stat(with_number(name, n)) is not None)
            candidate = with_number(name, number)


def _give(folder: Folder, fd: int, temp_name: str, name: str) -> bool:
    """Give one name or raise FileExistsError; return whether the temporary name stays.

    A hard link where there are such; else (FAT, exFAT, some network folders) a rename that replaces
    nothing. Where there is neither, the name is taken by an empty file of our own making, which the rename
    then replaces: still nothing of others is lost, but for an instant, or for good if the process dies in
    it, that file is empty.
    """
    try:
        folder.link(fd, temp_name, name)
        return True
    except OSError as error:
        if folder.is_file(name, fd):  # NFS: it was done, the answer got lost, and the repeated call failed
            return True
        if error.errno not in _NO_LINKS:
            raise
    try:
        folder.rename(temp_name, name)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        os.close(folder.create(name))
        folder.replace(temp_name, name)
    return False


def _published_before(folder: Folder, name: str, temp_name: str) -> _Named | None:
    """Return what a predecessor published and could not report: its temporary file has a second name."""
    status = folder.stat(temp_name)
    if status is None or not stat.S_ISREG(status.st_mode) or status.st_nlink < 2:
        return None
    for other in (name, *folder.names()):
        if other != temp_name and folder.same(temp_name, other):
            return _Named(other, status.st_size, True)
    return None  # moved out of the folder by somebody: written once more rather than lost


def _same_bytes(folder: Folder, name: str, temp_name: str, views: Sequence[memoryview]) -> _Named | None:
    """Return the file with these bytes that has the name or a number behind it.

    What recovery goes by where the temporary name goes with publishing (a rename) or was settled before the
    crash.
    """
    for number in range(COMPARED_NAMES):
        candidate = with_number(name, number) if number else name
        if folder.stat(candidate) is None:
            return None
        if folder.holds(candidate, views):
            folder.discard(temp_name)
            return _Named(candidate, sum(map(len, views)), False)
    return None
