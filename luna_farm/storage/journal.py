"""The journal: what the farm has promised, one record after another, so that a restart knows what to finish.

The file starts with its format. A record is [magic, length, crc32] and a msgpack map, appended with one
`os.write`: once that returns, the record survives the death of every process (not a power cut, unless a sync
follows; fsync at acceptance would be pointless while the pixels are in memory). Records are numbered from the
start of the file, so that one that is missing, doubled or out of place shows. This module must never crash
on any content of the file, never drop bytes it did not understand without keeping them aside, and never let
a record stand behind half of another.

The journal does not lock: its owner holds the `StateLock` of the folder.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luna_farm import system
from luna_farm.errors import TooLarge
from luna_farm.storage.journal_records import BLOCK_BYTES, frame, in_order, jobs_in, read
from luna_farm.testing.faults import crash_point, half_write

KEPT_ASIDE_FILES = 4
"""How many cut tails are kept beside the journal; the oldest makes room for a new one."""
KEPT_ASIDE_BYTES = 16 << 20
"""How much of one cut tail is kept."""
FORMAT = 2
"""Of the file. 1: without this number, as version 0.1 wrote it; such a file is read, and written anew."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What opening a journal found: the whole records in order, and what was cut from the end, if
    anything."""

    records: list[dict[str, Any]] = field(default_factory=list)
    cut_bytes: int = 0
    """Bytes that belong to no whole record: at the end, or between two records."""
    kept_aside: str | None = None
    """File that holds what was cut, or the whole journal if it was damaged between two records (the first
    KEPT_ASIDE_BYTES); None if nothing was or the disk refused."""
    whole: bool = field(default=True, compare=False)
    """Nothing is missing, as far as the file shows: it begins with its format, every byte belongs to a
    record, and no number is left out."""
    misplaced: int = 0
    """Records that stood in the wrong place, or twice."""
    damaged_jobs: tuple[str, ...] = ()
    """Job ids that can be made out in the bytes that belong to no record."""


class Journal:
    """An open journal. `bytes` is its size; not safe for several threads: the supervisor has one."""

    def __init__(self, path: str, fd: int, size: int, number: int = 0) -> None:
        self.path = path
        self.bytes = size
        self._number = number
        self._fd = fd
        self._torn = False

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> tuple[Journal, Replay]:
        """Open or make the journal at `path`, read its records, and cut off a bad tail.

        Bytes that belong to no whole record are passed over; the records behind them are read. If there are
        such bytes the whole file is kept aside. Raises DiskError when the file cannot be opened, read or cut,
        and for a file of a newer format, which stays untouched.
        """
        path = os.fspath(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _SAFE
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise system.disk_error("open the journal", path, error) from error
        try:
            found, good, total, lost = read(fd)
            records, number, misplaced, missing = in_order(found)
            _check_format(path, records)
            damaged = jobs_in(fd, found, total) if lost else ()
            kept_aside = _keep_aside(path, fd, good if lost == total - good else 0) if lost else None
            if total > good:
                os.ftruncate(fd, good)
                system.sync_data(fd)
        except OSError as error:
            os.close(fd)
            raise system.disk_error("read the journal", path, error) from error
        whole = not lost and not missing and bool(records) and records[0].get("r") == "format"
        told = [record for record in records if record.get("r") != "format"]
        replay = Replay(told, lost, kept_aside, whole, misplaced, damaged)
        return cls(path, fd, good, number), replay

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records, all or none; they survive any death of this process once this returns.

        Raises DiskError if they could not be written whole: the file then ends with the record before, and
        nothing may be acknowledged. Raises TooLarge above MAX_RECORD_BYTES.
        """
        if self._torn:
            self._mend()
        framed = b"".join([frame(record, self._number + at) for at, record in enumerate(records)])
        try:
            half_write("journal.half_record", self._fd, framed)
            written = os.write(self._fd, framed)
            if written < len(framed):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._torn = True
            self._mend()
            raise system.disk_error("append to the journal", self.path, error) from error
        self.bytes += written
        self._number += len(records)

    def _mend(self) -> None:
        """Cut what a failed write left; until that succeeds nothing is appended, for it could not be read
        back."""
        try:
            os.ftruncate(self._fd, self.bytes)
        except OSError as error:
            raise system.disk_error("cut half a record from the journal", self.path, error) from error
        self._torn = False

    @property
    def end(self) -> tuple[int, int]:
        """Its size in bytes and the number of the next record, for `take_back`."""
        return self.bytes, self._number

    def take_back(self, end: tuple[int, int]) -> None:
        """Cut what was appended since the journal had this `end`: records that could not be synced, and
        that no client was promised. Raises DiskError; nothing is appended then until the cut succeeds."""
        (self.bytes, self._number), self._torn = end, True
        self._mend()

    def sync(self) -> None:
        """Return once every record is on the disk (durable jobs). Raises DiskError; what failed to sync is
        never synced again: the caller treats the records since the last sync as not written."""
        try:
            system.sync_data(self._fd)
        except OSError as error:
            raise system.disk_error("sync the journal", self.path, error) from error

    def syncing(self) -> Callable[[], None]:
        """Return what puts the records so far on the disk, to be called in a thread; it raises DiskError."""
        fd = os.dup(self._fd)

        def sync() -> None:
            try:
                system.sync_data(fd)
            except OSError as error:
                raise system.disk_error("sync the journal", self.path, error) from error
            finally:
                os.close(fd)

        return sync

    def rewrite(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace the whole content by `records`, atomically: after a crash or power cut there is the old or
        the new journal, never a mixture. Raises DiskError; the old one then stays in use, except when only
        the folder could not be synced."""
        beside = f"{self.path}.new"
        fd = -1
        try:
            fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | _SAFE, 0o600)
            size, number = _write_all(fd, itertools.chain([{"r": "format", "format": FORMAT}], records))
            system.sync_data(fd)
            crash_point("journal.compacting")
            os.replace(beside, self.path)
        except (OSError, TooLarge) as error:
            if fd >= 0:
                os.close(fd)
                _unlink(beside)
            if isinstance(error, OSError):
                raise system.disk_error("compact the journal", self.path, error) from error
            raise
        os.close(self._fd)
        self._fd, self.bytes, self._number, self._torn = fd, size, number, False
        try:
            system.sync_folder(os.path.dirname(self.path) or ".")
        except OSError as error:
            raise system.disk_error("sync the folder of", self.path, error) from error

    def keep_aside(self) -> str | None:
        """Copy the journal as it is to a file beside it (the first KEPT_ASIDE_BYTES) and return its path;
        None if the disk refuses."""
        return _keep_aside(self.path, self._fd, 0)

    def in_place(self) -> bool:
        """Whether the open file still has its name: else what is appended is lost."""
        try:
            return os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(self._fd))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_SAFE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def _write_all(fd: int, records: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Write records in blocks, so that compaction is a handful of system calls, and return how many bytes and
    records."""
    size = number = 0
    block: list[bytes] = []
    waiting = 0
    for record in records:
        block.append(frame(record, number))
        number += 1
        waiting += len(block[-1])
        if waiting >= BLOCK_BYTES:
            size += _write_block(fd, block)
            block, waiting = [], 0
    return size + _write_block(fd, block), number


def _write_block(fd: int, block: list[bytes]) -> int:
    data = memoryview(b"".join(block))
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])
    return done


