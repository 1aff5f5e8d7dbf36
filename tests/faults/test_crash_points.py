"""Where x how: every named crash point of worker and supervisor, with every way to fail there."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from images import LARGE, SMALL, Album, shows
from measured import Figures
from running_farm import Keeper, RunningFarm, Start, until

from luna_farm.errors import DiskError, FarmBusy
from luna_farm.testing.faults import POINTS
from luna_farm_client import FarmClient, SaveImage, SaveRequest

ROW = "crash points"
SPOOL = {point for point in POINTS if point.startswith("spool.")}
DEAD_LETTER = {point for point in POINTS if point.startswith("dead_letter.")}
IMAGES = [point for point in POINTS if not point.startswith(("archive.", "upload.", "ray."))]
"""The points that a plain image meets; uploads, archives and clusters have tests of their own."""
EVERYWHERE = [point for point in IMAGES if point != "writer.claimed"]
"""The points on a file system that has links."""
IN_WORKERS = [point for point in EVERYWHERE if point.startswith(("writer.", "worker."))]
MOST_JOBS = 200


def drive(farm: RunningFarm, client: FarmClient, album: Album, fired: Path, points: set[str]) -> None:
    """Hand over one job after the other until every point has fired."""
    for _ in range(MOST_JOBS):
        missing = points - {path.name for path in fired.iterdir()}
        if not missing:
            return
        if missing <= DEAD_LETTER:
            set_aside(farm, client)
        else:
            album.add(client, durable=bool(missing & SPOOL))
            album.wait_for_last(client)
    raise AssertionError(f"never reached: {points - {path.name for path in fired.iterdir()}}")


def set_aside(farm: RunningFarm, client: FarmClient) -> None:
    """An image that no encoder can make: 70,000 pixels are more than a JPEG can be wide."""
    impossible = SaveImage(np.zeros((1, 70_000, 3), np.uint8), format="jpeg")
    receipt = client.submit(SaveRequest(images=[impossible], output_dir=farm.out, filename="never"))
    assert client.wait(receipt.job_id, 300).state == "failed"


@pytest.mark.parametrize(
    ("size", "disk", "points"),
    [(SMALL, "", EVERYWHERE), (LARGE, "", EVERYWHERE), (SMALL, "no links", IMAGES)],
    ids=["small", "24 MB", "no links"],
)
def test_killed_at_every_point_nothing_is_lost_or_there_twice(
    farm: Start, figures: Figures, tmp_path: Path, size: tuple[int, int], disk: str, points: list[str]
) -> None:
    fired = tmp_path / "fired"
    fired.mkdir()
    one = farm(
        started=False,
        arena_bytes="160MiB",
        LUNA_FARM_CRASH=",".join(points),
        LUNA_FARM_CRASH_ONCE=str(fired),
        **({"LUNA_FARM_TEST_MUTATION": disk} if disk else {}),
    )
    one.process = one.launch()
    album = Album(one.out, size)
    with Keeper(one) as keeper, one.client() as client:
        until(lambda: one.listens, "the farm listens")
        drive(one, client, album, fired, set(points))
        reports = album.wait(client)
        set_aside(one, client)
    assert one.stop() == 0
    letters = {path.suffix for path in (one.state / "dead").iterdir()}
    count = album.count(reports)
    shutdown = {"processes": len(one.left_processes()), "segments": len(one.segments())}
    what = f"killed at each point, {'small images' if size == SMALL else '24 MB images'}"
    what += f", a disk with {disk}" if disk else ""
    figures.none(ROW, what, fired=len(list(fired.iterdir())), of=len(points), deaths=keeper.deaths, **count)
    assert (letters, shutdown) == ({".json", ".npy"}, {"processes": 0, "segments": 0})
    assert list((one.state / "spool").iterdir()) == []


def test_stopped_at_every_point_of_a_worker_it_is_replaced(
    farm: Start, figures: Figures, tmp_path: Path
) -> None:
    """SIGSTOP there: the worker hangs until the deadline, is killed, and its image is saved once."""
    fired = tmp_path / "fired"
    fired.mkdir()
    crash = ",".join(f"{point}:1:stop" for point in IN_WORKERS)
    one = farm(worker_deadline_s=1.0, LUNA_FARM_CRASH=crash, LUNA_FARM_CRASH_ONCE=str(fired))
    album = Album(one.out)
    with one.client() as client:
        # Behind its last image a worker hangs unnoticed (it holds nothing) until it is handed the next.
        drive(one, client, album, fired, set(IN_WORKERS))
        reports = album.wait(client)
        for pid in [int(path.read_text()) for path in fired.iterdir()]:
            if psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                os.kill(pid, signal.SIGCONT)
    assert one.stop() == 0
    figures.none(ROW, "SIGSTOP at each point of a worker", fired=len(IN_WORKERS), **album.count(reports))
    assert one.left_processes() == []


FULL = [
    "writer.created",
    "writer.half_written",
    "writer.written",
    "writer.synced",
    "writer.noted",
    "writer.named",
    "writer.folder_synced",
]


@pytest.mark.parametrize("points", [FULL[:4], FULL[3:]], ids=["first", "last"])
@pytest.mark.parametrize("reason", ["ENOSPC", "EIO"])
def test_refused_by_the_disk_at_every_point_it_is_saved_once_the_disk_is_back(
    farm: Start, figures: Figures, tmp_path: Path, reason: str, points: list[str]
) -> None:
    """Four images: each try comes one point further than the one before, as long as the disk is `full`."""
    full = tmp_path / "full"
    full.touch()
    crash = ",".join(f"{point}:1:raise:{reason}" for point in points)
    fired = tmp_path / "fired"
    fired.mkdir()
    faults = {"CRASH": crash, "CRASH_WHILE": str(full), "CRASH_ONCE": str(fired)}
    environ = {f"LUNA_FARM_{name}": value for name, value in faults.items()}
    one = farm(max_workers=1, min_workers=1, **environ)
    album = Album(one.out)
    with one.client() as client:
        first = album.add(client)
        held = until(
            lambda: [i for i in client.job(first.receipt.job_id).images if i.state == "held"], "it is held"
        )
        assert ("No space" if reason == "ENOSPC" else "Input/output") in held[0].error
        album.add(client, 2)
        told = album.add(client).receipt.warnings
        until(lambda: {path.name for path in fired.iterdir()} == set(points), "every point has fired")
        status = client.status()
        assert [f["state"] for f in status["folders"] if f["path"].rstrip("/") == str(one.out)] == ["failing"]
        assert any("cannot be written now" in warning for warning in told)
        half = [path for path in one.out.iterdir() if not path.name.startswith(".")]
        assert not any(shows(path, np.zeros((1, 1, 3), np.uint8)) for path in half)
        full.unlink()
        reports = album.wait(client)
    assert one.stop() == 0
    figures.none(ROW, f"{reason} at the {len(points)} points from {points[0]}", **album.count(reports))


@pytest.mark.parametrize("point", ["journal.half_record", "journal.compacting", "spool.half_written"])
def test_a_state_folder_that_is_full_takes_nothing_new_and_loses_nothing(
    farm: Start, figures: Figures, tmp_path: Path, point: str
) -> None:
    full = tmp_path / "full"
    one = farm(
        LUNA_FARM_CRASH=f"{point}:*:raise:ENOSPC", LUNA_FARM_CRASH_WHILE=str(full), journal_bytes="64KiB"
    )
    album = Album(one.out)
    with one.client(timeout=20.0) as client:
        album.add(client)
        full.touch()
        refused = accepted = 0
        for _ in range(40):
            try:
                prompt = {"text": "x" * 4000}
                request = SaveRequest(
                    images=album.next_images(), filename="a", output_dir=one.out, prompt=prompt, durable=True
                )
                album.keep(client.submit(request, when_busy="report"))
                accepted += 1
            except (FarmBusy, DiskError):
                refused += 1
        full.unlink()
        until(lambda: _takes(client, album), "it takes jobs again")
        reports = album.wait(client)
    assert one.stop() == 0
    figures.none(ROW, f"{point} on a full disk", refused=refused, accepted=accepted, **album.count(reports))
    assert refused or point == "journal.compacting"


def _takes(client: FarmClient, album: Album) -> bool:
    with contextlib.suppress(FarmBusy):  # as long as what was accepted before fills the journal
        album.add(client)
        return True
    return False
