"""The journal: every whole record comes back, nothing else does, and no content of the file makes it fall
over."""

from __future__ import annotations

import os
import random
import signal
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm import system
from luna_farm.errors import DiskError, TooLarge
from luna_farm.storage import journal as module
from luna_farm.storage import journal_records
from luna_farm.storage.journal import KEPT_ASIDE_FILES, Journal, Replay

SAMPLE: list[dict[str, Any]] = [
    {
        "kind": "accept",
        "job": f"job{number}",
        "paths": [f"/out/{number}.png"],
        "text": "ä" * number,
        "score": None,
    }
    for number in range(14)
]


def _write(path: Path, records: list[dict[str, Any]]) -> list[int]:
    """Write a journal and return where each record ends."""
    journal, _ = Journal.open(path)
    ends = [_append(journal, record) for record in records]
    journal.close()
    return ends


def _append(journal: Journal, record: dict[str, Any]) -> int:
    journal.append(record)
    return journal.bytes


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the waiting for the disk, for tests that cut a thousand journals."""
    monkeypatch.setattr(system, "sync_data", lambda fd: None)


def _replay(path: Path) -> Replay:
    journal, replay = Journal.open(path)
    journal.close()
    return replay


def test_a_new_journal_is_empty_private_and_not_inherited(tmp_path: Path) -> None:
    journal, replay = Journal.open(tmp_path / "journal")
    assert replay == Replay([], 0, None)
    assert journal.bytes == 0
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600
    assert os.get_inheritable(journal._fd) is False
    journal.close()
    journal.close()


def test_records_come_back_in_order_and_more_can_follow(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path, SAMPLE[:5])
    journal, replay = Journal.open(path)
    assert replay == Replay(SAMPLE[:5], 0, None)
    journal.append(SAMPLE[5])
    journal.sync()
    assert journal.bytes == path.stat().st_size
    journal.close()
    assert _replay(path).records == SAMPLE[:6]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary()
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


NAMES = st.text().filter(lambda name: name not in ("#", "r"))
"""The first is the journal's own, and the second says what a record is: `format` is one of the journal's."""


@given(st.lists(st.dictionaries(NAMES | st.integers(0, 9), values, max_size=4), max_size=6))
@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("unsynced")
def test_any_records_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "journal"
    _write(path, records)
    assert _replay(path) == Replay(records, 0, None)


def test_lone_surrogates_of_foreign_text_survive(tmp_path: Path) -> None:
    _write(tmp_path / "journal", [{"prompt": "\ud83d broken"}])
    assert _replay(tmp_path / "journal").records == [{"prompt": "\ud83d broken"}]


@pytest.mark.usefixtures("unsynced")
def test_a_journal_cut_at_any_byte_gives_exactly_the_whole_records_before(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ends = _write(path, SAMPLE)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        replay = _replay(path)
        count = sum(end <= length for end in ends)
        good = ends[count - 1] if count else 0
        assert (replay.records, replay.cut_bytes) == (SAMPLE[:count], length - good)
        assert path.stat().st_size == good
        if length > good:
            assert replay.kept_aside is not None
            assert Path(replay.kept_aside).read_bytes() == whole[good:length]


@pytest.mark.usefixtures("unsynced")
def test_a_thousand_flipped_bits_cost_the_record_that_is_hit_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ends = _write(path, SAMPLE)
    whole = path.read_bytes()
    dice = random.Random(19283)
    for _ in range(1000):
        at = dice.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :])
        hit = sum(end <= at for end in ends)
        replay = _replay(path)
        assert replay.records == SAMPLE[:hit] + SAMPLE[hit + 1 :]
        assert not replay.whole


@pytest.mark.parametrize("zeros", [1, 11, 12, 13, 4096, 100_000])
def test_a_tail_of_zeros_holds_no_records(tmp_path: Path, zeros: int) -> None:
    path = tmp_path / "journal"
    _write(path, SAMPLE)
    with path.open("ab") as file:
        file.write(bytes(zeros))
    replay = _replay(path)
    assert (replay.records, replay.cut_bytes) == (SAMPLE, zeros)
    assert _replay(path) == Replay(SAMPLE, 0, None)


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("unsynced")
def test_any_other_file_is_kept_aside_and_the_journal_starts_anew(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / "journal"
    path.write_bytes(content)
    journal, replay = Journal.open(path)
    assert (replay.records, replay.cut_bytes) == ([], len(content))
    journal.append(SAMPLE[1])
    journal.close()
    assert _replay(path).records == [SAMPLE[1]]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x01",
        b"\x91\x01",
        b"\x81\x91\x01\x02",
        b"\xa1\xff",
        b"\x81\xa1\xff\x01",
        b"\x91" * 5000,
    ],
)
def test_a_right_checksum_over_no_map_is_damage_too(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "journal"
    _write(path, SAMPLE[:2])
    with path.open("ab") as file:
        file.write(
            b"LFJ1" + len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big") + payload
        )
    assert _replay(path).records == SAMPLE[:2]


def test_only_a_few_cut_tails_are_kept_and_the_oldest_goes_first(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for number in range(KEPT_ASIDE_FILES + 2):
        path.write_bytes(b"damage %d" % number)
        kept = _replay(path).kept_aside
        assert kept is not None
        os.utime(kept, (number, number))
    tails = sorted(each.read_bytes() for each in tmp_path.glob("journal.cut-*"))
    assert tails == [b"damage %d" % number for number in range(2, KEPT_ASIDE_FILES + 2)]


def test_records_written_together_are_numbered_one_by_one_and_all_or_none_are_there(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    journal.append(SAMPLE[0])
    journal.append(*SAMPLE[1:5])
    before = journal.end
    with pytest.raises(TooLarge):
        journal.append(SAMPLE[5], {"text": "x" * (journal_records.MAX_RECORD_BYTES + 1)})
    assert journal.end == before
    journal.append(*SAMPLE[5:])
    journal.close()
    _, replay = Journal.open(tmp_path / "journal")
    assert replay.records == SAMPLE
    assert (replay.misplaced, replay.cut_bytes) == (0, 0)


def test_a_long_cut_tail_is_kept_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ASIDE_BYTES", 100)
    (tmp_path / "journal").write_bytes(b"x" * 1000)
    replay = _replay(tmp_path / "journal")
    assert replay.cut_bytes == 1000
    assert Path(str(replay.kept_aside)).stat().st_size == 100


def test_a_disk_that_keeps_nothing_aside_does_not_keep_the_farm_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"damage")
    for number in range(1, KEPT_ASIDE_FILES + 1):
        Path(f"{path}.cut-{number}").mkdir()
    assert _replay(path) == Replay([], 6, None)


def test_what_cannot_be_opened_or_read_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none" / "journal", tmp_path / "link", tmp_path / "pipe"):
        with pytest.raises(DiskError, match="journal"):
            Journal.open(path)


def test_a_record_too_large_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_records, "MAX_RECORD_BYTES", 50)
    journal, _ = Journal.open(tmp_path / "journal")
    with pytest.raises(TooLarge, match="size of one journal record"):
        journal.append({"x": "y" * 60})
    with pytest.raises(TooLarge):
        journal.rewrite([{"x": "y" * 60}])
    assert os.listdir(tmp_path) == ["journal"]
    assert journal.bytes == 0


LIMITED = """
import resource, sys
from luna_farm.errors import DiskError
from luna_farm.storage.journal import Journal
journal, _ = Journal.open(sys.argv[1])
journal.append({"n": 0})
room = journal.bytes * 2 + 5
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
journal.append({"n": 1})
for _ in range(2):
    try:
        journal.append({"n": 2})
    except DiskError as error:
        print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append({"n": 3})
