"""What the result of an image means: the journal first, then the events."""

from __future__ import annotations

from stage import Stage, batch

from luna_farm.core import events
from luna_farm.core.messages import ImageResult
from luna_farm.core.retry import FALLBACK_AFTER

LARGE = batch(height=512, width=256)


def test_a_saved_image_is_journaled_and_its_slot_is_free() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    assert stage.farm.slots.used_bytes == 4096
    done = stage.finish(thumbnail=b"jpeg", ms={"gate": 1.0, "encode": 2.0, "write": 3.0})
    kinds = [type(i).__name__ for i in done]
    assert kinds == ["Append", "Publish", "Publish"]
    record = stage.journal[-1]
    assert (record["r"], record["state"]) == ("image", "saved")
    assert "thumbnail" not in record["result"]
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.taken == set()
    saved = stage.told("image_saved")[0]
    assert saved["thumbnail"] == b"jpeg"
    assert (saved["gate_ms"], saved["encode_ms"], saved["write_ms"]) == (1.0, 2.0, 3.0)
    assert stage.farm.jobs["job-0001"].images[0].result.thumbnail == b""
    totals = stage.farm.totals
    assert (totals["images_saved"], totals["bytes_written"]) == (1, 10)


def test_times_are_measured_from_the_acceptance() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001", LARGE, LARGE)
    stage.now += 1.0
    stage.finish()
    stage.now += 0.5
    stage.finish()
    first, second = stage.told("image_saved")
    assert (first["queue_ms"], first["ms"]) == (0.0, 1000.0)
    assert (second["queue_ms"], second["ms"]) == (1000.0, 1500.0)
    assert stage.told("save_job_done")[0]["ms"] == 1500.0


def test_a_discarded_image_is_rejected_and_saved_and_a_dropped_one_rejected_only() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", batch(), batch(), on_reject="discard")
    stage.finish(state="discarded", path="/out/_discarded/a.png", score=0.1, threshold=0.3)
    stage.finish(state="dropped", path="", bytes=0, score=0.1, threshold=0.3)
    rejected = stage.told("image_rejected")
    assert [(e["index"], e["on_reject"], e["score"], e["threshold"]) for e in rejected] == [
        (0, "discard", 0.1, 0.3),
        (1, "discard", 0.1, 0.3),
    ]
    assert [event["path"] for event in stage.told("image_saved")] == ["/out/_discarded/a.png"]
    done = stage.told("save_job_done")[0]
    assert (done["state"], done["images_saved"], done["images_discarded"]) == ("done", 0, 2)
    assert stage.farm.totals["images_discarded"] == 2
    assert stage.farm.totals["images_saved"] == 0


def test_an_image_whose_name_exists_is_no_rejection_and_no_file() -> None:
    """With if_exists = skip no gate has judged it."""
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", if_exists="skip")
    stage.finish(state="dropped", path="/out/a.png", bytes=0)
    (image,) = stage.farm.jobs["job-0001"].report()["images"]
    assert (image["state"], [at["state"] for at in image["outputs"]]) == ("dropped", ["dropped"])
    assert stage.told("image_rejected") == stage.told("image_saved") == []
    assert stage.told("save_job_done")


def test_a_image_that_was_dropped_says_nothing_of_its_folder() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001", LARGE, LARGE)
    stage.finish(state="failed", code="disk", error="full")
    stage.tick(1.0)
    stage.finish(state="dropped", path="", bytes=0)
    assert "/out" in stage.farm.folders
    stage.tick(1.0)
    assert stage.states("job-0001").count("running") == 1, "another one probes"


def test_a_bad_image_fails_alone() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", *[batch()] * 5)
    for n in range(5):
        stage.finish(**({"state": "failed", "code": "encode", "error": "odd"} if n == 2 else {}))
    assert sorted(stage.states("job-0001")) == ["failed", "saved", "saved", "saved", "saved"]
    done = stage.told("save_job_done")[0]
    assert (done["state"], done["images_saved"], done["images_failed"]) == ("failed", 4, 1)


