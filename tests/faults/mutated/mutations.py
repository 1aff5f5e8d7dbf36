"""What is broken by which mutation. Each is caught by a test in tests/faults/test_mutations.py."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from typing import Any

IN_WORKER = any("spawn_main" in part for part in sys.orig_argv)


def another_boot() -> None:
    """No mutation of the farm but of the machine: it has booted since."""
    from luna_farm import system

    system.boot_id = lambda: "00000000-0000-0000-0000-000000000000"


def no_notes() -> None:
    """What was published just before a crash is not recognised by the note of its worker."""
    from luna_farm.storage import notes

    notes._numbered = lambda path: []
    _no_times()


def _no_times() -> None:
    """Nor by its time of modification, the second guard."""
    from luna_farm.storage import writer

    writer._same = lambda folder, file: None


def acknowledge_before_journal() -> None:
    """The record of a job is written a while after the client was told yes."""
    if IN_WORKER:
        return
    import asyncio

    from luna_farm.supervisor.journal_writer import JournalWriter

    real = JournalWriter.accept

    def later(self: JournalWriter, records: list[dict[str, Any]], sync: bool) -> None:
        asyncio.get_running_loop().call_soon(real, self, records, sync)

    JournalWriter.accept = later


def no_checksum() -> None:
    """Whatever bytes have the right length count as a record."""
    from luna_farm.storage import journal_records

    class NoZlib:
        crc32 = staticmethod(lambda data: 0)

    journal_records.zlib = NoZlib


def no_fence() -> None:
    """Workers of a dead supervisor are left alone."""
    if IN_WORKER:
        return
    from luna_farm.supervisor import opening

    opening.fence = lambda workers: 0


def note_after_naming() -> None:
    """A worker notes which file got which name once it has the name."""
    from luna_farm.storage import writer

    _no_times()
    real = writer.publish

    def publish(*args: Any, **named: Any) -> Any:
        write, kept = named["note"], []
        published = real(*args, **{**named, "note": kept.append})
        for note in kept:
            write(note)
        return published

    writer.publish = publish


def exists_then_rename() -> None:
    """Names are looked at first and taken later, as most programs do."""
    from luna_farm.storage import naming, ways, writer

    def give(folder: Any, fd: int, file: Any, name: str, way: Any) -> None:
        if folder.stat(name) is not None:
            raise FileExistsError(name)
        time.sleep(0.001)  # on a quiet machine the others would seldom meet this moment
        folder.replace(file.temp, name)

    naming._give = give
    writer._first_way = lambda device: ways.Way.LINK


def no_links() -> None:
    """No mutation of the farm but of its disks: neither links nor renames that replace nothing, as exFAT."""
    from luna_farm.storage.folder import Folder

    def missing(*args: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    Folder.create_unnamed = Folder.link = Folder.rename = missing


def no_unnamed_files() -> None:
    """No mutation of the farm but of its disks: files have a name from the start, as on NFS or macOS."""
    from luna_farm.storage.folder import Folder

    def missing(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    Folder.create_unnamed = missing


def clock_a_day_forth() -> None:
    """The clock of the wall jumps a day ahead and a day back every quarter of a second."""
    real = time.time
    day = 86_400.0
    time.time = lambda: real() + (day if int(real() * 4) % 2 else -day)


def workers_cannot_start() -> None:
    """No mutation of the farm but of its installation: a worker ends before it is ready."""
    if IN_WORKER:
        os._exit(3)


def little_time_to_drain() -> None:
    """No mutation of the farm but of its patience: half a second instead of 80."""
    if IN_WORKER:
        return
    from luna_farm.supervisor import supervisor

    supervisor.DRAIN_S = 0.5


MUTATIONS: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        another_boot,
        no_notes,
        acknowledge_before_journal,
        no_checksum,
        no_fence,
        note_after_naming,
        exists_then_rename,
        no_links,
        no_unnamed_files,
        clock_a_day_forth,
        workers_cannot_start,
        little_time_to_drain,
    )
}


def apply(name: str) -> None:
    """Break `name` in this process."""
    if os.environ.get("LUNA_FARM_TEST_MUTATION"):
        MUTATIONS[name]()
