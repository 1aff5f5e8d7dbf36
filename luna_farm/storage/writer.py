"""Publishes a file: whole, under its final name, below its folder, and never over another.

The file is written without a name, or under a temporary one, and synced; then it is given its final name in
a way that fails if that exists; then the folder is synced. Before the name is given, the worker notes which
file gets which name (`notes.py`): after a crash the note shows whether the file was published. Which of the
ways to give a name a folder takes is found out by trying, and what each error means is a table (`ways.py`).
This module must never open a path that it did not walk without links, never replace a file, never retry a
sync.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from luna_farm.core.messages import Note
from luna_farm.core.messages import temp_name as temp_name
from luna_farm.errors import InvalidRequest
from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.storage.folder import Folder
from luna_farm.storage.names import parts_below
from luna_farm.storage.naming import File, Named, NotThisWay, give_name, take_back
from luna_farm.storage.ways import Then, Way, then
from luna_farm.system import disk_error, sync_data
from luna_farm.testing.faults import crash_point, half_write

Buffer = bytes | bytearray | memoryview

_IOV_MAX = 1024


WAY_FRESH_S = 300.0
"""How long a way other than the best is kept before the better ones are tried again: an error may pass, and
the number of a device is used again after an unmount."""

_ways: dict[int, tuple[Way, float]] = {}
"""Device number -> the first way that worked there, and when (monotonic)."""


@dataclass(slots=True)
class Published:
    """A file that is there: its final path and its size in bytes."""

    path: str
    bytes: int


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
    recovered: bool = False,
    allowed: Allowed = ANYWHERE,
) -> Published:
    """Write `buffers` to `path`, or to the next free number behind it if that is taken; folders are made.

    `replace`: on the wish of the user a file of that name is replaced, whole by whole, and gets no number.
    `temp_name` is unique to this file. `note` is called with the identity of the file before it gets its
    name; `noted` is what an attempt that died noted last: if that one was published, it counts as this one.
    `fsync`: on disk before this returns. `time_ns`: time of modification of the file, 0 for now. No other
    file of the farm has it: what one that was `recovered` without a note published is known by it.
    `allowed`: whether folders of the path may be links. Raises InvalidRequest for a path that is not below
    `output_dir`,
    DiskError for everything that a disk may refuse; no file is left behind then, or, where the disk refuses
    that as well, `DiskError.noted` is what the next attempt has to be given as `noted`.
    """
    *folders, name = parts_below(path, output_dir)
    _check_temp(temp_name)
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    file = File(name, temp_name, views, fsync, note, time_ns, noted=noted)
    try:
        with Folder.open(output_dir, folders, create=True, sync=fsync, allowed=allowed) as folder:
            known = _published(folder, noted) if noted else _same(folder, file) if recovered else None
            if replace:
                known = _replace(folder, file)
            elif known is None:
                file.noted = None
                known = _publish(folder, file, noted)
            else:
                folder.discard(temp_name)
                if fsync:
                    folder.sync()
            return _report(path, known)
    except OSError as error:
        failed = disk_error("write", path, error)
        if file.noted:
            failed.noted = {temp_name: file.noted.to_map()}
        raise failed from error
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
    with suppress(OSError, KeyError):
        return _ways[os.stat(folder).st_dev][0]
    return None


def _check_temp(name: str) -> None:
    if not name.startswith(".luna-") or not name.endswith(".tmp") or os.path.basename(name) != name:
        raise InvalidRequest.of("temp_name", name, "a name made by temp_name()")


def _report(path: str, named: Named) -> Published:
    return Published(path[: -len(os.path.basename(path))] + named.name, named.size)


def _published(folder: Folder, noted: Note) -> Named | None:
    """Return the noted file if it has its name, or another one that a person gave it since."""
    if noted.moved:
        status = folder.stat(noted.name)
        gone = folder.stat(noted.temp) is None
        return Named(noted.name, noted.size) if gone and status and status.st_size == noted.size else None
    if _is_noted(folder.stat(noted.name), noted):
        return Named(noted.name, noted.size)
    for other in folder.named(noted.inode):
        if other != noted.temp and _is_noted(folder.stat(other), noted):
            return Named(other, noted.size)
    return None  # not published, or moved out of the folder: written once more rather than lost


def _same(folder: Folder, file: File) -> Named | None:
    """Return the file of this name if it has the time and the content of this one. The state folder may have
    been too full for results and notes."""
    status, size = folder.stat(file.name), sum(map(len, file.views))
    if not status or not file.time_ns or (status.st_mtime_ns, status.st_size) != (file.time_ns, size):
        return None
    with open(folder.open_existing(file.name), "rb") as there:
        same = all(there.read(len(view)) == view for view in file.views)
    return Named(file.name, size) if same else None


def _is_noted(status: os.stat_result | None, noted: Note) -> bool:
    identity = (noted.inode, noted.size, noted.mtime_ns)
    return status is not None and (status.st_ino, status.st_size, status.st_mtime_ns) == identity


def _first_way(device: int) -> Way:
    way, since = _ways.get(device, (Way.UNNAMED, 0.0))
    return way if way is Way.UNNAMED or time.monotonic() - since < WAY_FRESH_S else Way.UNNAMED


def _replace(folder: Folder, file: File) -> Named:
    """Write a file and rename it over what has its name, if anything does; doing it twice is harmless."""
    fd = _create(folder, file.temp, Way.LINK)
    try:
        named = Named(file.name, _fill(folder, fd, file))
        folder.replace(file.temp, file.name)
        if file.fsync:
            folder.sync()
    except BaseException:
        _close(fd)
        folder.discard(file.temp)  # closed first, as in `_write`
        raise
    _close(fd)
    return named


def _publish(folder: Folder, file: File, noted: Note | None) -> Named:
    way = _first_way(folder.device)
    if way is Way.UNNAMED:
        try:
            return _write(folder, file, way)
        except NotThisWay:
            way = Way.LINK
    if noted and noted.moved and (status := folder.stat(noted.name)) and not status.st_size:
        file.claimed, way = noted.name, Way.CLAIM
    return _write(folder, file, way)


def _write(folder: Folder, file: File, way: Way) -> Named:
    """Write a file and give it its name, in this way or, once it has a temporary name, a worse one."""
    fd = _create(folder, file.temp, way)
    named = None
    try:
        size = _fill(folder, fd, file)
        named, way = give_name(folder, fd, file, way, size)
        crash_point("writer.named")
        if way is Way.LINK:
            folder.discard(file.temp)
        if file.fsync:
            if way is Way.UNNAMED and not os.major(folder.device):
                _sync(folder, fd, file)  # btrfs does not log a file that has no name yet
            folder.sync()
        crash_point("writer.folder_synced")
    except BaseException:
        take_back(folder, fd, file, named)
        _close(fd)
        folder.discard(file.temp)  # closed first: libfuse removes an open file by a rename, which may fail
        raise
    _close(fd)
    _remember(folder.device, way)
    return named


def _remember(device: int, way: Way) -> None:
    now = time.monotonic()
    known, since = _ways.get(device, (None, 0.0))
    if known is not way or now - since >= WAY_FRESH_S:
        _ways[device] = way, now


def _close(fd: int) -> None:
    """Close a file that is written and synced, or given up. `_fill` has asked already what that says."""
    with suppress(OSError):
        os.close(fd)


def _create(folder: Folder, temp: str, way: Way) -> int:
    if way is Way.UNNAMED:
        try:
            return folder.create_unnamed()
        except OSError as error:
            if then("open unnamed", error) is Then.HOLD:
                raise
            raise NotThisWay from error
    try:
        return folder.create(temp)
    except FileExistsError:
        folder.discard(temp)  # half a file, left by a crash
        return folder.create(temp)


def _fill(folder: Folder, fd: int, file: File) -> int:
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
        _sync(folder, fd, file)
    os.close(os.dup(fd))  # some network folders report a full disk at close: before the file has its name
    crash_point("writer.synced")
    return size


def _sync(folder: Folder, fd: int, file: File) -> None:
    try:
        sync_data(fd)
    except OSError as error:
        if then("fsync", error) is not Then.TRY_EMPTY or _syncs(folder, file.temp):
            raise


def _syncs(folder: Folder, temp: str) -> bool:
    """Whether a file without content can be synced; else the call is refused as such, whatever the file."""
    name = temp.replace(".tmp", "-empty.tmp")
    fd = folder.create(name)
    try:
        sync_data(fd)
    except OSError as error:
        return then("fsync", error) is not Then.TRY_EMPTY
    finally:
        _close(fd)
        folder.discard(name)
    return True


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