"""


def test_a_write_that_stops_in_the_middle_is_undone_and_told(tmp_path: Path, python: Any) -> None:
    ended = python(LIMITED, str(tmp_path / "journal"))
    assert (ended.stderr, ended.stdout) == ("", "refused\nrefused\n")
    assert _replay(tmp_path / "journal") == Replay([{"n": 0}, {"n": 1}, {"n": 3}], 0, None)


def test_nothing_is_appended_behind_half_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    journal.append(SAMPLE[0])

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def broken(fd: int, length: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(module, "half_write", lambda name, fd, data: os.write(fd, data[:5]) and full(fd, data))
        patch.setattr(os, "ftruncate", broken)
        for _ in range(2):
            with pytest.raises(DiskError, match="cut half a record"):
                journal.append(SAMPLE[1])
    journal.append(SAMPLE[2])
    journal.close()
    assert _replay(tmp_path / "journal") == Replay([SAMPLE[0], SAMPLE[2]], 0, None)


def test_a_sync_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    journal, _ = Journal.open(tmp_path / "journal")
    monkeypatch.setattr(system, "sync_data", broken)
    with pytest.raises(DiskError, match=r"Cannot sync the journal .*Input/output error"):
        journal.sync()


def test_compacting_leaves_the_given_records_and_appending_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, _ = Journal.open(path)
    for record in SAMPLE:
        journal.append(record)
    before = journal.bytes
    journal.rewrite(iter(SAMPLE[10:]))
    assert journal.bytes == path.stat().st_size < before
    journal.append(SAMPLE[0])
    journal.close()
    assert _replay(path) == Replay([*SAMPLE[10:], SAMPLE[0]], 0, None)
    assert os.listdir(tmp_path) == ["journal"]


def test_compacting_writes_in_blocks_and_gives_every_descriptor_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 200)
    journal, _ = Journal.open(tmp_path / "journal")
    before = len(os.listdir("/proc/self/fd"))
    journal.rewrite(SAMPLE)
    assert len(os.listdir("/proc/self/fd")) == before
    journal.close()
    assert _replay(tmp_path / "journal").records == SAMPLE


def test_a_compaction_that_fails_leaves_the_old_journal_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    journal, _ = Journal.open(path)
    journal.append(SAMPLE[0])

    def broken(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", broken)
        with pytest.raises(DiskError, match="Cannot compact the journal"):
            journal.rewrite([])
    assert os.listdir(tmp_path) == ["journal"]
    journal.append(SAMPLE[1])
    journal.close()
    assert _replay(path).records == SAMPLE[:2]


KILLED = """
import sys
from luna_farm.storage.journal import Journal
journal, replay = Journal.open(sys.argv[1])
number = len(replay.records)
for number in range(number, number + 3):
    print(number, flush=True)
    journal.append({"n": number})
