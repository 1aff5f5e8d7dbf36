"""Images that cannot be written now: exactly what fails is held, and its pixels keep no other image out."""

from __future__ import annotations

from stage import MIB, Disk, Stage, batch, code

from luna_farm.core import events, instructions
from luna_farm.core.held import HELD_SHARE, MOVE_AGAIN_S
from luna_farm.core.instructions import Append, Forget, MovePixels
from luna_farm.core.outputs import Output
from luna_farm.core.retry import FALLBACK_AFTER, FIRST_DELAY_S
from luna_farm.errors import DiskError

LARGE = batch(height=512, width=512, channels=4)
"""1 MiB, a quarter of the arena."""
BAD = {"state": "failed", "code": "disk", "error": "file too large"}


def fail_first(stage: Stage, job_id: str) -> None:
    """The image of that job that was dispatched first cannot be written."""
    while stage.dispatched[0].task.job_id != job_id:
        stage.dispatched.rotate(1)
    stage.finish(**BAD)


def kinds(done: list[instructions.Instruction]) -> list[str]:
    return [type(i).__name__ for i in done]


# --- what is held


def test_an_image_that_fails_alone_waits_alone() -> None:
    stage = Stage(max_workers=1, max_jobs=100, kept_reports=100)
    stage.workers()
    stage.submit("bad")
    stage.submit("good-1")
    stage.submit("good-2")
    fail_first(stage, "bad")
    assert stage.states("good-1") == ["running"], "the next one tries the folder at once"
    stage.finish()
    stage.finish()
    assert stage.told("folder_recovered")
    for number in range(3, 8):
        stage.submit(f"good-{number}")
        stage.finish()
        stage.tick(60.0)
        fail_first(stage, "bad")
        assert stage.farm.folders == {}, "the folder is known to work"
    assert [stage.states(f"good-{n}") for n in range(1, 8)] == [["saved"]] * 7
    assert stage.states("bad") == ["held"]
    stage.tick(60.0)
    stage.finish()
    assert stage.states("bad") == ["saved"]
    assert len(stage.told("folder_failing")) == 1


def test_a_hundred_images_that_fail_do_not_hold_up_the_good_ones_behind_them() -> None:
    stage = Stage(max_workers=1, max_jobs=200, kept_reports=200)
    stage.workers()
    for number in range(20):
        stage.submit(f"bad-{number}")
    stage.submit("good")
    waited = 0.0
    while stage.states("good") != ["saved"]:
        if stage.dispatched:
            good = stage.dispatched[0].task.job_id == "good"
            stage.finish(**({} if good else BAD))
        else:
            stage.tick()
            waited += 0.25
    assert waited < 30.0, "a second for each of the others at most"


def test_those_that_failed_alone_take_turns() -> None:
    stage = Stage(max_workers=1, max_jobs=100)
    stage.workers()
    for name in ("bad-1", "bad-2", "bad-3", "good"):
        stage.submit(name)
    tried: list[str] = []
    for _ in range(200):
        while stage.dispatched:
            tried.append(stage.dispatched[0].task.job_id)
            stage.finish(**({} if tried[-1] == "good" else BAD))
        stage.tick(1.0)
    counts = {name: tried.count(name) for name in ("bad-1", "bad-2", "bad-3")}
    assert max(counts.values()) - min(counts.values()) <= 1, counts
    assert max(counts.values()) <= 15, "they rest between two tries"


def test_when_one_that_failed_is_written_the_others_go_at_once() -> None:
    stage = Stage(max_workers=1, max_jobs=100)
    stage.workers()
    for name in ("bad-1", "bad-2", "good"):
        stage.submit(name)
    for _ in range(20):
        while stage.dispatched:
            stage.finish(**({} if stage.dispatched[0].task.job_id == "good" else BAD))
        stage.tick(1.0)
    stage.tick(60.0)
    stage.finish()
    assert sorted(stage.states("bad-1") + stage.states("bad-2")) == ["running", "saved"]


def test_an_image_that_fails_alone_goes_alone_to_the_fallback_folder() -> None:
    stage = Stage(max_workers=1, max_jobs=100, fallback_dir="/spare")
    stage.workers()
    stage.submit("bad")
    stage.submit("good")
    fail_first(stage, "bad")
    stage.finish()
    for _ in range(FALLBACK_AFTER - 1):
        stage.tick(60.0)
        stage.finish(**BAD, noted={"temp": {}})
    assert stage.dispatched[-1].task.noted is None, "what is noted of the other folder says nothing here"
    stage.finish()
    assert stage.told("image_saved")[-1]["path"] == "/spare/a_RAW_00001.png"


def test_what_goes_to_the_fallback_folder_belongs_on_the_disk_of_that() -> None:
    stage = Stage(max_workers=1, max_jobs=100, fallback_dir="/spare", fallback_mount="/spare")
    stage.disks = ("/out/small", "/out")
    stage.workers()
    stage.submit("bad", batch(outputs=(Output("png"), Output("webp", save_path="small"))))
    task = stage.dispatched[0].task
    assert (task.mount, [at["mount"] for at in task.outputs]) == ("/out", ["/out", "/out/small"])
    stage.finish(**BAD)
    for _ in range(FALLBACK_AFTER - 1):
        stage.tick(60.0)
        stage.finish(**BAD)
    task = stage.dispatched[-1].task
    assert task.path.startswith("/spare/")
    assert (task.mount, [at["mount"] for at in task.outputs]) == ("/spare", ["/spare", "/spare"])


