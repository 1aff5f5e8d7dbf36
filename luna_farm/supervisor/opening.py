"""The state folder of a farm is taken: its lock, journal, reports and arena, and what a predecessor left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from luna_farm.config import Config
from luna_farm.core import recovery
from luna_farm.core.counted import counted
from luna_farm.engine.child import fence
from luna_farm.storage.arena import Arena, Segments
from luna_farm.storage.arena_size import establish
from luna_farm.storage.journal import Journal, Replay
from luna_farm.storage.reports import Reports
from luna_farm.storage.state_lock import StateLock
from luna_farm.supervisor import state_dir


@dataclass(frozen=True, slots=True)
class Opening:
    """A state folder that was taken. `notes` are sentences for a person."""

    lock: StateLock
    journal: Journal
    reports: Reports
    arena: Arena
    segments: Segments
    recovered: recovery.RecoveredState
    whole: bool
    """Every record of the journal was read: no job is missing."""
    notes: tuple[str, ...]


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Opening]:
    """Take the state folder, and end the workers of a predecessor; release its lock in the end.

    Raises AlreadyRunning, DiskError, ArenaError.
    """
    lock = state_dir.prepare(config.state_dir)
    try:
        journal, replay = Journal.open(config.state_dir / state_dir.JOURNAL)
        reports = Reports(config.state_dir / state_dir.REPORTS)
        recovered = recovery.read(replay.records, reports.read()[-config.kept_reports :])
        fenced = fence(recovered.workers)
        arena, notes = establish(config.arena_bytes, config.state_dir, keep=recovered.segments_in_use())
        notes += [*_damage(replay), *_unread(recovered, journal)]
        if fenced:
            notes.append(f"Ended {counted(fenced, 'worker')} of the farm that ran before, still alive.")
        segments = Segments()
        segments.add(arena)
        whole = replay.whole and not recovered.unread
        yield Opening(lock, journal, reports, arena, segments, recovered, whole, tuple(notes))
    finally:
        lock.release()


def _damage(replay: Replay) -> Iterator[str]:
    if replay.cut_bytes:
        named = ", ".join(replay.damaged_jobs[:20])
        jobs = f" They name the jobs {named}." if named else ""
        yield f"{replay.cut_bytes} bytes of the journal were no record; kept: {replay.kept_aside}.{jobs}"
    if replay.misplaced:
        yield f"In the wrong place or twice in the journal: {counted(replay.misplaced, 'record')}."


def _unread(recovered: recovery.RecoveredState, journal: Journal) -> Iterator[str]:
    if recovered.unread:
        kinds = ", ".join(dict.fromkeys(recovered.unread))[:200]
        yield (
            f"The journal has {counted(len(recovered.unread), 'record')} that this version cannot read"
            f" (of {kinds}); kept: {journal.keep_aside()}"
        )