journal.rewrite([{"n": number} for number in range(number + 1)])
"""


@pytest.mark.parametrize(
    ("point", "whole", "cut"), [("journal.half_record:2", 1, True), ("journal.compacting", 3, False)]
)
def test_a_kill_in_the_middle_loses_nothing_that_was_written(
    tmp_path: Path, python: Any, point: str, whole: int, cut: bool
) -> None:
    path = tmp_path / "journal"
    ended = python(KILLED, str(path), LUNA_FARM_CRASH=point)
    assert ended.returncode == -signal.SIGKILL
    replay = _replay(path)
    assert replay.records == [{"n": number} for number in range(whole)]
    assert (replay.cut_bytes > 0) is cut
    assert python(KILLED, str(path)).returncode == 0
    assert _replay(path).records == [{"n": number} for number in range(whole + 3)]
    assert not Path(f"{path}.new").exists()


def test_a_folder_that_cannot_be_synced_is_told_and_the_new_journal_stays_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> None:
        raise OSError(5, "Input/output error")

    journal, _ = Journal.open(tmp_path / "journal")
    journal.append(SAMPLE[0])
    with monkeypatch.context() as patch:
        patch.setattr(system, "sync_folder", broken)
        with pytest.raises(DiskError, match="sync the folder"):
            journal.rewrite(SAMPLE[1:3])
    journal.append(SAMPLE[3])
    journal.close()
    assert _replay(tmp_path / "journal").records == SAMPLE[1:4]


def test_a_journal_says_whether_anything_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert not _replay(path).whole, "a journal that was removed looks like this"
    journal, _ = Journal.open(path)
    journal.rewrite(SAMPLE)
    journal.close()
    assert _replay(path) == Replay(SAMPLE)
    assert _replay(path).whole
    data = path.read_bytes()
    for damaged in (data[:-1], data[20:], data[:50] + data[51:], b"LFJ9" + data[4:]):
        path.write_bytes(damaged)
        assert not _replay(path).whole


def test_a_journal_of_a_newer_format_is_refused_and_stays_untouched(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path, [{"r": "format", "format": 3}, *SAMPLE])
    data = path.read_bytes()
    with pytest.raises(DiskError, match="has format 3, this version of Luna Farm reads up to 2"):
        Journal.open(path)
    assert path.read_bytes() == data


def test_the_format_before_is_read(tmp_path: Path) -> None:
    _write(tmp_path / "journal", SAMPLE)
    assert _replay(tmp_path / "journal").records == SAMPLE


def test_records_are_synced_in_a_thread_whatever_happens_to_the_file_meanwhile(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    sync = journal.syncing()
    journal.rewrite(SAMPLE)
    journal.close()
    sync()
