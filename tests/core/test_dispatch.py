"""Who makes which image, and when workers are started, reaped and killed; the clock is an argument."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stage import CLIENT, Stage, batch, code

from luna_farm.core import events, instructions
from luna_farm.core.completion import BURY_AGAIN_S
from luna_farm.core.dispatch import BYTES_PER_SECOND, START_S, STOPPED_S
from luna_farm.core.messages import Note
from luna_farm.core.placement import PREFETCHED, PREFETCHED_BYTES
from luna_farm.core.retry import FIRST_DELAY_S, MAX_CRASHES
from luna_farm.core.scaling import GROW_AT
from luna_farm.core.workers import WORKER_TRANSITIONS, Worker, WorkerState
from luna_farm.errors import DiskError

LARGE = batch(height=512, width=256)
assert LARGE.image_bytes > PREFETCHED_BYTES


def of_kind(done: list[instructions.Instruction], kind: type) -> list[instructions.Instruction]:
    return [i for i in done if isinstance(i, kind)]


def states(stage: Stage) -> dict[int, str]:
    return {number: worker.state.value for number, worker in stage.farm.workers.items()}


# --- starting


def test_the_first_tick_starts_the_least_number_of_workers() -> None:
    stage = Stage(min_workers=2)
    done = stage.happens(events.Tick())
    assert of_kind(done, instructions.Spawn) == [instructions.Spawn(1), instructions.Spawn(2)]
    assert [event["worker"] for event in stage.told("worker_started")] == [1, 2]
    assert not stage.farm.ready
    assert of_kind(stage.happens(events.Tick()), instructions.Spawn) == [], "they are on their way"


def test_a_worker_is_in_the_journal_before_it_is_handed_an_image() -> None:
    stage = Stage()
    stage.submit("job-0001")
    stage.happens(events.Tick())
    done = stage.happens(events.WorkerReady(1, 1001, 51.5, {"png": "kernel"}))
    kinds = [type(i).__name__ for i in done]
    assert kinds.index("Append") < kinds.index("Dispatch")
    assert stage.journal[-1] == {"r": "worker", "pid": 1001, "created": 51.5}
    assert stage.farm.encoders == {"png": "kernel"}
    assert stage.farm.ready


def test_the_pool_grows_with_the_queue_up_to_its_bound() -> None:
    stage = Stage(min_workers=1, max_workers=3, max_jobs=100)
    stage.workers()
    for n in range(20):
        stage.submit(f"job-{n:04d}", LARGE if n < 8 else batch())
    assert len(stage.farm.workers) == 3


def test_a_worker_that_cannot_start_is_tried_again_after_a_pause_that_doubles() -> None:
    stage = Stage()
    stage.happens(events.Tick())
    assert of_kind(stage.happens(events.WorkerGone(1, "exit code 1")), instructions.Spawn) == []
    assert of_kind(stage.tick(0.4), instructions.Spawn) == []
    assert of_kind(stage.tick(0.1), instructions.Spawn) == [instructions.Spawn(2)]
    stage.happens(events.WorkerGone(2, "exit code 1"))
    assert of_kind(stage.tick(0.9), instructions.Spawn) == []
    assert of_kind(stage.tick(0.1), instructions.Spawn) == [instructions.Spawn(3)]
    stage.worker(3)
    done = stage.happens(events.WorkerGone(3, "SIGKILL"))
    assert of_kind(done, instructions.Spawn) == [instructions.Spawn(4)], (
        "one that was ready is replaced at once"
    )


def test_workers_that_never_start_are_tried_for_ever() -> None:
    stage = Stage()
    for number in range(1, 1200):
        stage.tick(30.0)
        stage.happens(events.WorkerGone(number, "exit code 1"))
    assert stage.farm.pools["local"].failed_starts == 1199


# --- dispatching


def test_images_of_one_job_are_made_in_parallel() -> None:
    stage = Stage(min_workers=2)
    stage.workers()
    stage.submit("job-0001", LARGE, LARGE, LARGE)
    assert {d.worker for d in stage.dispatched} == {1, 2}
    assert stage.states("job-0001") == ["running", "running", "queued"]
    assert len(stage.told("save_started")) == 1


def test_small_images_are_handed_out_ahead_and_large_ones_only_while_many_wait() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001", batch(), batch(), batch())
    assert stage.states("job-0001") == ["running", "running", "queued"]
    other = Stage(max_workers=1)
    other.workers()
    other.submit("job-0001", LARGE, LARGE)
    assert other.states("job-0001") == ["running", "queued"]
    other.submit("job-0002", LARGE)
    assert other.states("job-0001") == ["running", "running"]
    assert other.states("job-0002") == ["queued"], "the last ones are for the worker that is free first"


def test_the_worker_that_was_idle_for_the_shortest_time_is_taken() -> None:
    stage = Stage(min_workers=2)
    stage.workers()
    stage.submit("job-0001")
    warm = stage.dispatched[0].worker
    stage.tick()
    stage.finish()
    stage.submit("job-0002")
    assert stage.dispatched[0].worker == warm


def test_a_second_ready_changes_nothing() -> None:
    stage = Stage()
    stage.workers()
    assert stage.happens(events.WorkerReady(1, 1001, 51.0, {})) == []


# --- dying and hanging


def test_what_a_dead_worker_held_goes_first_to_another() -> None:
    stage = Stage(min_workers=2, max_workers=2)
    stage.workers()
    stage.submit("job-0001", batch(), batch(), batch(), batch(), batch())
    held = [d.task.index for d in stage.dispatched if d.worker == 1]
    assert len(held) == 2
    stage.happens(events.WorkerGone(1, "ended by SIGKILL"))
    assert [image.task.index for image in stage.farm.waiting][:2] == held
    assert all(image.task.recovered for image in list(stage.farm.waiting)[:2])
    assert stage.told("worker_lost")[0]["reason"] == "ended by SIGKILL"
    first, second = (stage.farm.jobs["job-0001"].images[index] for index in held)
    assert (first.crashes, second.crashes) == (1, 0), "only the one that it worked on is suspect"


@pytest.mark.parametrize(
    ("watermark", "suspect"), [("", ""), ("stripes", " The watermark stripes runs in the workers, too.")]
)
def test_an_image_that_ends_its_worker_three_times_is_set_aside(watermark: str, suspect: str) -> None:
    stage = Stage(max_workers=1, watermark=watermark)
    stage.submit("job-0001")
    for crash in range(MAX_CRASHES):
        stage.workers()
        dispatch = stage.dispatched.popleft()
        assert dispatch.task.attempt == crash + 1
        stage.happens(events.WorkerGone(dispatch.worker, "ended by SIGSEGV"))
    assert stage.states("job-0001") == ["failed"]
    failed = stage.told("image_failed")[0]
    assert (failed["code"], failed["error"]) == (
        "crash",
        f"It ended its worker 3 times (last: ended by SIGSEGV).{suspect}",
    )


def test_an_image_that_ended_its_worker_is_not_handed_out_ahead_of_others() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001", batch(), batch())
    stage.happens(events.WorkerGone(1, "killed"))
    stage.dispatched.clear()
    stage.workers()
    assert stage.states("job-0001") == ["running", "running"], "the suspect first, another behind it"
    suspect = stage.dispatched[0]
    assert suspect.task.index == 0
    stage.happens(events.WorkerGone(suspect.worker, "killed"))
    stage.dispatched.clear()
    busy = Stage(max_workers=1)
    busy.workers()
    busy.submit("job-0001")
    again = busy.farm.jobs["job-0001"].images[0]
    busy.happens(events.WorkerGone(1, "killed"))
    busy.happens(events.Tick())
    busy.submit("job-0002")
    busy.farm.waiting.rotate(1)
    busy.worker(2)
    assert busy.dispatched[-1].task.job_id == "job-0002"
    assert again.state.value == "queued"


def test_a_worker_without_progress_is_killed_at_its_deadline_and_only_once() -> None:
    stage = Stage(worker_deadline_s=10.0)
    stage.workers()
    stage.submit("job-0001", LARGE)
    deadline = 10.0 + LARGE.image_bytes / BYTES_PER_SECOND
    for _ in range(10):
        assert of_kind(stage.tick(1.0), instructions.EndWorker) == []
    stage.tick(deadline - 10.0)
    assert of_kind(stage.tick(0.01), instructions.EndWorker) == [
        instructions.EndWorker(1, "no progress for 10 s", force=True)
    ]
    assert of_kind(stage.tick(1.0), instructions.EndWorker) == []
    assert states(stage)[1] == "killed"
    stage.happens(events.WorkerGone(1, "no progress for 10 s"))
    assert stage.farm.waiting[0].crashes == 1


def test_every_image_of_a_worker_has_its_own_deadline() -> None:
    stage = Stage(max_workers=1, worker_deadline_s=10.0)
    stage.workers()
    stage.submit("job-0001", batch(), batch())
    for _ in range(9):
        stage.tick(1.0)
    stage.finish()
    for _ in range(9):
        assert of_kind(stage.tick(1.0), instructions.EndWorker) == []


def test_a_result_that_came_before_the_kill_counts() -> None:
    stage = Stage(worker_deadline_s=1.0)
    stage.workers()
    stage.submit("job-0001")
    stage.tick(1.5)
    assert states(stage)[1] == "killed"
    stage.finish()
    assert stage.states("job-0001") == ["saved"]
    stage.happens(events.WorkerGone(1, "no progress"))
    assert stage.states("job-0001") == ["saved"]


def test_when_this_process_was_stopped_nobody_was_late_but_us() -> None:
    stage = Stage(worker_deadline_s=10.0)
    stage.workers()
    stage.submit("job-0001")
    assert of_kind(stage.tick(60.0 + STOPPED_S), instructions.EndWorker) == []
    for _ in range(10):
        stage.tick(1.0)
    assert of_kind(stage.tick(1.0), instructions.EndWorker) != []


def test_one_that_never_gets_ready_is_killed_too() -> None:
    stage = Stage(worker_deadline_s=1.0)
    stage.happens(events.Tick())
    for _ in range(int(START_S)):
        assert of_kind(stage.tick(1.0), instructions.EndWorker) == [], "a busy machine starts slowly"
    (killed, *_) = of_kind(stage.tick(0.1), instructions.EndWorker)
    assert killed == instructions.EndWorker(1, "no progress for 30 s", force=True)
    assert stage.happens(events.WorkerReady(1, 1001, 51.0, {})) == [], "too late"


# --- reaping


def test_idle_workers_above_the_least_are_reaped_after_their_time() -> None:
    stage = Stage(min_workers=1, max_workers=2, idle_timeout_s=1.0)
    stage.workers()
    stage.submit("job-0001", LARGE, LARGE, LARGE)
    stage.workers()
    while stage.dispatched:
        stage.finish()
    assert list(states(stage).values()) == ["idle", "idle"]
    assert of_kind(stage.tick(0.9), instructions.EndWorker) == []
    (retire,) = of_kind(stage.tick(0.1), instructions.EndWorker)
    assert isinstance(retire, instructions.EndWorker)
    assert states(stage)[retire.worker] == "retiring"
    stage.happens(events.WorkerGone(retire.worker, "idle"))
    assert stage.told("worker_reaped")[0]["reason"] == "idle"
    assert len(stage.farm.workers) == 1
    assert of_kind(stage.tick(5.0), instructions.EndWorker) == []


# --- folders that fail


def test_one_image_probes_a_failing_folder_and_the_others_wait() -> None:
    stage = Stage(min_workers=2, max_workers=2)
    stage.workers()
    stage.submit("job-0001", LARGE, LARGE, LARGE)
    for _ in range(3):
        stage.finish(state="failed", code="disk", error="full")
    assert stage.states("job-0001") == ["held", "held", "held"]
    assert of_kind(stage.tick(FIRST_DELAY_S), instructions.Dispatch) == []
    assert of_kind(stage.tick(2 * FIRST_DELAY_S), instructions.Dispatch) == []
    stage.tick(FIRST_DELAY_S)
    assert stage.states("job-0001").count("running") == 1
    stage.finish()
    assert stage.states("job-0001").count("held") == 0
    assert stage.told("folder_recovered") == [{"event": "folder_recovered", "path": "/out"}]


def test_a_probe_that_finds_no_worker_is_made_when_there_is_one() -> None:
    stage = Stage(max_workers=1, max_jobs=100)
    stage.workers()
    stage.submit("job-0001", LARGE)
    stage.finish(state="failed", code="disk", error="full")
    stage.submit("job-0002", LARGE, output_dir="/elsewhere")
    stage.tick(FIRST_DELAY_S)
    assert stage.states("job-0001") == ["queued"], "its time has come, but the worker is busy"
    stage.submit("job-0003", output_dir="/elsewhere")
    stage.tick(1.0)
    while stage.dispatched:
        stage.finish()
    assert stage.states("job-0001") == ["saved"]


def test_a_probe_whose_worker_dies_is_made_again() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="disk", error="full")
    stage.tick(1.0)
    stage.happens(events.WorkerGone(1, "killed"))
    stage.dispatched.clear()
    stage.workers()
    assert stage.states("job-0001") == ["running"]


def test_new_images_for_a_failing_folder_are_held_without_a_try() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", batch(), batch())
    for _ in range(2):
        stage.finish(state="failed", code="disk", error="full")
    stage.submit("job-0002")
    assert stage.states("job-0002") == ["held"]
    assert stage.farm.depth == 0
    assert stage.status()["queue"] == {"jobs": 2, "images": 3, "bytes": 9216}
    assert stage.pause()["waiting"] == 3, "held images wait as well"
    assert stage.told("pool_paused")[0]["waiting"] == 3


# --- what a dead worker noted


def test_the_notes_of_a_dead_worker_go_with_its_images_and_into_the_journal() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001")
    old = Note(".luna-job-0001-0.tmp", "a.png", 1, 2, 3)
    new = Note(".luna-job-0001-0.tmp", "a_00001.png", 1, 2, 3)
    beside = Note(".luna-job-0001-0-json.tmp", "a.json", 4, 5, 6)
    noted = {note.temp: note.to_map() for note in (new, beside)}
    other = Note(".luna-job-0001-01.tmp", "b.png", 7, 8, 9)
    stage.happens(events.WorkerGone(1, "killed", (old, other, beside, new)))
    assert stage.journal[-1]["task"]["noted"] == noted
    stage.workers()
    assert stage.dispatched[-1].task.noted == noted
    assert stage.restarted().farm.jobs["job-0001"].images[0].task.noted == noted
    stage.dispatched.popleft()
    stage.finish(state="failed", code="disk", error="full")
    stage.tick(1.0)
    assert stage.dispatched[-1].task.noted is None, "a write that was refused leaves nothing behind"


def test_a_file_that_may_be_there_although_its_write_failed_is_looked_for_by_the_next_attempt() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001")
    note = Note(".luna-job-0001-0.tmp", "a.png", 1, 2, 3)
    noted = {note.temp: note.to_map()}
    stage.finish(state="failed", code="disk", error="read-only", noted=noted)
    assert stage.restarted().farm.jobs["job-0001"].images[0].task.noted == noted
    stage.tick(1.0)
    task = stage.dispatched[-1].task
    assert Note.of(task) == note
    gone = {note.temp: note.withdrawn().to_map()}
    assert Note.of(replace(task, noted=gone)) is None


# --- stopping


def test_a_farm_that_stops_finishes_what_it_accepted_and_then_ends_its_workers() -> None:
    stage = Stage(min_workers=2)
    stage.submit("job-0001")
    stage.happens(events.DrainRequested())
    assert not stage.farm.ready
    assert not stage.farm.drained
    stage.workers()
    stage.finish()
    assert stage.farm.drained
    assert len(of_kind(stage.tick(), instructions.EndWorker)) == 2
    for number in list(stage.farm.workers):
        assert of_kind(stage.happens(events.WorkerGone(number, "idle")), instructions.Spawn) == []


def test_what_a_disk_holds_up_does_not_hold_up_the_end() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", batch(), LARGE)
    stage.finish(state="failed", code="disk", error="full")
    stage.hold = {instructions.Bury}
    stage.happens(events.DrainRequested())
    stage.tick(1.0)
    stage.finish(state="failed", code="encode", error="no")
    assert not stage.farm.drained, "its dead letter is being written"
    image = next(i for i in stage.farm.unfinished() if i.state.value == "burying")
    stage.happens(events.Buried(*image.key, error=DiskError("full")))
    assert stage.farm.drained
    (bury,) = of_kind(stage.tick(BURY_AGAIN_S), instructions.Bury)
    assert isinstance(bury, instructions.Bury)
    assert (bury.task.job_id, bury.reason) == ("job-0001", "no")


@pytest.mark.parametrize("start", WorkerState)
@pytest.mark.parametrize("to", WorkerState)
def test_only_what_the_table_lists_may_happen_to_a_worker(start: WorkerState, to: WorkerState) -> None:
    worker = Worker(5, 0.0, state=start)
    if to in WORKER_TRANSITIONS[start]:
        worker.move(to, 3.0)
        assert (worker.state, worker.since) == (to, 3.0)
    else:
        with pytest.raises(AssertionError, match=f"worker 5 cannot go from {start.value} to {to.value}"):
            worker.move(to, 3.0)


def test_the_clock_may_begin_anywhere() -> None:
    stage = Stage()
    stage.now = 1e9
    stage.workers()
    stage.submit("job-0001", client=CLIENT)
    assert of_kind(stage.tick(), instructions.EndWorker) == []


def test_images_of_a_failing_folder_take_turns_to_probe_it() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    for n in range(3):
        stage.submit(f"job-{n}")
    probed = []
    for _ in range(6):
        probed.append(stage.dispatched[0].task.job_id)
        stage.finish(state="failed", code="disk", error="full")
        stage.tick(60.0)
    assert probed == ["job-0", "job-1", "job-2"] * 2


# --- a pause


def test_a_paused_pool_finishes_what_runs_and_begins_nothing() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    big = batch(height=512, width=256)
    stage.submit("job-0001", big, big)
    assert stage.pause() == {"success": True, "paused": True, "waiting": 1, "running": 1}
    stage.finish()
    stage.submit("job-0002")
    assert stage.states("job-0001") == ["saved", "queued"]
    assert stage.states("job-0002") == ["queued"]
    assert stage.status()["paused"]
    assert not stage.dispatched
    assert stage.pause(False)["paused"] is False
    assert stage.dispatched
    assert [len(stage.told(name)) for name in ("pool_paused", "pool_resumed")] == [1, 1]


def test_a_pause_of_a_paused_pool_is_no_news() -> None:
    stage = Stage()
    assert stage.pause() == stage.pause()
    assert len(stage.told("pool_paused")) == 1


def test_a_paused_pool_accepts_until_its_memory_is_full_and_says_why() -> None:
    stage = Stage(arena_bytes=8192)
    stage.workers()
    stage.pause()
    stage.submit("job-0001")
    stage.submit("job-0002")
    refused = stage.lease(3072)
    assert code(refused) == "busy"
    assert "luna-farm resume" in refused["error"]


def test_a_paused_pool_starts_no_worker_for_its_queue_and_tries_no_failing_folder() -> None:
    stage = Stage(min_workers=1, max_workers=2, max_jobs=20)
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="disk", error="full")
    stage.pause()
    for n in range(GROW_AT + PREFETCHED):
        stage.submit(f"job-1{n:03d}", output_dir="/other")
    stage.tick(60)
    stage.tick(60)
    assert stage.states("job-0001") == ["held"]
    assert len(stage.farm.alive()) == 1
    stage.pause(False)
    assert len(stage.farm.alive()) == 2
    stage.tick()
    assert stage.states("job-0001") != ["held"]


def test_a_drain_ends_a_pause_and_allows_none() -> None:
    stage = Stage()
    stage.workers()
    stage.pause()
    stage.submit("job-0001")
    stage.happens(events.DrainRequested())
    assert stage.states("job-0001") == ["running"]
    assert code(stage.pause()) == "not_possible"


def test_a_paused_farm_that_ends_now_begins_nothing_more() -> None:
    stage = Stage()
    stage.workers()
    stage.pause()
    stage.submit("job-0001")
    stage.happens(events.DrainRequested(now=True))
    stage.tick()
    assert stage.states("job-0001") == ["queued"]
    assert not stage.farm.ready
