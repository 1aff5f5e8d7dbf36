"""Keeps the journal in step with the farm: what is appended when, what waits for a disk, when it is
compacted.

A new job is refused when its record cannot be written. Everything else has happened already and is written as
soon as it can be, in order.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from luna_farm.core.counted import counted
from luna_farm.errors import DiskError, FarmBusy, FarmError
from luna_farm.storage.journal import Journal
from luna_farm.testing.faults import crash_point

log = logging.getLogger("luna_farm.journal")

COMPACT_AGAIN_S = 1.0
"""A full journal is compacted no more often: that writes all of it, 64 MB as a rule."""


SYNC_EVERY_S = 1.0
"""How often the journal is synced while it grows. Durable jobs sync it at once."""


class JournalWriter:
    """The journal of one supervisor."""

    def __init__(self, journal: Journal, max_bytes: int) -> None:
        self._journal = journal
        self._max_bytes = max_bytes
        self._behind: deque[dict[str, Any]] = deque()
        self._compact_at = max_bytes // 2
        self._refused = False
        """A job found the journal full since it was compacted."""
        self._compacted_bytes = 0
        self._compacted_at = 0.0
        self._synced_at = 0.0
        self._synced_bytes = 0
        self.blocked = ""
        """Why no records may be written now; set from outside."""

    def in_place(self) -> bool:
        """Whether the file still has its name."""
        return self._journal.in_place()

    @property
    def error(self) -> str:
        """Why the journal is behind, "" when it is not."""
        if self.blocked:
            return self.blocked
        return f"{counted(len(self._behind), 'record')} not on the journal's disk yet" if self._behind else ""

    def begin(self, records: Iterable[dict[str, Any]]) -> None:
        """Start the journal of this supervisor, or a new file, with all that is open. Raises DiskError."""
        self._journal.rewrite(records)
        self._behind.clear()
        self._compacted_bytes, self._compacted_at = self._journal.bytes, time.monotonic()

    def accept(self, records: Sequence[dict[str, Any]], sync: bool) -> FarmError | None:
        """Write the records by which images are accepted (synced for durable ones), or return why they must
        not be."""
        if self._behind:
            self.catch_up()
        if self._behind or self.blocked:
            return DiskError(self.error)
        if self._journal.bytes >= self._max_bytes:
            self._refused = True
            return FarmBusy(
                f"the journal holds {self._journal.bytes:,} bytes of open jobs (setting journal_bytes)"
            )
        before = self._journal.end
        try:
            self._journal.append(*records)
            if sync:
                self._journal.sync()
        except FarmError as error:
            if self._journal.end != before:
                self._take_back(before)
            return error
        crash_point("supervisor.journaled")
        return None

    def _take_back(self, end: tuple[int, int]) -> None:
        """Forget a record that was refused after all, or the next start would take its job up. What the disk
        made of the rest is unknown after a failed sync: the whole journal is written anew."""
        self._compact_at = 0
        try:
            self._journal.take_back(end)
        except FarmError as error:
            log.error("A refused job may come back at the next start: %s", error)

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Write what has happened, now or when the disk allows."""
        self._behind.extend(records)
        self.catch_up()
        crash_point("supervisor.result_journaled")

    def synced(self) -> bool:
        """Sync all records so far to the disk; False if that is not possible now."""
        if self._behind:
            return False
        try:
            self._journal.sync()
        except FarmError as error:
            log.error("%s", error)
            self._compact_at = 0  # written anew: a sync that failed is never asked again
            return False
        return True

    def sync_if_due(self) -> Callable[[], None] | None:
        """Return what syncs the journal, for a thread, at most every SYNC_EVERY_S and only if it has grown.

        It bounds what a power cut can take: jobs accepted within the last SYNC_EVERY_S, and what one sync
        takes, are not named by the next start.
        """
        now = time.monotonic()
        if now - self._synced_at < SYNC_EVERY_S or self._journal.bytes == self._synced_bytes:
            return None
        self._synced_at, self._synced_bytes = now, self._journal.bytes
        sync = self._journal.syncing()

        def work() -> None:
            try:
                sync()
            except FarmError as error:
                log.error("%s", error)
                self._compact_at = 0  # written anew: a sync that failed is never asked again

        return work

    def catch_up(self) -> None:
        """Write what waits, in order, until the disk refuses."""
        while self._behind:
            try:
                self._journal.append(self._behind[0])
            except FarmError as error:
                log.error("The journal cannot be written, no new jobs are taken: %s", error)
                return
            self._behind.popleft()

    def compact_if_due(self, snapshot: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Make the journal small again once it has grown, or is full and jobs have ended since; to be called
        only while no record is on its way."""
        if self._behind or not (self._journal.bytes >= self._compact_at or self._may_help()):
            return
        before = self._journal.bytes
        try:
            self._journal.rewrite(snapshot())
        except FarmError as error:
            log.error("The journal cannot be compacted: %s", error)
        # Twice what is needed at least, so that a journal full of open jobs is not written anew for each of
        # them.
        self._compact_at = max(self._max_bytes // 2, 2 * self._journal.bytes)
        self._compacted_bytes, self._compacted_at = self._journal.bytes, time.monotonic()
        self._refused = False
        log.debug("Journal compacted from %d to %d bytes", before, self._journal.bytes)

    def _may_help(self) -> bool:
        """A journal that was full of open jobs when it was last compacted takes new ones as these end."""
        grown = self._journal.bytes > self._compacted_bytes
        return self._refused and grown and time.monotonic() - self._compacted_at >= COMPACT_AGAIN_S

    def close(self) -> None:
        """Close the file; what could not be written is logged."""
        self.catch_up()
        if self._behind:
            log.error("%s; the next start finds the files by the notes of the workers.", self.error)
        self._journal.close()
