"""The writer: rows replace those of the same image, transactions are whole, damaged files are set aside."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luna_farm.catalogue import schema
from luna_farm.catalogue.rows import FIELDS, SEED_RANGE, STATES, CatalogueRow, from_map, kept
from luna_farm.catalogue.search import Catalogue, Query
from luna_farm.catalogue.store import Store

MakeRow = Callable[..., CatalogueRow]

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    CatalogueRow,
    path=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).map(
        "/a/b\\".__add__
    ),
    state=st.sampled_from(STATES),
    job_id=st.sampled_from(["", "a1b2c3d4"]),
    format=TEXT,
    width=st.integers(0, 2**31),
    crc32=st.none() | st.integers(0, 2**32 - 1),
    submitted_at=NUMBER,
    saved_at=st.integers(0, 2**41).map(lambda ms: ms / 1000),
    prompt=TEXT,
    negative=TEXT,
    model=TEXT,
    loras=st.lists(TEXT, max_size=3).map(tuple),
    steps=st.none() | st.integers(-(2**40), 2**40),
    cfg=NUMBER,
    seed=st.none()
    | st.sampled_from([-1, 0, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
    | st.integers(0, 2**64 - 1),
    custom=TEXT,
    warnings=st.lists(TEXT, max_size=3).map(tuple),
    error=TEXT,
    variance=NUMBER,
    blank=st.none() | st.booleans(),
    phash=st.just("") | st.integers(0, 2**64 - 1).map("{:016x}".format),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_a_row_comes_back_as_it_was(tmp_path: Path, row: CatalogueRow) -> None:
    path = tmp_path / "one.sqlite"
    path.unlink(missing_ok=True)
    store, catalogue = Store(path), Catalogue(path)
    try:
        store.put([row])
        (found,) = catalogue.search(failed=row.state == "failed")
        index = row.index if row.job_id else 0
        assert replace(found, id=0) == replace(row, index=index, saved_at=found.id / 1000)
        assert abs(found.saved_at - row.saved_at) < 0.002
        assert from_map(found.to_map()) == found
        store.remove([found.id])
        assert catalogue.count(Query(failed=row.state == "failed")) == 0
    finally:
        store.close()
        catalogue.close()


def test_a_seed_beyond_64_bits_is_not_known(store: Store, catalogue: Catalogue, make_row: MakeRow) -> None:
    store.put([make_row(seed=SEED_RANGE.stop), make_row(seed=SEED_RANGE.start - 1)])
    assert [row.seed for row in catalogue.search()] == [None, None]
    assert catalogue.search(seed=SEED_RANGE.stop) == []


def test_a_file_that_is_written_again_has_one_row(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    store.put([make_row(path="/a/x.png", prompt="first"), make_row(path="/a/y.png", prompt="other")])
    store.put([make_row(path="/a/x.png", prompt="second")])
    assert [row.prompt for row in catalogue.search()] == ["second", "other"]
    assert catalogue.search("first") == []
    assert [row.path for row in catalogue.search("second")] == ["/a/x.png"]


def test_a_failed_image_that_is_saved_after_all_has_one_row(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    job = {"job_id": "a1b2c3d4", "index": 1, "path": "/a/x.png"}
    store.put([make_row(**job, state="failed", error="no memory")])
    assert store.holds("a1b2c3d4", 1)
    assert not store.holds("a1b2c3d4", 0)
    store.put([make_row(**job)])
    assert catalogue.search(failed=True) == []
    assert len(catalogue.search(job="a1b2c3d4")) == 1
    store.remove_image("a1b2c3d4", 1)
    assert not store.holds("a1b2c3d4", 1)


def test_another_image_may_be_saved_under_the_name_of_a_failed_one(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    store.put([make_row(path="/a/x.png", state="failed", job_id="a1b2c3d4", error="no memory")])
    store.put([make_row(path="/a/x.png", job_id="ffffffff")])
    assert len(catalogue.search()) == len(catalogue.search(failed=True)) == 1


def test_old_rows_are_removed(store: Store, catalogue: Catalogue, make_row: MakeRow) -> None:
    rows = [make_row(prompt="word") for _ in range(1100)]
    store.put(rows)
    assert store.prune(int(rows[1090].saved_at * 1000)) == 1090
    assert len(catalogue.search("word", limit=100)) == 10


def test_rows_below_a_folder(store: Store, make_row: MakeRow) -> None:
    paths = ["/a/b/x.png", "/a/b/c/y.png", "/a/bb/z.png", "s3://a/b/x.png"]
    store.put([make_row(path=path) for path in paths])
    assert sorted(path for _, path in store.below("/a/b/")) == ["/a/b/c/y.png", "/a/b/x.png"]
    found = store.of_path("/a/bb/z.png")
    assert found is not None
    assert found.path == "/a/bb/z.png"
    assert store.of_path("/a/bb/none.png") is None


def test_a_transaction_that_fails_writes_nothing(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        store.put([make_row(model="m", negative="n"), make_row(state="unknown state")])
    assert catalogue.count(Query()) == 0
    store.put([make_row(model="m", negative="n")])  # what was numbered in vain is numbered again
    assert [(row.model, row.negative) for row in catalogue.search()] == [("m", "n")]


def _count(path: Path) -> int:
    with contextlib.closing(Catalogue(path)) as catalogue:
        return catalogue.count(Query())


def test_several_make_one_file_at_the_same_moment(tmp_path: Path, make_row: MakeRow) -> None:
    """A farm that starts beside `catalogue rebuild`: neither takes the file of the other for damaged."""
    at_once = threading.Barrier(3)

    def begin(number: int) -> list[str]:
        set_aside = []
        for round_ in range(10):
            at_once.wait(60)
            store = Store(tmp_path / f"{round_}")
            store.put([make_row(path=f"/out/{number}.png")])
            store.close()
            set_aside.append(store.set_aside)
        return set_aside

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(begin, range(3))) == [[""] * 10] * 3
    assert [_count(tmp_path / f"{n}") for n in range(10)] == [3] * 10


@pytest.mark.parametrize("damage", ["garbage", "version", "empty"])
def test_a_file_that_cannot_be_used_is_set_aside(path: Path, make_row: MakeRow, damage: str) -> None:
    if damage == "version":
        connection = sqlite3.connect(path)
        connection.executescript("PRAGMA user_version = 99; CREATE TABLE x (y)")
        connection.close()
    else:
        path.write_bytes(b"" if damage == "empty" else b"garbage" * 2000)
    store = Store(path)
    try:
        store.put([make_row()])
        assert _count(path) == 1
    finally:
        store.close()
    set_aside = path.with_name(path.name + ".damaged")
    assert set_aside.exists() == (damage != "empty")
    assert ("set aside" in store.set_aside) == (damage != "empty")


def test_of_two_that_find_one_damaged_file_the_later_leaves_the_new_file_of_the_other(
    path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"garbage" * 2000)
    writing = schema.writing

    def overtaken(at: str) -> sqlite3.Connection:
        """Open the damaged file; before the answer is here another process has made a new one."""
        monkeypatch.setattr(schema, "writing", writing)
        try:
            return writing(at)
        finally:
            other = Store(at)
            other.put([make_row(path="/out/of_the_other.png")])
            other.close()

    monkeypatch.setattr(schema, "writing", overtaken)
    store = Store(path)
    store.put([make_row(path="/out/of_this_one.png")])
    store.close()
    assert store.set_aside == ""
    assert _count(path) == 2
    assert path.with_name(path.name + ".damaged").read_bytes() == b"garbage" * 2000


def test_the_file_is_for_this_user_only(path: Path, store: Store) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_fields_that_are_not_kept_are_left_out(make_row: MakeRow) -> None:
    row = make_row(prompt="p", negative="n", seed=5, model="m", custom="{}", phash="0" * 16, affix="RAW")
    assert kept(row, FIELDS) == row
    thin = kept(row, ["model"])
    assert (thin.model, thin.affix) == ("m", "RAW")
    assert (thin.prompt, thin.negative, thin.seed, thin.custom, thin.phash) == ("", "", None, "", "")