def _check_format(path: str, records: list[dict[str, Any]]) -> None:
    version = records[0].get("format", 1) if records and records[0].get("r") == "format" else 1
    if not isinstance(version, int) or version > FORMAT:
        raise OSError(
            errno.EPROTONOSUPPORT if hasattr(errno, "EPROTONOSUPPORT") else errno.EINVAL,
            f"it has format {version}, this version of Luna Farm reads up to {FORMAT}; it was not changed."
            " Install the version that wrote it, or give this farm another --state-dir",
        )


def _keep_aside(path: str, fd: int, start: int) -> str | None:
    """Copy the tail to the first free, or else the oldest, of KEPT_ASIDE_FILES files. None if the disk
    refuses: a full disk must not keep the farm from starting."""
    names = [Path(f"{path}.cut-{number}") for number in range(1, KEPT_ASIDE_FILES + 1)]
    try:
        free = [name for name in names if not name.exists()]
        target = free[0] if free else min(names, key=lambda name: name.stat().st_mtime_ns)
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _SAFE, 0o600)
        try:
            os.lseek(fd, start, os.SEEK_SET)
            left = KEPT_ASIDE_BYTES
            while left > 0 and (block := os.read(fd, min(left, BLOCK_BYTES))):
                left -= _write_block(out, [block])
            system.sync_data(out)
        finally:
            os.close(out)
    except OSError:
        return None
    return str(target)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
