"""How jobs end: who is told, what is kept, and for how long."""

from __future__ import annotations

import pytest
from stage import Stage, batch

from luna_farm.core import completion, events, instructions
from luna_farm.core.completion import BURY_AGAIN_S
from luna_farm.errors import DiskError


def saved(stage: Stage, job_id: str) -> None:
    stage.submit(job_id)
    stage.finish()


def test_a_bounded_number_of_reports_is_kept() -> None:
    stage = Stage(kept_reports=2)
    stage.workers()
    for n in range(4):
        saved(stage, f"job-{n}")
    assert list(stage.farm.jobs) == ["job-2", "job-3"]
    assert list(stage.farm.requests) == ["request-job-2", "request-job-3"]
    assert stage.farm.open_jobs == {}


def test_no_report_is_kept_where_none_is_wanted_but_that_of_a_dead_letter() -> None:
    stage = Stage(kept_reports=0)
    stage.workers()
    saved(stage, "job-0")
    assert list(stage.farm.jobs) == []
    stage.submit("job-bad")
    stage.finish(state="failed", code="encode", error="no")
    saved(stage, "job-1")
    assert list(stage.farm.jobs) == ["job-bad"]


def test_jobs_with_dead_letters_are_kept_as_long_as_they_are() -> None:
    stage = Stage(kept_reports=1)
    stage.workers()
    stage.submit("job-bad")
    stage.finish(state="failed", code="encode", error="no")
    for n in range(3):
        saved(stage, f"job-{n}")
    assert list(stage.farm.jobs) == ["job-bad", "job-2"]
    assert stage.farm.jobs["job-bad"].options.filename == "a"
    stage.ask("retry", "job-bad")
    saved_again = stage.finish()
    assert instructions.Forget("npy:/dead/job-bad-0.npy") in saved_again
    for n in range(3, 5):
        saved(stage, f"job-{n}")
    assert list(stage.farm.jobs) == ["job-4"]


def test_a_job_that_is_tried_again_is_not_forgotten_meanwhile() -> None:
    stage = Stage(kept_reports=1, max_workers=1)
    stage.workers()
    stage.submit("job-bad")
    stage.finish(state="failed", code="encode", error="no")
    stage.ask("retry", "job-bad")
    retried = stage.dispatched.popleft()
    saved(stage, "job-0")
    assert list(stage.farm.jobs) == ["job-bad", "job-0"]
    stage.dispatched.append(retried)
    stage.finish()
    assert list(stage.farm.jobs) == ["job-bad"]
    assert stage.states("job-bad") == ["saved"]


def test_an_image_that_fails_again_counts_once_and_one_that_is_saved_then_not_at_all() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-bad")
    stage.finish(state="failed", code="encode", error="no")
    stage.ask("retry", "job-bad")
    assert stage.farm.totals["images_failed"] == 0
    stage.finish(state="failed", code="encode", error="no")
    assert stage.farm.totals["images_failed"] == 1
    stage.ask("retry", "job-bad")
    stage.finish()
    assert stage.farm.totals["images_failed"] == 0
    assert stage.farm.totals["images_saved"] == 1


def test_metadata_is_kept_while_it_may_be_needed_again() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-good", prompt="{}")
    stage.finish()
    stage.submit("job-bad", prompt="{}")
    stage.finish(state="failed", code="encode", error="no")
    assert stage.farm.jobs["job-good"].options.prompt == ""
    assert stage.farm.jobs["job-bad"].options.prompt == "{}"


def test_an_image_that_cannot_be_made_keeps_its_slot_until_its_dead_letter_is_written() -> None:
    stage = Stage()
    stage.hold = {instructions.Bury}
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="encode", error="no")
    (bury,) = stage.held
    assert (bury.task.path, bury.reason, bury.options.filename) == ("/out/a_RAW_00001.png", "no", "a")
    assert stage.states("job-0001") == ["burying"]
    assert stage.farm.slots.used_bytes == 4096
    stage.happens(events.Buried("job-0001", 0, error=DiskError("full")))
    assert stage.tick(BURY_AGAIN_S - 0.1) == []
    assert [type(i) for i in stage.tick(0.1)] == [instructions.Bury]
    assert stage.tick(60.0) == [], "it is on its way"
    done = stage.happens(events.Buried("job-0001", 0, "npy:/dead/x.npy", 0))
    assert [type(i).__name__ for i in done] == [
        "Append",
        "CatalogueFailed",
        "Publish",
        "Publish",
    ]
    assert stage.journal[-1]["task"]["segment"] == "npy:/dead/x.npy"
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.totals["images_failed"] == 1
    assert stage.status()["dead_letters"] == [
        {
            "job_id": "job-0001",
            "index": 0,
            "path": "/out/a_RAW_00001.png",
            "error": "no",
            "code": "encode",
        }
    ]


def test_what_fails_again_stays_in_its_dead_letter() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    for _ in range(3):
        stage.finish(state="failed", code="encode", error="no")
        assert stage.states("job-0001") == ["failed"]
        assert stage.farm.taken == set()
        stage.ask("retry", "job-0001")
        assert stage.farm.taken == {"/out/a_raw_00001.png"}
    assert stage.farm.segment_users == {"npy:/dead/job-0001-0.npy": 1}
    done = stage.finish()
    assert instructions.Forget("npy:/dead/job-0001-0.npy") in done
    assert not stage.farm.segment_users


def test_a_job_ends_once() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", batch(), batch())
    stage.finish()
    assert stage.told("save_job_done") == []
    stage.finish()
    (done,) = stage.told("save_job_done")
    assert (done["job_id"], done["state"], done["images_saved"]) == ("job-0001", "done", 2)


def test_only_an_image_that_is_kept_can_have_been_buried() -> None:
    with pytest.raises(AssertionError, match="is kept"):
        Stage().happens(events.Buried("job-9999", 0, "npy:/x", 0))


def test_an_image_whose_worker_cannot_reach_the_shared_memory_is_made_from_its_copy_on_disk() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="arena", error="gone")
    assert stage.states("job-0001") == ["running"]
    assert stage.farm.slots.used_bytes == 0
    assert stage.dispatched[-1].task.segment == "npy:/dead/job-0001-0.npy"
    assert instructions.Forget("npy:/dead/job-0001-0.npy") in stage.finish()
    assert stage.states("job-0001") == ["saved"]


def test_an_image_that_cannot_be_had_from_its_copy_either_has_failed() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="arena", error="gone")
    stage.tick(0.25)
    stage.finish(state="failed", code="arena", error="gone")
    assert stage.states("job-0001") == ["failed"]


def test_reports_of_large_jobs_are_bounded_by_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "IMAGES_A_REPORT", 2)
    stage = Stage(kept_reports=4, max_jobs=20)
    stage.workers()
    for number in range(4):
        stage.submit(f"job-000{number}", batch(batch=3))
        for _ in range(3):
            stage.finish()
    assert list(stage.farm.jobs) == ["job-0002", "job-0003"], "eight images"
    stage.submit("job-0009", batch(batch=20))
    for _ in range(20):
        stage.finish()
    assert list(stage.farm.jobs) == ["job-0009"], "the last one stays, however large"
    assert (stage.farm.kept_images, stage.farm.finished_order) == (20, {"job-0009": 20})


def test_a_farm_that_keeps_no_reports_keeps_those_of_dead_letters() -> None:
    stage = Stage(kept_reports=0)
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="encode", error="no")
    stage.submit("job-0002")
    stage.finish()
    assert list(stage.farm.jobs) == ["job-0001"]
