"""A supervisor that starts where another one was: alive, dead with work left, or before a reboot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from images import Album
from measured import Figures
from running_farm import RunningFarm, Start, until
from websockets.sync.client import connect

from luna_farm.storage import arena


def hold_jobs(one: RunningFarm, album: Album, count: int, fired: Path, **options: object) -> list[int]:
    """Hand over `count` jobs to a farm whose workers hang at their first image; returns the pids of these."""
    with one.client() as client:
        for _ in range(count):
            album.add(client, **options)
    return until(lambda: [int(text) for path in fired.iterdir() if (text := path.read_text())], "one hangs")


def test_a_second_supervisor_is_refused_and_the_first_goes_on(
    farm: Start, figures: Figures, tmp_path: Path
) -> None:
    one = farm()
    album = Album(one.out)
    refused = subprocess.run(
        [sys.executable, "-m", "luna_farm", "start", "--port", "0", "--feed-port", "off"],
        env={**os.environ, "LUNA_FARM_STATE_DIR": str(one.state)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    with one.client() as client:
        album.add(client)
        count = album.settled(client)
    said = f"process {one.pid} holds" in refused.stderr
    assert refused.returncode == 1
    assert said, refused.stderr
    figures.none("second supervisor", "a second start", refused="names the pid of the first", **count)


@pytest.mark.parametrize("hangs_at", ["worker.received", "worker.encoded", "writer.synced"])
def test_a_hung_worker_of_a_dead_supervisor_is_fenced_off(
    farm: Start, figures: Figures, tmp_path: Path, hangs_at: str
) -> None:
    count = fence_off(farm, tmp_path, hangs_at)
    figures.none("second supervisor", f"old worker stopped at {hangs_at}", **count)


def fence_off(farm: Start, tmp_path: Path, hangs_at: str, **environ: str) -> dict[str, int]:
    """Kill a supervisor whose worker hangs, start another, wake the old worker up; what became of it all."""
    fired = tmp_path / "fired"
    fired.mkdir()
    one = farm(LUNA_FARM_CRASH=f"{hangs_at}:1:stop", LUNA_FARM_CRASH_ONCE=str(fired))
    album = Album(one.out)
    (old,) = hold_jobs(one, album, 1, fired)
    one.kill()
    one.restart(**environ)
    with one.client() as client:
        reports = album.wait(client)
        until(lambda: not one.temps(), "no second link warns the old one")
        with_old = psutil.Process(old) if psutil.pid_exists(old) else None
        if with_old is not None and with_old.status() != psutil.STATUS_ZOMBIE:
            os.kill(old, signal.SIGCONT)
            until(lambda: not psutil.pid_exists(old) or with_old.status() == "zombie", "the old one ends")
    one.stop()
    return album.count(reports)


def test_restart_after_a_kill_with_64_jobs_pending(farm: Start, figures: Figures, tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    fired.mkdir()
    one = farm(LUNA_FARM_CRASH="worker.received:1:stop", min_workers=1, max_workers=1)
    del one.environ["LUNA_FARM_CRASH"]
    album = Album(one.out)
    with one.client() as client:
        for _ in range(64):
            album.add(client)
        assert client.status()["queue"]["jobs"] == 64
    one.kill()
    one.restart()
    with one.client() as client:
        reports = album.wait(client)
    assert one.stop() == 0
    figures.within("restart", "listening again with 64 jobs pending", one.listening_s, 1.0)
    figures.none("restart", "the 64 jobs", **album.count(reports))
    assert (one.left_processes(), one.segments()) == ([], [])


# --- a reboot ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["gone", "of another boot"])
def test_after_a_reboot_durable_jobs_are_finished_and_others_reported_by_name(
    farm: Start, figures: Figures, tmp_path: Path, memory: str
) -> None:
    """Memory gone: /dev/shm is empty. Of another boot: an arena in a file, whose pages are lost."""
    one = farm(LUNA_FARM_CRASH="worker.received:1:stop", feed_port=0)
    durable, plain = Album(one.out), Album(one.out)
    with one.client() as client:
        for _ in range(4):
            durable.add(client, durable=True, filename="durable")
            plain.add(client, filename="plain")
        one.workers_ready(2)
    one.kill(children=True)
    environ = {}
    if memory == "gone":
        for name in one.segments():
            arena.remove(name)
    else:
        environ = {"LUNA_FARM_TEST_MUTATION": "another boot"}
    one.restart(**environ)
    with one.client() as client:
        kept = durable.wait(client)
        lost = [client.job(promised.receipt.job_id) for promised in plain.promised]
        told = told_by_feed(one, "job_lost")
    assert one.stop() == 0
    names = {path for promised in plain.promised for path in promised.receipt.paths}
    assert {report.state for report in lost} == {"lost"}
    assert {event["path"] for event in told} == names
    assert all(name in one.log_text() for name in names)
    found = {path.name for path in one.out.iterdir()}
    assert all(name.startswith("durable") for name in found)
    figures.none(
        "reboot",
        f"memory {memory}",
        durable=len(kept),
        lost=sum(report is None or report.state != "done" for report in kept),
        reported_by_name=len(told),
    )
    assert list((one.state / "spool").iterdir()) == []


def told_by_feed(one: RunningFarm, kind: str) -> list[dict[str, object]]:
    """The events of a kind that the feed still has."""
    port = json.loads((one.state / "endpoint.json").read_text())["feed_port"]
    found: list[dict[str, object]] = []
    with connect(f"ws://127.0.0.1:{port}/?after=0", proxy=None) as feed:
        first, last = -1, 0
        while first < last:
            message = json.loads(feed.recv(timeout=60))
            if message.get("type") == "resumed":
                last = message["last"]
                first = last if not last else 0
            if message.get("event") == kind:
                found.append(message)
            first = max(first, message.get("seq", first)) if "event" in message else first
    return found


# --- a state folder that was damaged ----------------------------------------------------------------------


def test_dead_letters_survive_the_loss_of_the_journal(farm: Start, figures: Figures) -> None:
    one = farm(LUNA_FARM_CRASH="worker.received:*", min_workers=1, max_workers=1)
    album = Album(one.out)
    with one.client() as client:
        job_id = album.add(client, 2).receipt.job_id
        assert client.wait(job_id, 300).state == "failed"
    one.kill()
    (one.state / "journal").unlink()
    one.restart()
    with one.client() as client:
        listed = client.status()["dead_letters"]
        known = client.job(job_id).state
        reports = album.wait(client)
    assert one.stop() == 0
    assert (known, {letter["job_id"] for letter in listed}) == ("failed", {job_id})
    count = album.count(reports)
    figures.none("state folder", "journal lost, then `luna-farm retry`", letters=len(listed), **count)
    assert list((one.state / "dead").iterdir()) == []


def test_a_damaged_journal_costs_no_accepted_job_in_front_of_the_damage(
    farm: Start, figures: Figures
) -> None:
    one = farm(LUNA_FARM_CRASH="worker.received:1:stop", min_workers=1, max_workers=1)
    album = Album(one.out)
    with one.client() as client:
        for _ in range(10):
            album.add(client)
    one.kill()
    with (one.state / "journal").open("ab") as journal:
        journal.write(os.urandom(1000))
    one.restart()
    with one.client() as client:
        reports = album.wait(client)
        notes = client.status()["notes"]
    assert one.stop() == 0
    assert any("1000 bytes of the journal" in note for note in notes)
    figures.none(
        "state folder", "a farm that starts with 1,000 bytes of nonsense at its end", **album.count(reports)
    )


def test_strays_of_a_power_cut_go_at_the_next_start(farm: Start, figures: Figures) -> None:
    """A second name of an image whose record did not reach the disk: no journal knows of it."""
    one = farm()
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        album.wait(client)
    one.kill()
    (one.out / ".luna-0123abcd-0.tmp").hardlink_to(album.promised[0].receipt.paths[0])
    endpoint = json.loads((one.state / "endpoint.json").read_text())
    (one.state / "endpoint.json").write_text(json.dumps({**endpoint, "boot_id": "another", "pid": 0}))
    one.restart()
    until(lambda: not one.temps(), "the stray goes")
    with one.client() as client:
        figures.none("power cut", "a second name that was left", **album.settled(client))
    one.stop()


def test_a_restart_takes_up_more_durable_jobs_than_it_may_have_mapped(farm: Start, figures: Figures) -> None:
    """The pixels of each lie in a file of their own, and each start looks whether they are there."""
    one = farm(LUNA_FARM_CRASH="worker.received:*:stop", worker_deadline_s=600.0)
    album = Album(one.out)
    with one.client() as client:
        for _ in range(arena.MAX_ATTACHED + 6):
            album.add(client, durable=True)
    one.kill()
    one.restart()
    with one.client() as client:
        figures.none("restart", f"{arena.MAX_ATTACHED + 6} durable jobs", **album.settled(client))
    assert one.stop() == 0
