"""The thumbnails that are kept: found again, bounded, and never worth an error of a save."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from luna_farm.storage.thumbnails import Thumbnails

MIB = 1 << 20


def jpeg(number: int, size: int = 6000) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


@pytest.fixture
def store(tmp_path: Path) -> Thumbnails:
    made = Thumbnails(tmp_path / "thumbnails.sqlite", MIB)
    yield made
    made.close()


def test_they_are_found_by_job_and_number(store: Thumbnails) -> None:
    store.put([("a", 0, jpeg(1)), ("a", 1, jpeg(2)), ("b", 0, jpeg(3))])
    keys = [("b", 0), ("a", 1), ("a", 7), ("c", 0)]
    assert list(store.get(keys)) == [("b", 0, jpeg(3)), ("a", 1, jpeg(2))]
    store.put([("a", 1, jpeg(9))])
    assert list(store.get([("a", 1)])) == [("a", 1, jpeg(9))]


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert list(Thumbnails(tmp_path / "none", MIB).get([("a", 0)])) == []


def test_only_its_user_may_read_the_file(store: Thumbnails) -> None:
    store.put([("a", 0, b"x")])
    assert Path(store.path).stat().st_mode & 0o077 == 0


def test_the_oldest_give_way_at_the_bound(store: Thumbnails) -> None:
    for job in range(100):
        store.put([(f"job{job}", n, jpeg(job * 8 + n)) for n in range(8)])
    kept = [job for job in range(100) if list(store.get([(f"job{job}", 0)]))]
    assert kept == list(range(kept[0], 100)), "only the oldest are gone"
    assert 5 < len(kept) < 25
    size = sum(file.stat().st_size for file in Path(store.path).parent.iterdir())
    assert size < MIB + 8 * 2**20, "the log beside it has a bound, too"


def test_a_bound_that_is_smaller_than_one_thumbnail_ends(tmp_path: Path) -> None:
    store = Thumbnails(tmp_path / "t", 1)
    store.put([("a", 0, jpeg(1))])
    assert list(store.get([("a", 0)])) == []
    store.close()


def test_several_write_one_file(tmp_path: Path) -> None:
    stores = [Thumbnails(tmp_path / "t", MIB) for _ in range(3)]
    for n in range(10):
        for which, store in enumerate(stores):
            store.put([(f"job{which}", n, jpeg(n))])
    keys = [(f"job{which}", n) for which in range(3) for n in range(10)]
    assert len(list(stores[0].get(keys))) == 30
    for store in stores:
        store.close()


def test_several_make_one_file_at_the_same_moment(tmp_path: Path) -> None:
    stores = [[Thumbnails(tmp_path / f"{n}", MIB) for n in range(20)] for _ in range(4)]
    at_once = threading.Barrier(len(stores))

    def put(which: int) -> None:
        for store in stores[which]:
            at_once.wait(60)
            store.put([(f"job{which}", 0, jpeg(which))])
            store.close()

    with ThreadPoolExecutor(len(stores)) as pool:
        assert list(pool.map(put, range(len(stores)))) == [None] * len(stores)
    keys = [(f"job{which}", 0) for which in range(len(stores))]
    assert [len(list(store.get(keys))) for store in stores[0]] == [len(stores)] * 20


@pytest.mark.parametrize("nonsense", [b"no database" * 1000, b""])
def test_a_damaged_file_is_begun_anew(store: Thumbnails, nonsense: bytes) -> None:
    Path(store.path).write_bytes(nonsense)
    assert list(store.get([("a", 0)])) == []
    store.put([("a", 0, jpeg(1))])
    assert list(store.get([("a", 0)])) == [("a", 0, jpeg(1))]


def test_a_file_that_was_removed_is_made_again(store: Thumbnails) -> None:
    store.put([("a", 0, jpeg(1))])
    for file in list(Path(store.path).parent.iterdir()):
        file.unlink()
    store.put([("b", 0, jpeg(2))])
    assert list(store.get([("a", 0), ("b", 0)])) == [("b", 0, jpeg(2))]


def test_a_file_that_another_program_locks_is_left_alone(
    store: Thumbnails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luna_farm.storage.thumbnails.BUSY_S", 0.0)
    store.put([("a", 0, jpeg(1))])
    store.close()
    other = sqlite3.connect(store.path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.put([("b", 0, jpeg(2))])
    other.close()
    store.put([("b", 0, jpeg(2))])
    assert len(list(store.get([("a", 0), ("b", 0)]))) == 2
