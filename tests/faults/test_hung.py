"""Processes that hang, and clocks that jump: only monotonic clocks decide about life and death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hung_folder import Hung
from images import Album
from measured import Figures
from running_farm import Start, until

from luna_farm import system
from luna_farm.engine.child import fence
from luna_farm.errors import DiskError

DEADLINE_S = 1.0


def test_a_hung_worker_is_killed_at_its_deadline_and_its_image_saved_once(
    farm: Start, figures: Figures, tmp_path: Path
) -> None:
    fired = tmp_path / "fired"
    fired.mkdir()
    one = farm(
        worker_deadline_s=DEADLINE_S, LUNA_FARM_CRASH="writer.written:1:stop", LUNA_FARM_CRASH_ONCE=str(fired)
    )
    one.workers_ready(2)
    album = Album(one.out)
    with one.client() as client:
        started = time.monotonic()
        album.add(client)
        reports = album.wait(client)
        took_s = time.monotonic() - started
    hung = read_pid(fired / "writer.written")
    assert not psutil.pid_exists(hung)
    assert one.stop() == 0
    figures.within("SIGSTOP", "worker: hung to saved, deadline 1 s", took_s, DEADLINE_S + 1.0)
    figures.none("SIGSTOP", "worker", **album.count(reports))


def test_a_network_folder_that_hangs_holds_up_nobody_else(
    farm: Start, figures: Figures, hung_folder: Hung
) -> None:
    one = farm()
    album, there = Album(one.out), Album(hung_folder.folder)
    with one.client() as client, ThreadPoolExecutor() as threads:
        album.add(client)  # the farm knows this folder
        started = time.monotonic()
        asked = threads.submit(there.add, client)
        album.add(client)
        album.wait_for_last(client)
        other_s = time.monotonic() - started
        with pytest.raises(DiskError, match="does not answer"):
            asked.result()
        figures.within("hung folder", "until its caller is told", time.monotonic() - started, 8.0)
        figures.within("hung folder", "a job for another folder meanwhile", other_s, 2.0)
        hung_folder.let_go()
        there.add(client)
        count = Counter(album.count(album.wait(client))) + Counter(there.count(there.wait(client)))
    assert one.stop() == 0
    figures.none("hung folder", "once it is back", **{name: count[name] for name in ("lost", "corrupt")})


def test_a_supervisor_that_was_stopped_holds_nobody_to_a_deadline(
    farm: Start, figures: Figures, tmp_path: Path
) -> None:
    """Stopped for longer than the deadline, and a worker in the middle of an image as well; a client asks."""
    fired = tmp_path / "fired"
    fired.mkdir()
    one = farm(
        worker_deadline_s=6.0, LUNA_FARM_CRASH="writer.written:1:stop", LUNA_FARM_CRASH_ONCE=str(fired)
    )
    workers = one.workers_ready(2)
    album = Album(one.out)
    with one.client() as client:
        for _ in range(6):
            album.add(client)
        until(lambda: read_pid(fired / "writer.written"), "a worker stopped in the middle")
        os.kill(one.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        asker = threading.Thread(target=album.add, args=(client,))
        asker.start()
        until(lambda: time.monotonic() - stopped >= 7.0, "seven seconds")
        os.kill(one.pid, signal.SIGCONT)
        woken = time.monotonic()
        asker.join()
        answered_s = time.monotonic() - woken
        until(lambda: time.monotonic() - woken >= 1.0, "the supervisor looking after its workers")
        halted = read_pid(fired / "writer.written")
        assert psutil.pid_exists(halted), "killed for the time in which the supervisor was stopped"
        os.kill(halted, signal.SIGCONT)
        reports = album.wait(client)
        same = set(workers) <= set(one.worker_pids())
    assert one.stop() == 0
    assert "no progress" not in one.log_text()
    figures.within("SIGSTOP", "supervisor for 7 s: awake to answer", answered_s, 1.0)
    figures.none("SIGSTOP", "supervisor", workers_killed=0 if same else "some", **album.count(reports))
    assert same


def read_pid(note: Path) -> int:
    """The process that noted itself at a crash point; 0 before."""
    text = note.read_text() if note.exists() else ""
    return int(text) if text else 0


def test_a_clock_that_jumps_by_days_kills_reaps_and_expires_nobody(farm: Start, figures: Figures) -> None:
    """`time.time` of every process of the farm jumps a day forth and back, twice a second."""
    one = farm(
        LUNA_FARM_TEST_MUTATION="clock a day forth", idle_timeout_s=60, worker_deadline_s=30, max_workers=3
    )
    workers = one.workers_ready(2)
    album = Album(one.out)
    with one.client() as client:
        started = time.monotonic()
        while time.monotonic() - started < 2.0:
            album.add(client)
            album.wait_for_last(client)
        count = album.settled(client)
        same = set(workers) <= set(one.worker_pids())
    assert one.stop() == 0
    log = one.log_text()
    ended_early = log.count("no progress") + log.count("is lost") + log.count("waited too long")
    figures.none("clock", "a day forth and back, twice a second", ended_early=ended_early, **count)
    assert (same, ended_early) == (True, 0)


def test_old_workers_are_known_by_their_start_whatever_the_clock_says_now(
    figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of day of a start moves with the clock; the fence must not lose sight of a worker by that."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as old:
        started = system.process_started(old.pid)
        assert started is not None
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        if sys.platform == "linux":
            boot = psutil.boot_time()
            monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 86_400)
        assert fence([(old.pid, started + 1)]) == 0, "another process of that number"
        assert fence([(old.pid, started)]) == 1
        assert fence([(old.pid, started)]) == 0, "what is left of it counts no more"
    figures("clock", "an old worker after the clock was set", fenced=1)
