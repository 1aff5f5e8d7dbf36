"""How a farm stops: what was accepted first, within a deadline, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from images import LARGE, Album
from measured import Figures
from running_farm import RunningFarm, Start, until

from luna_farm.errors import FarmDraining, FarmError
from luna_farm_client import FarmClient, SaveRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_everything_that_was_accepted(
    farm: Start, figures: Figures, number: signal.Signals
) -> None:
    one = farm(arena_bytes="256MiB")
    album = Album(one.out, LARGE)
    with one.client() as client:
        for _ in range(6):
            album.add(client)
    started = time.monotonic()
    assert one.stop(number) == 0
    took_s = time.monotonic() - started
    count = album.count([None] * 6)
    figures.none("stopping", f"{number.name} with 6 large images open", took_s=round(took_s, 2), **count)
    assert (one.left_processes(), one.segments()) == ([], [])
    assert [path.name for path in one.out.iterdir() if path.suffix != ".png"] == []


def test_while_it_drains_it_takes_nothing_new_and_says_so(farm: Start) -> None:
    one = farm(LUNA_FARM_CRASH="worker.received:1:stop", min_workers=1, max_workers=1)
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        os.kill(one.pid, signal.SIGTERM)
        refused = until(lambda: refusal(client, one), "it is told")
        assert isinstance(refused, FarmDraining)
        assert client.status()["draining"]
    assert one.stop() == 0


def test_what_cannot_be_finished_in_time_is_left_to_the_next_start(farm: Start, figures: Figures) -> None:
    one = farm(
        min_workers=1,
        max_workers=1,
        LUNA_FARM_CRASH="worker.received:1:stop",
        LUNA_FARM_TEST_MUTATION="little time to drain",
    )
    album = Album(one.out)
    with one.client() as client:
        for _ in range(3):
            album.add(client)
    one.note_processes()
    assert one.stop() == 0, "one signal, and a worker that hangs"
    assert "Left to the journal and the next start: 3 images" in one.log_text()
    assert (one.left_processes(), len(one.segments())) == ([], 1)
    one.restart()
    with one.client() as client:
        reports = album.wait(client)
    assert one.stop() == 0
    figures.none("stopping", "drain deadline, by the next start", **album.count(reports))


def refusal(client: FarmClient, one: RunningFarm) -> FarmError | None:
    """Why a job is not taken; None if it was."""
    request = SaveRequest(images=Album(one.out).next_images(), output_dir=one.out, filename="late")
    try:
        client.submit(request, when_busy="report")
    except FarmError as error:
        return error
    return None


def test_a_second_signal_leaves_the_rest_to_the_next_start(
    farm: Start, figures: Figures, tmp_path: Path
) -> None:
    one = farm(LUNA_FARM_CRASH="worker.received:1:stop", min_workers=1, max_workers=1)
    album = Album(one.out)
    with one.client() as client:
        for _ in range(5):
            album.add(client)
    one.note_processes()
    os.kill(one.pid, signal.SIGTERM)
    until(lambda: "Stopping after 5 images" in one.log_text(), "it drains")
    started = time.monotonic()
    assert one.stop(signal.SIGTERM) == 0
    hurried_s = time.monotonic() - started
    assert one.left_processes() == []
    assert len(one.segments()) == 1, "the pixels wait there"
    one.restart()
    with one.client() as client:
        reports = album.wait(client)
    assert one.stop() == 0
    figures.within("stopping", "second signal to the end", hurried_s, 2.0)
    figures.none("stopping", "after it, by the next start", **album.count(reports))
    assert (one.left_processes(), one.segments()) == ([], [])


def test_a_disk_that_refuses_does_not_hold_up_the_stop(farm: Start, figures: Figures, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.touch()
    one = farm(LUNA_FARM_CRASH="writer.written:*:raise:ENOSPC", LUNA_FARM_CRASH_WHILE=str(full))
    album = Album(one.out)
    with one.client() as client:
        for _ in range(5):
            album.add(client)
        until(lambda: client.status()["folders"][0]["state"] == "failing", "the folder fails")
    started = time.monotonic()
    assert one.stop() == 0
    took_s = time.monotonic() - started
    one.restart()
    with one.client() as client:
        reports = album.wait(client)
    assert one.stop() == 0
    figures.within("stopping", "with images held by a full disk", took_s, 3.0)
    figures.none("stopping", "these, by the next start", **album.count(reports))


def test_workers_that_cannot_start_are_tried_again_with_pauses(farm: Start, figures: Figures) -> None:
    """An installation that broke while the farm ran: no loop that eats the machine, and a way back."""
    one = farm(LUNA_FARM_TEST_MUTATION="workers cannot start", started=False)
    one.start()
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        until(lambda: one.log_text().count("is lost") >= 6, "three starts of two workers")
        tries, waited = one.log_text().count("is lost"), client.status()["uptime_s"]
        assert client.job(album.promised[0].receipt.job_id).state == "queued"
    one.kill()
    del one.environ["LUNA_FARM_TEST_MUTATION"]
    one.restart()
    with one.client() as client:
        count = album.settled(client)
    assert one.stop() == 0
    assert waited > 1.0, f"{tries} starts in {waited:.1f} s"
    figures.none("stopping", "workers cannot start, then can", starts=tries, in_s=round(waited, 1), **count)
