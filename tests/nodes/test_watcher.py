"""The thread that waits: ends are told once, a farm that restarts is asked again, one that stays away is
given up."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from luna_farm_client import FarmUnavailable, JobReport
from luna_farm_nodes import watcher
from luna_farm_nodes.watcher import Watcher


class Job:
    def __init__(self, job_id: str, explode: bool = False) -> None:
        self.job_id, self.explode = job_id, explode
        self.ends: list[tuple[Any, str, Any]] = []
        self.queues: list[Any] = []
        self.over = threading.Event()

    def finished(self, report: Any, reason: str, queue: Any) -> None:
        self.ends.append((report, reason, queue))
        self.over.set()
        if self.explode:
            raise ValueError("the browser is gone")

    def waiting(self, report: Any, queue: Any) -> None:
        assert report.job_id == self.job_id
        self.queues.append(queue)


@pytest.fixture
def time() -> list[float]:
    return [0.0]


@pytest.fixture
def watch(farm, time, monkeypatch) -> Watcher:
    """A watcher whose steps the test takes; the sleep moves its clock."""
    made = Watcher(lambda: farm, clock=lambda: time[0], pause=lambda s: time.__setitem__(0, time[0] + s))
    made._thread = threading.current_thread()  # so that add() starts none
    return made


def report(job_id: str, state: str = "done") -> JobReport:
    return JobReport(job_id, state, ())


def test_an_end_is_told_with_the_queue_and_only_once(watch, farm):
    job = Job("a")
    farm.reports["a"] = report("a")
    watch.add(job)
    watch.step()
    watch.step()
    assert job.ends == [(farm.reports["a"], "", farm.queue)]


def test_while_the_oldest_is_waited_for_the_others_are_looked_at(watch, farm):
    old, done, new = Job("a"), Job("b"), Job("c")
    farm.reports |= {"a": report("a", "running"), "b": report("b"), "c": report("c", "queued")}
    for job in (old, done, new):
        watch.add(job)
    watch.step()
    assert len(done.ends) == 1
    assert old.queues == new.queues == [farm.queue]
    assert done.queues == []


def test_an_unknown_job_is_told_with_the_reason(watch, farm):
    job = Job("gone")
    watch.add(job)
    watch.step()
    assert job.ends == [(None, "no job gone", farm.queue)]


def test_a_timeout_of_wait_is_no_end(watch, farm):
    job = Job("a")
    farm.reports["a"] = [TimeoutError(), report("a", "running"), report("a")]
    watch.add(job)
    watch.step()
    assert (job.ends, job.queues) == ([], [farm.queue])
    watch.step()
    assert len(job.ends) == 1


def test_a_farm_that_restarts_is_asked_again(watch, farm, time):
    job = Job("a")
    farm.reports["a"] = [FarmUnavailable("restarting")] * 3 + [report("a")]
    watch.add(job)
    for _ in range(4):
        watch.step()
    assert len(job.ends) == 1
    assert time[0] == 3 * watcher.POLL_S


def test_a_farm_that_stays_away_is_given_up(watch, farm, time):
    job = Job("a")
    farm.reports["a"] = FarmUnavailable("nobody there")
    watch.add(job)
    while not job.ends:
        watch.step()
    assert job.ends == [(None, "The farm does not answer any more: nobody there", None)]
    assert watcher.PATIENCE_S < time[0] < watcher.PATIENCE_S + 2


def test_silence_is_counted_anew_after_an_answer(watch, farm, time):
    job = Job("a")
    away = FarmUnavailable("away")
    farm.reports["a"] = [away, report("a", "running"), away, away, report("a")]
    watch.add(job)
    watch.step()
    watch.step()
    time[0] += watcher.PATIENCE_S + 1
    for _ in range(3):
        watch.step()
    assert job.ends == [(report("a"), "", farm.queue)]


def test_one_job_that_cannot_be_shown_does_not_cost_the_others_their_watcher(watch, farm):
    bad, good = Job("a", explode=True), Job("b")
    farm.reports |= {"a": report("a"), "b": report("b")}
    watch.add(bad)
    watch.add(good)
    watch.step()
    watch.step()
    assert len(good.ends) == 1


def test_what_is_watched_is_bounded(watch, farm, monkeypatch):
    monkeypatch.setattr(watcher, "MAX_OPEN", 2)
    jobs = [Job(name) for name in "abc"]
    for job in jobs:
        watch.add(job)
    assert jobs[0].ends[0][0] is None
    assert "not watched any more" in jobs[0].ends[0][1]
    assert list(watch._open) == ["b", "c"]


def test_one_thread_serves_all_and_sleeps_between(farm):
    farm.reports |= {"a": report("a"), "b": report("b")}
    made = Watcher(lambda: farm)
    assert made._thread is None, "nothing starts before the first job"
    threads = set()
    for name in "ab":
        job = Job(name)
        made.add(job)
        assert job.over.wait(60)
        threads.add(made._thread)
    assert len(threads) == 1
    assert threads.pop().daemon, "it must not keep ComfyUI from ending"


def test_a_step_without_jobs_does_nothing(watch):
    assert watch.step() is False
