"""Two pools: who gets which image, who is started, and what happens when the far one fails."""

from __future__ import annotations

from typing import Any

import pytest
from stage import MIB, Stage, batch

from luna_farm.core import events, instructions
from luna_farm.core.pools import PoolLimits
from luna_farm.core.retry import MAX_CRASHES

LARGE = batch(height=512, width=256)
MOVED = {"gate": 0.0, "put": 1.0, "call": 8.0, "result": 1.0, "write": 1.0}


def stage(*, standby: bool = False, near: int = 1, far: int = 2, **changes: Any) -> Stage:
    """A farm with `near` workers here and up to `far` elsewhere."""
    pools = (
        PoolLimits("local", near, near, standby=standby),
        PoolLimits("ray", 1, far, far=True),
    )
    made = Stage(pools=pools, max_jobs=1000, arena_bytes=64 * MIB, **changes)
    made.happens(events.Tick())
    return made


def ready(at: Stage, number: int) -> None:
    """A worker is ready; those of the far pool are on a node."""
    far = at.farm.workers[number].pool == "ray"
    node = {"node": "10.0.0.5", "node_pid": 4000 + number} if far else {}
    at.happens(events.WorkerReady(number, 1000 if far else 1000 + number, 50.0, {}, **node))


def both(**changes: Any) -> Stage:
    """Worker 1 is near, worker 2 far, both are idle."""
    made = stage(**changes)
    assert {n: w.pool for n, w in made.farm.workers.items()} == {1: "local", 2: "ray"}
    ready(made, 1)
    ready(made, 2)
    return made


def measured(at: Stage, encode_ms: float, job_id: str = "job-m", **fields: Any) -> None:
    """An image of a kind was encoded near, and one was moved far, which took 10 ms."""
    at.farm.costs.add(_task(at, job_id, **fields), at.farm.jobs[job_id].options, {"encode": encode_ms})
    at.farm.costs.add(_task(at, job_id), at.farm.jobs[job_id].options, {**MOVED, "encode": encode_ms})


def _task(at: Stage, job_id: str, **fields: Any) -> Any:
    return at.farm.jobs[job_id].images[0].task


def placed(at: Stage) -> list[tuple[str, int]]:
    """Which job went to which worker."""
    return [(d.task.job_id, d.worker) for d in at.dispatched]


def test_each_pool_has_its_least_number_of_workers() -> None:
    made = stage(near=2)
    assert [w.pool for w in made.farm.workers.values()] == ["local", "local", "ray"]
    assert made.status()["nodes"] == []


def test_an_idle_near_worker_always_wins() -> None:
    made = both()
    made.submit("job-0001", LARGE)
    assert placed(made) == [("job-0001", 1)]


def test_what_pays_goes_to_the_far_pool_while_the_near_one_is_busy() -> None:
    made = both()
    made.submit("job-0001", LARGE)
    made.submit("job-0002", LARGE)
    assert placed(made) == [("job-0001", 1), ("job-0002", 2)]


def test_what_does_not_pay_waits_for_the_near_pool_and_holds_up_nothing_behind_it() -> None:
    made = both()
    made.submit("job-m", LARGE)
    measured(made, encode_ms=2.0)
    made.submit("job-fast", LARGE)
    assert placed(made) == [("job-m", 1)]
    made.submit("job-fast2", LARGE)
    made.submit("job-slow", LARGE, png_compression=9)
    assert placed(made)[-1] == ("job-slow", 2), "a kind that was never measured finds out"
    assert made.states("job-fast2") == ["queued"]
    made.finish(ms={"encode": 2.0})
    made.finish(ms={"encode": 2.0})
    assert placed(made)[-1] == ("job-fast2", 1)


def test_the_order_of_what_waits_is_kept() -> None:
    made = both()
    made.submit("job-m", LARGE)
    measured(made, encode_ms=2.0)
    for n in range(4):
        made.submit(f"job-{n}", LARGE)
    assert [image.task.job_id for image in made.farm.waiting] == ["job-1", "job-2", "job-3"]


def test_no_more_than_a_bounded_number_of_waiting_images_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("luna_farm.core.dispatch.LOOK_AHEAD", 2)
    made = both()
    made.submit("job-m", LARGE)
    measured(made, encode_ms=2.0)
    for n in range(4):
        made.submit(f"job-{n}", LARGE)
    made.submit("job-slow", LARGE, png_compression=9)
    assert made.states("job-slow") == ["queued"]
    made.finish(ms={"encode": 2.0})
    assert made.states("job-slow") == ["running"]


def test_the_far_pool_is_sent_an_image_ahead_to_hide_the_move() -> None:
    made = both(far=1)
    for n in range(6):
        made.submit(f"job-{n}", LARGE)
    assert [worker for _, worker in placed(made)].count(2) == 2
    assert [worker for _, worker in placed(made)].count(1) == 2


