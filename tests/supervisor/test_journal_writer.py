"""The journal of a running farm: full, refused by its disk, and small again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luna_farm.errors import DiskError, FarmBusy
from luna_farm.storage.journal import Journal
from luna_farm.supervisor import journal_writer
from luna_farm.supervisor.journal_writer import JournalWriter

Record = dict[str, Any]
LARGE: Record = {"r": "job", "text": "x" * 1000}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "journal")[0]


def found(tmp_path: Path) -> list[Record]:
    return Journal.open(tmp_path / "journal")[1].records


def test_a_full_journal_takes_jobs_again_once_others_have_ended(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(journal_writer.time, "monotonic", lambda: clock[0])
    kept = JournalWriter(journal, 3000)
    kept.begin([LARGE, LARGE, LARGE])
    assert isinstance(kept.accept([LARGE], sync=False), FarmBusy)
    clock[0] += journal_writer.COMPACT_AGAIN_S
    kept.compact_if_due(lambda: [LARGE] * 3)
    kept.compact_if_due(lambda: pytest.fail("nothing has ended since: writing it all again cannot help"))
    kept.accept([LARGE], sync=False)
    kept.append([{"r": "image"}])
    kept.compact_if_due(lambda: pytest.fail("not twice within a second"))
    clock[0] += journal_writer.COMPACT_AGAIN_S
    kept.compact_if_due(lambda: [LARGE])
    assert kept.accept([LARGE], sync=False) is None


def test_a_job_whose_record_cannot_be_synced_does_not_come_back(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = JournalWriter(journal, 10**6)
    kept.begin([])
    assert kept.accept([{"r": "job", "n": 1}], sync=True) is None

    def failing(self: Journal) -> None:
        raise DiskError("Input/output error", "journal")

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "sync", failing)
        assert isinstance(kept.accept([{"r": "job", "n": 2}], sync=True), DiskError)
    assert found(tmp_path) == [{"r": "job", "n": 1}]
    kept.compact_if_due(lambda: [{"r": "job", "n": 1}, {"r": "anew"}])
    assert found(tmp_path) == [{"r": "job", "n": 1}, {"r": "anew"}], "after a failed sync it is written anew"


def test_what_happened_waits_for_the_disk(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = JournalWriter(journal, 10**6)
    kept.begin([])

    def failing(self: Journal, record: Record) -> None:
        raise DiskError("No space left", "journal")

    with monkeypatch.context() as full:
        full.setattr(Journal, "append", failing)
        kept.append([{"r": "image", "n": 1}])
        assert isinstance(kept.accept([LARGE], sync=False), DiskError)
        assert kept.error == "1 record not on the journal's disk yet"
        kept.compact_if_due(lambda: pytest.fail("not while a record is on its way"))
    kept.catch_up()
    assert kept.error == ""
    kept.close()
    assert found(tmp_path) == [{"r": "image", "n": 1}]


def test_what_leans_on_the_journal_asks_whether_it_is_on_the_disk(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = JournalWriter(journal, 10**6)
    kept.begin([])
    assert kept.synced()

    def failing(self: Journal, record: Record | None = None) -> None:
        raise DiskError("Input/output error", "journal")

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "sync", failing)
        assert not kept.synced()
    kept.compact_if_due(lambda: [{"r": "anew"}])
    assert found(tmp_path) == [{"r": "anew"}]
    monkeypatch.setattr(Journal, "append", failing)
    kept.append([{"r": "image"}])
    assert not kept.synced(), "it is not even written"