def test_one_that_is_tried_while_its_folder_rests_is_not_tried_twice() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("one", batch(), batch())
    stage.finish(**BAD)
    stage.finish(**BAD)
    stage.tick(FIRST_DELAY_S)
    assert not stage.dispatched, "the folder rests for twice as long"
    stage.tick(FIRST_DELAY_S)
    assert len(stage.dispatched) == 1


# --- where their pixels wait


def test_held_pixels_above_their_share_move_to_the_disk() -> None:
    stage = Stage(max_workers=1, arena_bytes=4 * MIB)
    stage.workers()
    stage.submit("job", LARGE, LARGE)
    stage.finish(**BAD)
    assert stage.farm.slots.used_bytes == 2 * MIB
    stage.finish(**BAD)
    tasks = [image.task for image in stage.farm.jobs["job"].images]
    assert [task.segment for task in tasks] == ["file:/spool/job-0", "shm:arena"]
    assert stage.farm.slots.used_bytes == MIB == HELD_SHARE * stage.farm.slots.size
    assert stage.journal[-1]["task"]["segment"] == "file:/spool/job-0", "a successor finds them there"
    for _ in range(4):
        stage.tick(60.0)
        while stage.dispatched:
            stage.finish()
    assert stage.states("job") == ["saved", "saved"]
    assert stage.farm.segment_users == {}


def test_a_lease_without_room_moves_all_that_is_held() -> None:
    stage = Stage(max_workers=1, arena_bytes=4 * MIB)
    stage.workers()
    stage.submit("job", LARGE)
    stage.finish(**BAD)
    assert stage.farm.jobs["job"].images[0].task.segment == "shm:arena"
    assert code(stage.lease(4 * MIB)) == "busy"
    assert stage.farm.slots.used_bytes == 0
    assert len(stage.lease(4 * MIB)["leases"]) == 1


def test_a_durable_image_has_its_copy_already() -> None:
    stage = Stage(max_workers=1, arena_bytes=4 * MIB)
    stage.workers()
    stage.submit("job", LARGE, durable=True)
    stage.finish(**BAD)
    stage.hold = {MovePixels}
    stage.lease(4 * MIB)
    assert not stage.held
    assert stage.farm.slots.used_bytes == 0
    stage.tick(60.0)
    assert Forget("file:/spool/job-0") in stage.finish()


def test_a_disk_that_takes_no_pixels_is_asked_again_later() -> None:
    stage = Stage(max_workers=1, arena_bytes=4 * MIB)
    stage.workers()
    stage.submit("job", LARGE)
    stage.finish(**BAD)
    stage.hold = {MovePixels}
    stage.lease(4 * MIB)
    assert len(stage.held) == 1
    stage.happens(events.PixelsMoved("job", 0, error=DiskError("full")))
    assert code(stage.lease(4 * MIB)) == "busy"
    assert len(stage.held) == 1
    stage.farm.folders["/out"].failed_at = 1e9
    stage.tick(MOVE_AGAIN_S)
    assert len(stage.held) == 2
    assert stage.farm.slots.used_bytes == MIB


def test_what_runs_or_is_finished_when_its_copy_is_there_needs_none() -> None:
    stage = Stage(max_workers=1, arena_bytes=4 * MIB)
    stage.workers()
    stage.submit("job", LARGE)
    stage.finish(**BAD)
    stage.hold = {MovePixels}
    stage.lease(4 * MIB)
    stage.tick(60.0)
    assert stage.states("job") == ["running"]
    done = stage.happens(events.PixelsMoved("job", 0, "file:/spool/job-0"))
    assert done == [Forget("file:/spool/job-0")]
    assert stage.farm.jobs["job"].images[0].task.segment == "shm:arena"
    stage.finish()
    assert stage.happens(events.PixelsMoved("gone", 0, "file:/spool/gone-0")) == [
        Forget("file:/spool/gone-0")
    ]


def test_two_copies_at_a_time_are_made() -> None:
    stage = Stage(max_workers=1, arena_bytes=4 * MIB)
    stage.workers()
    stage.submit("job", LARGE, LARGE, LARGE, LARGE)
    stage.hold = {MovePixels}
    for _ in range(4):
        while stage.dispatched:
            stage.finish(**BAD)
        stage.tick(1.0)
    assert len(stage.held) == 2
    moved = stage.held[0].task
    done = stage.happens(events.PixelsMoved("job", moved.index, f"file:/spool/job-{moved.index}"))
    assert kinds(done)[:2] == ["Append", "MovePixels"]
    assert isinstance(done[0], Append)


def test_a_held_image_leaves_the_arena_of_a_predecessor() -> None:
    stage = Stage()
    stage.submit("job")
    after = stage.restarted(Disk())
    after.workers()
    assert after.farm.inherited == {"shm:arena"}
    done = after.finish(**BAD)
    assert Forget("shm:arena") in done
    assert after.farm.jobs["job"].images[0].task.segment == "file:/spool/job-0"
    assert after.restarted(Disk()).farm.jobs["job"].images[0].task.segment == "file:/spool/job-0"


def test_what_waits_for_the_spool_of_uploads_leaves_it_too() -> None:
    stage = Stage(spool_bytes=1)
    stage.submit("first", output_dir="s3://bucket/a")
    stage.submit("job", output_dir="s3://bucket/a")
    after = stage.restarted(Disk())
    after.workers()
    done = after.tick()
    assert after.farm.spool_queue
    moved = [i.segment for i in done if isinstance(i, Forget)]
    assert after.farm.jobs["job"].images[0].task.segment == "file:/spool/job-0", moved
