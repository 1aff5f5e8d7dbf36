"""Thousands of saves while workers and supervisor are killed all the time."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

from images import Album
from measured import Figures
from running_farm import Keeper, RunningFarm, Start, until

from luna_farm.errors import FarmError
from luna_farm.system import usable_processors

POOL = max(2, min(8, usable_processors() // 2))
"""Workers of the farm: one that was killed is followed by another in half a second, and the next kill should
not wait for that where processors are free."""
AHEAD = 20 * POOL
"""Images handed over and not waited for: kills shall always hit something."""


class Killer(threading.Thread):
    """Kills a worker that is ready, or now and then the supervisor, until both numbers are reached; `done`
    says how many it killed."""

    def __init__(self, farm: RunningFarm, keeper: Keeper, workers: int, supervisors: int) -> None:
        super().__init__()
        self._farm, self._keeper = farm, keeper
        self._plan = ["worker"] * workers + ["supervisor"] * supervisors
        random.Random(1).shuffle(self._plan)
        self.done = {"worker": 0, "supervisor": 0}
        self.error: BaseException | None = None

    @property
    def share(self) -> float:
        """Of the plan that is over."""
        return sum(self.done.values()) / len(self._plan)

    def run(self) -> None:
        try:
            dead: set[int] = set()
            for kind in self._plan:
                alive = until(lambda: self._fresh(dead), "a worker to kill", 120)
                victim = random.choice(alive) if kind == "worker" else self._farm.pid
                dead.add(victim)
                before = self._keeper.deaths  # it may be seen before another line of this runs
                os.kill(victim, signal.SIGKILL)
                self.done[kind] += 1
                if kind == "supervisor":
                    until(lambda: self._keeper.deaths > before, "its death is seen")  # noqa: B023
        except BaseException as error:
            self.error = error

    def _fresh(self, dead: set[int]) -> list[int]:
        """Workers that are ready and were not killed yet."""
        try:
            return [pid for pid in self._farm.worker_pids() if pid not in dead]
        except FarmError:
            return []


def test_saves_go_on_while_everything_is_killed(
    farm: Start, figures: Figures, tmp_path: Path, long: bool
) -> None:
    saves, workers, supervisors = (10_000, 1_000, 100) if long else (600, 90, 9)
    one = farm(min_workers=POOL, max_workers=POOL)
    one.out.mkdir()
    foreign = {one.out / f"a_I0{number}.png": os.urandom(100) for number in ("", "_00003", "_00100")}
    for path, content in foreign.items():
        path.write_bytes(content)
    album = Album(one.out)
    with Keeper(one) as keeper, one.client() as client:
        killer = Killer(one, keeper, workers, supervisors)
        killer.start()
        waited = 0
        while len(album.promised) < saves or killer.is_alive():
            due = min(saves, saves * killer.share) if killer.is_alive() else saves
            if len(album.promised) < due + AHEAD or waited == len(album.promised):
                album.add(client)
            else:
                client.wait(album.promised[waited].receipt.job_id, 300)
                waited += 1
        killer.join()
        assert killer.error is None, killer.error
        reports = album.wait(client, 300)
    assert one.stop() == 0
    count = album.count(reports)
    count["duplicate"] -= len(foreign)  # they are no images, and stay
    overwritten = sum(path.read_bytes() != content for path, content in foreign.items())
    figures.none(
        "kill storm",
        "all at once",
        worker_kills=killer.done["worker"],
        supervisor_kills=killer.done["supervisor"],
        set_aside_and_retried=album.retried,
        overwritten=overwritten,
        **count,
    )
    assert (one.left_processes(), one.segments()) == ([], [])


class Ambush(threading.Thread):
    """Kills the supervisor again and again within the next milliseconds of a hand-over."""

    LATEST_S = 0.004
    """About what submit, copy and receipt of these images take here."""

    def __init__(self, farm: RunningFarm, keeper: Keeper, kills: int) -> None:
        super().__init__()
        self._farm, self._keeper, self._kills = farm, keeper, kills
        self.begun = threading.Event()
        """Set when a hand-over begins."""
        self.error: BaseException | None = None

    def run(self) -> None:
        chance = random.Random(2)
        try:
            for _ in range(self._kills):
                self.begun.clear()  # the next begins once the last job is done: there is a farm to kill
                self.begun.wait()
                time.sleep(chance.uniform(0, self.LATEST_S))
                before = self._keeper.deaths
                os.kill(self._farm.pid, signal.SIGKILL)
                until(lambda: self._keeper.deaths > before, "its death is seen")  # noqa: B023
        except BaseException as error:
            self.error = error


def test_large_images_are_handed_over_while_the_supervisor_is_killed(
    farm: Start, figures: Figures, long: bool
) -> None:
    """Their receipts come while they are copied (`core/early.py`): the marks in the slots must be enough."""
    kills = 300 if long else 8
    one = farm(min_workers=2, max_workers=2)
    one.out.mkdir()
    album = Album(one.out, size=(512, 640))
    with Keeper(one) as keeper, one.client() as client:
        ambush = Ambush(one, keeper, kills)
        client.ping()  # a client waits for a farm that it has seen
        ambush.start()
        while ambush.is_alive():
            ambush.begun.set()
            album.add(client, 1 + len(album.promised) % 3)
            client.wait(album.promised[-1].receipt.job_id, 300)
        assert ambush.error is None, ambush.error
        count = album.settled(client)
    assert one.stop() == 0
    figures.none("kill storm", "large images, in the middle of a hand-over", supervisor_kills=kills, **count)
    assert (one.left_processes(), one.segments()) == ([], [])
