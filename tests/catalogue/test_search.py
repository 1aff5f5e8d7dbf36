"""Searching: filters, pages, near duplicates."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.catalogue.search import Catalogue, Query
from luna_farm.catalogue.store import Store
from luna_farm.errors import CatalogueUnavailable, InvalidRequest

MakeRow = Callable[..., CatalogueRow]

HASH = 0x8F1E_0000_FFFF_1234


def test_without_a_file_nothing_is_found(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "none.sqlite")
    assert not catalogue.exists
    assert catalogue.search("cat") == []
    assert catalogue.count(Query()) == 0
    assert catalogue.get(1) is None
    assert catalogue.models() == []


def test_while_the_file_is_being_made_nothing_is_found(path: Path, catalogue: Catalogue) -> None:
    path.touch()
    assert catalogue.search() == []
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    assert catalogue.search() == []
    connection.close()


def test_pages_go_from_new_to_old_and_miss_nothing(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    rows = [make_row(prompt="a cat") for _ in range(25)]
    store.put(rows)
    for words in ("", "cat"):
        seen, before = [], None
        while page := catalogue.search(words, limit=10, before=before):
            seen += [row.path for row in page]
            before = page[-1].id
        assert seen == [row.path for row in reversed(rows)]
    assert catalogue.count(Query(words="cat")) == 25


def test_an_older_file_that_is_added_later_takes_its_place_in_time(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    old, new = make_row(path="/a/old.png", prompt="x"), make_row(path="/a/new.png", prompt="x")
    store.put([new])
    store.put([old])
    assert [row.path for row in catalogue.search()] == ["/a/new.png", "/a/old.png"]
    assert [row.path for row in catalogue.search("x")] == ["/a/new.png", "/a/old.png"]
    assert [row.path for row in catalogue.search(since=new.saved_at)] == ["/a/new.png"]
    assert [row.path for row in catalogue.search("x", until=old.saved_at)] == ["/a/old.png"]


def test_files_of_the_same_moment_are_all_kept(store: Store, catalogue: Catalogue, make_row: MakeRow) -> None:
    store.put([make_row(path=f"/a/{n}.png", saved_at=1_700_000_000.0) for n in range(1200)])
    store.put([make_row(path=f"/b/{n}.png", saved_at=1_700_000_000.0) for n in range(700)])
    assert catalogue.count(Query()) == 1900


@pytest.mark.parametrize(
    "filters",
    [
        {"seed": 7},
        {"model": "FLUX"},
        {"model": "ux1-d", "words": "cat"},
        {"job": "a1b2c3d4"},
        {"score": "variance<0.1"},
        {"score": "blank"},
        {"score": "nan"},
        {"score": "nan>=3, clipped>0.5"},
        {"score": "0.7"},
        {"score": "gate>=0.7,edge_density=0.25"},
        {"seed": 7, "words": "cat"},
        {"seed": 7, "words": "-dog"},
        {"seed": 7, "words": "cat -dog", "model": "flux"},
        {"score": "width>=2000"},
    ],
)
def test_a_filter_finds_one_of_two(
    store: Store, catalogue: Catalogue, make_row: MakeRow, filters: dict[str, object]
) -> None:
    wanted = make_row(
        prompt="a cat",
        seed=7,
        model="flux1-dev",
        job_id="a1b2c3d4",
        variance=0.01,
        edge_density=0.25,
        clipped=0.6,
        blank=True,
        nan_count=3,
        gate_score=0.75,
        width=2048,
    )
    other = make_row(
        prompt="a cat and a dog",
        seed=8,
        model="sdxl",
        job_id="ffffffff",
        variance=0.5,
        edge_density=0.5,
        clipped=0.0,
        blank=False,
        nan_count=0,
        gate_score=0.6,
        width=1024,
    )
    store.put([wanted, other])
    assert [row.path for row in catalogue.search(**filters)] == [wanted.path]  # type: ignore[arg-type]
    assert catalogue.count(Query(**filters)) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("moment", [float("inf"), 1e300, 9e18])
def test_a_moment_beyond_all_images_is_one(
    store: Store, catalogue: Catalogue, make_row: MakeRow, moment: float
) -> None:
    store.put([make_row()])
    assert catalogue.search(since=moment) == catalogue.search(until=-moment) == []
    assert len(catalogue.search(until=moment)) == len(catalogue.search(since=-moment)) == 1


def test_of_several_models_with_a_name_the_newest_images_come_first(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    rows = [make_row(model=f"sdxl-{n % 3}") for n in range(30)]
    store.put([*rows, make_row(model="flux")])
    assert [row.path for row in catalogue.search(model="sdxl", limit=7)] == [r.path for r in rows[:-8:-1]]
    assert catalogue.count(Query(model="sdxl")) == 30
    assert catalogue.search(model="none of these") == []
    assert catalogue.models() == ["flux", "sdxl-0", "sdxl-1", "sdxl-2"]


@pytest.mark.parametrize("score", ["varianz<1", "variance", "variance<", "1 2", "blank;drop", "gate>x"])
def test_a_condition_that_cannot_be_read_is_refused(catalogue: Catalogue, store: Store, score: str) -> None:
    with pytest.raises(InvalidRequest, match="score"):
        catalogue.search(score=score)


def test_near_duplicates_come_with_the_most_alike_first(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    def flipped(bits: int, seed: int) -> str:
        value = HASH
        for n in range(bits):
            value ^= 1 << ((n * 13 + seed) % 64)
        return f"{value:016x}"

    rows = [make_row(path=f"/a/{bits}.png", phash=flipped(bits, bits)) for bits in range(20)]
    store.put([*rows, make_row(path="/a/unknown.png")])
    found = catalogue.search(similar=f"{HASH:016x}")
    assert [row.path for row in found] == [f"/a/{bits}.png" for bits in range(11)]
    assert catalogue.count(Query(similar=f"{HASH:016x}")) == 11
    assert catalogue.search(similar=f"{HASH:016x}", since=rows[3].saved_at, limit=2) == found[3:5]


def test_failed_images_are_found_only_when_they_are_asked_for(
    store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    saved, failed = make_row(), make_row(state="failed", error="It ended its worker.", job_id="a1b2c3d4")
    store.put([saved, failed])
    assert [row.path for row in catalogue.search()] == [saved.path]
    assert [row.error for row in catalogue.search(failed=True)] == ["It ended its worker."]


def test_a_catalogue_that_is_made_again_under_an_open_reader_is_read(
    path: Path, catalogue: Catalogue, make_row: MakeRow
) -> None:
    first = Store(path)
    first.put([make_row()])
    assert catalogue.count(Query()) == 1
    first.close()
    path.unlink()
    second = Store(path)
    assert catalogue.count(Query()) == 0
    second.close()


def test_a_damaged_file_is_named(path: Path, catalogue: Catalogue) -> None:
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(CatalogueUnavailable, match=r"cannot be read.*rebuild"):
        catalogue.search("cat")