def test_the_far_pool_grows_with_what_pays_only() -> None:
    made = both(far=4)
    made.submit("job-m", LARGE)
    measured(made, encode_ms=2.0)
    for n in range(12):
        made.submit(f"fast-{n}", LARGE)
    assert len(made.farm.alive("ray")) == 1
    for n in range(12):
        made.submit(f"slow-{n}", LARGE, png_compression=9)
    assert len(made.farm.alive("ray")) == 4
    assert len(made.farm.alive()) == 5


def test_a_far_worker_that_waits_for_a_place_is_not_hung_and_is_reaped_like_an_idle_one() -> None:
    made = both(far=3, idle_timeout_s=1.0)
    for n in range(12):
        made.submit(f"job-{n}", LARGE)
    waiting = [w.number for w in made.farm.alive("ray") if not w.pid]
    assert waiting
    assert not [i for i in made.tick(0.9) if isinstance(i, instructions.EndWorker)]
    ended = [i for i in made.tick(0.2) if isinstance(i, instructions.EndWorker) and not i.force]
    assert ended
    assert {i.worker for i in ended} <= set(waiting)
    assert made.farm.workers[waiting[0]].state.value == "retiring"
    made.happens(events.WorkerGone(waiting[0], "idle"))
    assert made.farm.pools["ray"].failed_starts == 0


def test_alone_the_far_pool_makes_everything() -> None:
    made = stage(standby=True)
    assert [w.pool for w in made.farm.workers.values()] == ["ray"]
    ready(made, 1)
    made.submit("job-m", LARGE)
    measured(made, encode_ms=1.0)
    made.finish(ms={**MOVED, "encode": 1.0})
    made.submit("job-0002", LARGE)
    assert placed(made) == [("job-0002", 1)], "also what would not pay"


def test_when_the_far_pool_fails_the_near_one_does_its_work_until_it_is_back() -> None:
    made = stage(standby=True, idle_timeout_s=1.0)
    ready(made, 1)
    made.submit("job-0001", LARGE)
    made.happens(events.PoolFailed("ray", "The head is gone."))
    made.happens(events.PoolFailed("ray", "The head is gone."))
    assert [e["error"] for e in made.told("engine_failing")] == ["The head is gone."]
    assert made.farm.workers[2].pool == "local"
    made.happens(events.WorkerGone(1, "The head is gone.", blameless=True))
    ready(made, 2)
    assert placed(made)[-1] == ("job-0001", 2)
    assert made.farm.jobs["job-0001"].images[0].crashes == 0
    row = made.status()["engines"][1]
    assert (row["state"], row["error"], row["since_s"] >= 0) == ("failing", "The head is gone.", True)
    # One worker finds out when it is over; that it is started and ends is no news.
    made.tick(1.0)
    (probe,) = made.farm.alive("ray")
    told = len(made.published)
    made.happens(events.WorkerGone(probe.number, "No cluster answers."))
    assert len(made.published) == told
    made.happens(events.PoolFailed("ray", "No cluster answers."))
    assert len(made.told("engine_failing")) == 2, "another reason is news"
    made.tick(60.0)
    (probe,) = made.farm.alive("ray")
    ready(made, probe.number)
    assert [e["engine"] for e in made.told("engine_recovered")] == ["ray"]
    made.dispatched.popleft()
    made.finish()
    made.submit("job-0002", LARGE)
    assert placed(made) == [("job-0002", probe.number)]
    made.tick(1.1)
    assert made.farm.workers[2].state.value == "retiring", "the near workers are not needed any more"


def test_only_what_its_own_worker_died_of_counts_against_an_image() -> None:
    made = stage(standby=True, far=1)
    made.submit("job-0001", LARGE)
    for blameless in [True] * MAX_CRASHES + [False] * MAX_CRASHES:
        assert made.states("job-0001") == ["queued"]
        number = max(made.farm.workers)
        ready(made, number)
        assert made.states("job-0001") == ["running"]
        made.happens(events.WorkerGone(number, "killed", blameless=blameless))
    assert made.states("job-0001") == ["failed"]


def test_the_status_shows_each_node() -> None:
    made = both()
    made.submit("job-0001", LARGE)
    made.submit("job-0002", LARGE)
    made.finish(ms={"encode": 4.0}, bytes=1000)
    made.tick(1.0)
    made.finish(ms={**MOVED, "encode": 6.0}, bytes=2_000_000)
    made.tick(1.0)
    here, there = made.status()["nodes"]
    assert (here["node"], here["engine"], here["images"], here["encode_ms"]) == ("", "local", 1, 4.0)
    assert (there["node"], there["workers"], there["busy"]) == ("10.0.0.5", 1, 0)
    assert (there["encode_ms"], there["transfer_ms"], there["mb_per_s"]) == (6.0, 10.0, 1.0)


def test_a_paused_farm_starts_no_far_workers() -> None:
    made = both(far=4)
    made.pause()
    for n in range(12):
        made.submit(f"slow-{n}", LARGE)
    assert len(made.farm.alive("ray")) == 1


def test_while_all_are_busy_nothing_is_looked_at() -> None:
    made = both(far=1)
    for n in range(8):
        made.submit(f"job-{n}", LARGE)
    assert len(made.farm.waiting) == 4