def test_a_result_that_nobody_waits_for_changes_nothing() -> None:
    stage = Stage(min_workers=2)
    stage.workers()
    stage.submit("job-0001", LARGE)
    worker = stage.dispatched[0].worker
    other = 3 - worker
    saved = ImageResult("saved", path="/out/x.png", bytes=1)
    assert stage.happens(events.ImageFinished(other, "job-0001", 0, saved)) == [], "it is not that worker's"
    assert stage.happens(events.ImageFinished(worker, "job-9999", 0, saved)) == [], (
        "of a job that is not kept"
    )
    stage.finish()
    assert stage.happens(events.ImageFinished(worker, "job-0001", 0, saved)) == [], "it was finished before"
    assert stage.farm.totals["images_saved"] == 1


# --- disks that fail


def test_a_full_disk_keeps_the_pixels_and_is_told_once() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001", batch(), batch())
    for _ in range(2):
        stage.finish(state="failed", code="disk", error="No space left")
    assert stage.states("job-0001") == ["held", "held"]
    assert stage.farm.slots.used_bytes == 2 * 4096
    assert stage.told("folder_failing") == [
        {"event": "folder_failing", "job_id": "job-0001", "path": "/out", "error": "No space left"}
    ]
    report = stage.farm.jobs["job-0001"].report()
    assert (report["state"], report["images"][0]["error"]) == ("running", "No space left")
    assert all(image.task.recovered for image in stage.farm.jobs["job-0001"].images)


def test_a_folder_may_fail_for_days() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001")
    for _ in range(1100):
        stage.finish(state="failed", code="disk", error="gone")
        stage.tick(31.0)
    assert stage.farm.folders["/out"].failures == 1100
    stage.finish()
    assert stage.states("job-0001") == ["saved"]


def test_only_the_folder_that_fails_is_held_up() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="disk", error="full")
    stage.submit("job-0002", save_path="elsewhere")
    assert stage.states("job-0002") == ["running"]
    stage.finish()
    assert stage.states("job-0002") == ["saved"]
    assert stage.told("folder_recovered") == []


def test_what_waits_goes_to_the_fallback_folder_under_its_relative_name() -> None:
    stage = Stage(max_workers=1, fallback_dir="/spare/")
    stage.workers()
    stage.submit("job-0001", LARGE, LARGE, save_path="shots")
    for n in range(FALLBACK_AFTER):
        stage.finish(state="failed", code="disk", error="gone")
        stage.tick(10.0 * (n < FALLBACK_AFTER - 1))
    tasks = [image.task for image in stage.farm.jobs["job-0001"].images]
    assert [task.path for task in tasks] == ["/spare/shots/a_RAW_00001.png", "/spare/shots/a_RAW_00002.png"]
    assert {task.root for task in tasks} == {"/spare/"}
    moved = [record["task"]["path"] for record in stage.journal if record["r"] == "image"]
    assert moved == [task.path for task in tasks], "a successor looks for them there"
    assert stage.farm.folders == {}
    assert stage.farm.taken == {"/spare/shots/a_raw_00001.png", "/spare/shots/a_raw_00002.png"}
    stage.finish()
    stage.finish()
    assert stage.states("job-0001") == ["saved", "saved"]
    assert stage.farm.taken == set()


def test_there_is_no_fallback_for_the_fallback_folder() -> None:
    stage = Stage(max_workers=1, fallback_dir="/spare")
    stage.workers()
    stage.submit("job-0001", output_dir="/spare")
    for _ in range(FALLBACK_AFTER + 1):
        stage.finish(state="failed", code="disk", error="gone")
        stage.tick(60.0)
    assert stage.farm.folders["/spare"].failures == FALLBACK_AFTER + 1


def test_images_of_another_folder_do_not_move() -> None:
    stage = Stage(max_workers=1, fallback_dir="/spare")
    stage.workers()
    stage.submit("job-0001", save_path="one")
    stage.submit("job-0002", save_path="two")
    for n in range(FALLBACK_AFTER):
        if stage.dispatched[0].task.job_id != "job-0001":
            stage.dispatched.rotate(1)
        stage.finish(state="failed", code="disk", error="gone")
        if n == 0:
            stage.finish(state="failed", code="disk", error="gone")
        stage.farm.folders["/out/two"].failed_at = 1e9
        stage.tick(9.0)
    paths = [image.task.path for job in stage.farm.jobs.values() for image in job.images]
    assert paths == ["/spare/one/a_RAW_00001.png", "/out/two/a_RAW_00002.png"]
