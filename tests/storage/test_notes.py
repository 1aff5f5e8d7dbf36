"""The notes of a worker: the one memory of publication."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publishing import fail

from luna_farm import system
from luna_farm.core.messages import Note
from luna_farm.storage import notes
from luna_farm.storage.notes import NOTE_BYTES, NOTES, Notes


def note(number: int) -> Note:
    return Note(f".luna-job-{number}.tmp", f"bild {number}.png", number, 2**40, 2**62, number % 2 > 0)


def kept(path: Path, count: int) -> list[Note]:
    """Write so many notes and die; what is read then."""
    worker = Notes(path)
    for number in range(count):
        worker.write(note(number), sync=False)
    worker.close()
    return notes.read(path)


def test_the_newest_are_kept_in_order_and_the_file_does_not_grow(tmp_path: Path) -> None:
    assert kept(tmp_path / "1", 0) == []
    assert kept(tmp_path / "1", 5) == [note(number) for number in range(5)]
    assert kept(tmp_path / "1", 200) == [note(number) for number in range(200 - NOTES, 200)]
    assert (tmp_path / "1").stat().st_size == NOTE_BYTES * NOTES
    assert notes.read_all(tmp_path) == notes.read(tmp_path / "1")
    notes.remove_all(tmp_path)
    assert notes.read_all(tmp_path) == notes.read_all(tmp_path / "gone") == []
    notes.remove(tmp_path / "1")


def test_the_notes_of_several_workers_are_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    """An image that waits for its disk is with one worker after the other: what the last one noted counts."""
    first, second = Notes(tmp_path / "9"), Notes(tmp_path / "10")
    made = [note(0), replace(note(0), name="later"), replace(note(0), name="last")]
    for worker, one in zip((first, second, first), made, strict=True):
        worker.write(one, sync=False)
    assert notes.read_all(tmp_path) == made


def test_any_name_of_a_file_can_be_noted(tmp_path: Path) -> None:
    worker = Notes(tmp_path / "1")
    odd = Note("." + "t" * 99, "\udcff" + "ä" * 127, 2**63, 2**63, 2**62)
    worker.write(odd, sync=True)
    worker.write(Note("t" * 500, "x", 1, 1, 1), sync=True)
    assert notes.read(tmp_path / "1") == [odd], "one that is too long is left out"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3 * NOTE_BYTES - 1), st.binary(min_size=1, max_size=40), st.integers(0, 3 * NOTE_BYTES))
def test_damage_costs_the_notes_it_hits_and_invents_none(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes, size: int
) -> None:
    path = tmp_path_factory.mktemp("notes") / "1"
    whole = kept(path, 3)
    data = bytearray(path.read_bytes())
    data[at : at + len(junk)] = junk
    path.write_bytes(data[: NOTE_BYTES * NOTES - size])
    hit = {n for n in range(3) if at < (n + 1) * NOTE_BYTES and at + len(junk) > n * NOTE_BYTES}
    found = notes.read(path)
    assert [n for n in whole if n not in found] == [whole[n] for n in sorted(hit) if whole[n] not in found]
    assert all(n in whole for n in found)


def test_a_disk_that_refuses_costs_the_memory_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Notes(tmp_path / "gone" / "1")
    nowhere.write(note(1), sync=True)
    worker = Notes(tmp_path / "1")
    with monkeypatch.context() as broken:
        broken.setattr(system, "sync_data", fail(errno.EIO))
        worker.write(note(1), sync=True)
    monkeypatch.setattr(os, "write", fail(errno.ENOSPC))
    worker.write(note(2), sync=False)
    Notes(tmp_path / "2").write(note(3), sync=False)
    monkeypatch.undo()
    assert notes.read(tmp_path / "1") in ([note(1)], [])
    assert notes.read(tmp_path / "2") == []
