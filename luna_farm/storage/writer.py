"""Publishes a file: whole, under its final name, below its folder, and never over another.

The file is written without a name, or under a temporary one, and synced; then it is given its final name in
a way that fails if that exists; then the folder is synced. Before the name is given, the worker notes which
file gets which name (`notes.py`): after a crash the note shows whether the file was published. Which of the
WAYS to give a name a folder takes is found out by trying, once for each file system. This module must never
open a path that it did not walk without links, never replace a file, never retry a sync.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum

from luna_farm.core.filenames import with_number
from luna_farm.core.messages import Note
from luna_farm.core.messages import temp_name as temp_name
from luna_farm.errors import InvalidRequest
from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.storage.folder import Folder
from luna_farm.storage.names import first_free, parts_below
from luna_farm.system import disk_error, sync_data
from luna_farm.testing.faults import crash_point, half_write

Buffer = bytes | bytearray | memoryview

_IOV_MAX = 1024


class Way(IntEnum):
    """How a file gets its name, the best way first. None of them replaces a file.

    UNNAMED: a file without a name is linked, so that a crash leaves nothing (O_TMPFILE, Linux). LINK: a
    temporary file is linked and its temporary name removed. RENAME: it is renamed by a call that replaces
    nothing (exFAT, FAT, many network folders). CLAIM: an empty file of our own takes the name, and the
    rename replaces that one; for an instant, or until the next start if the process dies in it, the file of
    that name is empty (FUSE file systems without links).
    """

    UNNAMED = 0
    LINK = 1
    RENAME = 2
    CLAIM = 3


REFUSED = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, getattr(errno, "ESTALE", errno.EIO)),
    }
)
"""Errors that say that this file or disk is refused now. After any other one the next way is tried: file
systems report a missing link() as EPERM, EOPNOTSUPP, ENOSYS, EMLINK, EINVAL, EACCES, EXDEV, EIO or ENOTTY;
sandboxes that cannot link an open file say ENOENT."""

_ways: dict[int, Way] = {}
"""Device number -> the first way that worked there. Numbers are used again after an unmount: a way that
stopped working is left for the next one."""


@dataclass(slots=True)
class Published:
    """A file that is there: its final path and its size in bytes."""

    path: str
    bytes: int


@dataclass(slots=True)  # not frozen, here and below: that takes three times as long to make
class _File:
    """What is published: its wanted name, its temporary one, its content, and how careful to be."""

    name: str
    temp: str
    views: list[memoryview]
    fsync: bool
    note: Callable[[Note], None] | None
    time_ns: int = 0
    claimed: str = ""
    """The name that an attempt before took by an empty file and died."""


def publish(
    path: str,
    buffers: Sequence[Buffer],
    *,
    output_dir: str,
    temp_name: str,
    fsync: bool,
    replace: bool = False,
    noted: Note | None = None,
    note: Callable[[Note], None] | None = None,
    time_ns: int = 0,
    allowed: Allowed = ANYWHERE,
) -> Published:
    """Write `buffers` to `path`, or to the next free number behind it if that is taken; folders are made.

    `replace`: on the wish of the user a file of that name is replaced, whole by whole, and gets no number.
    `temp_name` is unique to this file. `note` is called with the identity of the file before it gets its
    name; `noted` is what an attempt that died noted last: if that one was published, it counts as this one.
    `fsync`: on disk before this returns. `time_ns`: time of modification of the file, 0 for now.
    `allowed`: whether folders of the path may be links. Raises InvalidRequest for a path that is not below
    `output_dir`,
    DiskError for everything that a disk may refuse; no file is left behind then.
    """
    *folders, name = parts_below(path, output_dir)
    _check_temp(temp_name)
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    file = _File(name, temp_name, views, fsync, note, time_ns)
    try:
        with Folder.open(output_dir, folders, create=True, sync=fsync, allowed=allowed) as folder:
            known = _published(folder, noted) if noted else None
            if replace:
                known = _replace(folder, file)
            elif known is None:
                known = _publish(folder, file, noted)
            else:
                folder.discard(temp_name)
                if fsync:
                    folder.sync()
            return _report(path, known)
    except OSError as error:
        raise disk_error("write", path, error) from error
    except UnicodeEncodeError as error:
        needed = f"a name that the file system can hold ({error.reason})"
        raise InvalidRequest.of("path", path, needed) from error


def published_before(
    path: str, output_dir: str, noted: Note, allowed: Allowed = ANYWHERE
) -> Published | None:
    """Return the file that was published in the folder of `path` as `noted` and not reported, or None.

    Raises InvalidRequest and DiskError.
    """
    *folders, _ = parts_below(path, output_dir)
    try:
        with Folder.open(output_dir, folders, create=False, sync=False, allowed=allowed) as folder:
            known = _published(folder, noted)
            if known is not None:
                folder.discard(noted.temp)
            return _report(path, known) if known else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error("look at", path, error) from error


def remove_temp(path: str, output_dir: str, allowed: Allowed = ANYWHERE) -> None:
    """Remove the temporary file that an attempt which died left, if there is one.

    Raises InvalidRequest if `path` is no temporary file below `output_dir`, DiskError if it cannot be
    removed.
    """
    *folders, name = parts_below(path, output_dir)
    _check_temp(name)
    try:
        with Folder.open(output_dir, folders, create=False, sync=False, allowed=allowed) as folder:
            folder.unlink(name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error("remove", path, error) from error


def way_of(folder: str) -> Way | None:
    """Return how files get their names in a folder, None until one was published on its file system."""
    with suppress(OSError):
        return _ways.get(os.stat(folder).st_dev)
    return None


def _check_temp(name: str) -> None:
    if not name.startswith(".luna-") or not name.endswith(".tmp") or os.path.basename(name) != name:
        raise InvalidRequest.of("temp_name", name, "a name made by temp_name()")


@dataclass(slots=True)
class _Named:
    """A file under its final name."""

    name: str
    size: int


def _report(path: str, named: _Named) -> Published:
    return Published(path[: -len(os.path.basename(path))] + named.name, named.size)


def _published(folder: Folder, noted: Note) -> _Named | None:
    """Return the noted file if it has its name, or another one that a person gave it since."""
    if noted.moved:
        status = folder.stat(noted.name)
        gone = folder.stat(noted.temp) is None
        return _Named(noted.name, noted.size) if gone and status and status.st_size == noted.size else None
    if _is_noted(folder.stat(noted.name), noted):
        return _Named(noted.name, noted.size)
    for other in folder.named(noted.inode):
        if other != noted.temp and _is_noted(folder.stat(other), noted):
            return _Named(other, noted.size)
    return None  # not published, or moved out of the folder: written once more rather than lost


def _is_noted(status: os.stat_result | None, noted: Note) -> bool:
    identity = (noted.inode, noted.size, noted.mtime_ns)
    return status is not None and (status.st_ino, status.st_size, status.st_mtime_ns) == identity


def _first_way(device: int) -> Way:
    return _ways.get(device, Way.UNNAMED)


def _replace(folder: Folder, file: _File) -> _Named:
    """Write a file and rename it over what has its name, if anything does; doing it twice is harmless."""
    fd = _create(folder, file.temp, Way.LINK)
    try:
        named = _Named(file.name, _fill(fd, file))
        folder.replace(file.temp, file.name)
        if file.fsync:
            folder.sync()
    except BaseException:
        folder.discard(file.temp)
        raise
    finally:
        os.close(fd)
    return named


def _publish(folder: Folder, file: _File, noted: Note | None) -> _Named:
    way = _first_way(folder.device)
    if way is Way.UNNAMED:
        try:
            return _write(folder, file, way)
        except _NotThisWay:
            way = Way.LINK
    if noted and noted.moved and (status := folder.stat(noted.name)) and not status.st_size:
        file, way = replace(file, claimed=noted.name), Way.CLAIM
    return _write(folder, file, way)


class _NotThisWay(Exception):
    """This file system does not give names in this way."""


def _write(folder: Folder, file: _File, way: Way) -> _Named:
    """Write a file and give it its name, in this way or, once it has a temporary name, a worse one."""
    fd = _create(folder, file.temp, way)
    named = None
    try:
        size = _fill(fd, file)
        named, way = _give_name(folder, fd, file, way, size)
        crash_point("writer.named")
        if way is Way.LINK:
            folder.discard(file.temp)
        if file.fsync:
            if way is Way.UNNAMED and not os.major(folder.device):
                sync_data(fd)  # btrfs does not log a file that has no name yet
            folder.sync()
        crash_point("writer.folder_synced")
    except BaseException:
        if named and folder.is_file(named.name, fd):
            folder.discard(named.name)
        if way is not Way.UNNAMED:
            folder.discard(file.temp)
        raise
    finally:
        os.close(fd)
    _ways[folder.device] = way
    return named


def _create(folder: Folder, temp: str, way: Way) -> int:
    if way is Way.UNNAMED:
        try:
            return folder.create_unnamed()
        except OSError as error:
            if error.errno in REFUSED:
                raise
            raise _NotThisWay from error
    try:
        return folder.create(temp)
    except FileExistsError:
        folder.unlink(temp)  # half a file, left by a crash
        return folder.create(temp)


def _fill(fd: int, file: _File) -> int:
    """Write everything and sync; return the size in bytes."""
    crash_point("writer.created")
    half_write("writer.half_written", fd, file.views[-1] if file.views else b"")
    size = write_all(fd, file.views)
    crash_point("writer.written")
    if os.utime in os.supports_fd:
        with suppress(OSError):  # part of the identity: the clock of the kernel ticks only every 4 ms
            now = time.time_ns()
            os.utime(fd, ns=(now, file.time_ns or now))
    if file.fsync:
        sync_data(fd)
    os.close(os.dup(fd))  # some network folders report a full disk at close: before the file has its name
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


def _give_name(folder: Folder, fd: int, file: _File, way: Way, size: int) -> tuple[_Named, Way]:
    """Give the file, open as `fd`, its name or the next free number behind it; return the way that worked."""
    candidate = file.claimed or file.name
    while True:
        if file.note:
            status = os.fstat(fd)
            moved = way > Way.LINK
            file.note(Note(file.temp, candidate, status.st_ino, size, status.st_mtime_ns, moved))
            crash_point("writer.noted")
        try:
            _give(folder, fd, file, candidate, way)
            return _Named(candidate, size), way
        except FileExistsError:
            number = first_free(
                folder.path + file.name, lambda n: folder.stat(with_number(file.name, n)) is not None
            )
            candidate = with_number(file.name, number)
        except OSError as error:
            if folder.is_file(candidate, fd):  # NFS: it was done, the answer got lost, the repetition failed
                return _Named(candidate, size), way
            if error.errno in REFUSED or way is Way.CLAIM:
                raise
            if way is Way.UNNAMED:
                raise _NotThisWay from error
            way = Way(way + 1)


def _give(folder: Folder, fd: int, file: _File, name: str, way: Way) -> None:
    """Give one name in one way. Raises FileExistsError if it is taken."""
    if way <= Way.LINK:
        try:
            folder.link(fd, file.temp, name)
        except FileExistsError:
            if not folder.is_file(name, fd):  # else it was done, see above
                raise
    elif not folder.is_file(file.temp, fd):  # another process put a file of its own there
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.temp)
    elif way is Way.RENAME:
        folder.rename(file.temp, name)
    else:
        if name != file.claimed:
            os.close(folder.create(name))
            crash_point("writer.claimed")
        try:
            folder.replace(file.temp, name)
        except OSError:
            folder.discard(name)
            raise
