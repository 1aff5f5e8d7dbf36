"""The catalogue after kill -9: a row for every image that is saved, and none for a file that is not there."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
from images import Album
from measured import Figures
from running_farm import Keeper, RunningFarm, Start, until

from luna_farm.catalogue.rows import NAME
from luna_farm.catalogue.search import Catalogue, Query

ROW = "catalogue"
POINTS = ("catalogue.written", "supervisor.result_received", "supervisor.result_journaled", "worker.reported")


def rows_of(farm: RunningFarm, wanted: int) -> dict[str, int]:
    """Wait until the catalogue holds as many rows as images were saved, and compare it with the disk."""
    catalogue = Catalogue(farm.state / NAME)
    until(lambda: catalogue.count(Query()) >= wanted, f"{wanted} rows")
    rows = catalogue.search(limit=10_000)
    catalogue.close()
    saved = {str(path) for path in farm.out.rglob("*.png")}
    listed = [row.path for row in rows]
    return {
        "rows_of_no_file": len(set(listed) - saved),
        "files_without_row": len(saved - set(listed)),
        "rows_twice": len(listed) - len(set(listed)),
    }


def test_killed_around_the_catalogue_it_agrees_with_the_disk_after_a_restart(
    farm: Start, figures: Figures, tmp_path: Path
) -> None:
    fired = tmp_path / "fired"
    fired.mkdir()
    one = farm(
        started=False,
        LUNA_FARM_CRASH=",".join(f"{point}:3" for point in POINTS),
        LUNA_FARM_CRASH_ONCE=str(fired),
    )
    one.process = one.launch()
    album = Album(one.out)
    with Keeper(one) as keeper, one.client() as client:
        until(lambda: one.listens, "the farm listens")
        for _ in range(200):
            if len(list(fired.iterdir())) >= len(POINTS):
                break
            album.add(client, 3, metadata={"positive": "a lighthouse", "seed": 7})
            album.wait_for_last(client)
        count = album.settled(client)
    assert sorted(path.name for path in fired.iterdir()) == sorted(POINTS)
    one.kill()  # what the supervisor had not sent yet is lost with it
    one.restart()
    found = rows_of(one, count["samples"])
    figures.none(ROW, "killed at each point", fired=len(POINTS), deaths=keeper.deaths, **count, **found)
    assert one.stop() == 0
    catalogue = Catalogue(one.state / NAME)
    assert catalogue.count(Query(words="lighthouse", seed=7)) == count["samples"], "added rows have texts too"
    catalogue.close()
    assert one.left_processes() == []


def test_all_processes_killed_at_once_and_again(farm: Start, figures: Figures, long: bool) -> None:
    one = farm()
    album = Album(one.out)
    times = 10 if long else 2
    for _ in range(times):
        with one.client() as client:
            for _ in range(10):
                album.add(client, 2)
        processes = one.note_processes()
        one.kill()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=60)
        one.restart()
    with one.client() as client:
        count = album.settled(client)
    found = rows_of(one, count["samples"])
    figures.none(ROW, f"kill -9 of all processes, {times} times", **count, **found)
    assert one.stop() == 0


def test_a_cataloguer_that_dies_is_started_again(farm: Start) -> None:
    one = farm(min_workers=1, max_workers=1)
    workers = set(one.workers_ready(1))
    album = Album(one.out)
    with one.client() as client:
        for _ in range(2):
            album.add(client, 5)
            album.wait_for_last(client)
            rows_of(one, 5 * len(album.promised))
            children = psutil.Process(one.pid).children()
            (cataloguer,) = (child for child in children if child.pid not in workers)
            cataloguer.kill()
        album.add(client, 5)
        album.wait_for_last(client)
        assert not any(rows_of(one, 15).values())
    assert one.stop() == 0
