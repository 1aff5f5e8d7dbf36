"""Spooled pixels of which the journal knows nothing, or something else."""

from __future__ import annotations

from typing import Any

import pytest
from stage import Disk, Stage, batch

from luna_farm.core import recovery, spooled
from luna_farm.core.completion import request_of
from luna_farm.core.messages import ImageResult
from luna_farm.core.spooled import ADOPTED, Spooled


def lying_there(*jobs: str, images: int = 1) -> list[Spooled]:
    """What the spool holds of durable jobs."""
    stage = Stage(max_jobs=100)
    for job_id in jobs:
        stage.submit(job_id, *[batch()] * images, durable=True)
    return [
        Spooled.of(f"file:/spool/{job.job_id}-{image.task.index}", request_of(job, image))
        for job in stage.farm.jobs.values()
        for image in job.images
    ]


def restarted(recovered: recovery.RecoveredState, probe: Disk) -> Stage:
    stage = Stage()
    for instruction in recovery.restore(stage.farm, recovered, probe, 0.0):
        follows = stage._carry_out(instruction)
        if follows is not None:
            stage.happens(follows)
    stage.workers()
    return stage


@pytest.mark.parametrize("whole", [True, False])
def test_a_job_that_no_record_names_is_saved_from_its_pixels(whole: bool) -> None:
    recovered = recovery.RecoveredState({}, [])
    (told,) = spooled.take_up(recovered, lying_there("job", images=2), whole)
    assert "job job" in told
    assert "/out/a_RAW_00001.png" in told
    stage = restarted(recovered, Disk())
    assert stage.farm.jobs["job"].request_id == "request-job", "sent again, it is answered with this job"
    while stage.dispatched:
        assert stage.dispatched[0].task.segment.startswith("file:/spool/job-")
        stage.finish()
    assert stage.states("job") == ["saved", "saved"]


def test_a_part_of_a_job_counts_only_when_records_are_missing() -> None:
    part = lying_there("job", images=3)[1:]
    whole = recovery.RecoveredState({}, [])
    assert spooled.take_up(whole, part, whole=True) == []
    assert whole.jobs == {}, "its submit was never accepted, and may be sent again"
    damaged = recovery.RecoveredState({}, [])
    spooled.take_up(damaged, part, whole=False)
    job = damaged.jobs["job"]
    assert (job.request_id, [image.task.index for image in job.images]) == (f"{ADOPTED}job", [0, 1])
    assert [image.task.path for image in job.images] == ["/out/a_RAW_00002.png", "/out/a_RAW_00003.png"]


def test_what_may_have_been_saved_is_set_aside_and_can_be_tried_again() -> None:
    recovered = recovery.RecoveredState({}, [])
    spooled.take_up(recovered, lying_there("job"), whole=False)
    stage = restarted(recovered, Disk(files=frozenset({"/out/a_RAW_00001.png"})))
    assert stage.states("job") == ["failed"]
    image = stage.farm.jobs["job"].images[0]
    assert (image.result.code, image.task.segment) == ("unsure", "npy:/dead/job-0.npy")
    stage.ask("retry", "job")
    stage.finish()
    assert stage.states("job") == ["saved"]


def test_what_is_known_to_have_been_saved_is_not_saved_again() -> None:
    recovered = recovery.RecoveredState({}, [])
    spooled.take_up(recovered, lying_there("job"), whole=False)
    path = "/out/a_RAW_00001.png"
    disk = Disk(files=frozenset({path}), made={("job", 0): ImageResult("saved", path=path, bytes=9)})
    assert restarted(recovered, disk).states("job") == ["saved"]


def test_an_open_job_gets_its_pixels_from_the_spool() -> None:
    """The record of the move may not have reached the disk."""
    stage = Stage()
    stage.submit("job")
    recovered = recovery.read(stage.journal)
    assert recovered.jobs["job"].images[0].task.segment == "shm:arena"
    found = Spooled.of(
        "file:/spool/job-0", request_of(stage.farm.jobs["job"], stage.farm.jobs["job"].images[0])
    )
    assert spooled.take_up(recovered, [found], whole=True) == []
    assert recovered.jobs["job"].images[0].task.segment == "file:/spool/job-0"


def test_what_is_left_of_finished_jobs_is_not_taken_up() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("done", durable=True)
    stage.submit("dead", durable=True)
    stage.finish()
    stage.finish(state="failed", code="encode", error="odd")
    stage.keep_reports()
    recovered = recovery.read([], stage.reports)
    assert spooled.take_up(recovered, lying_there("done", "dead"), whole=False) == []
    assert recovered.reports["dead"].images[0].task.segment == "npy:/dead/dead-0.npy"
    orphans = recovery.read([record for record in stage.journal if record["r"] == "image"])
    assert spooled.take_up(orphans, lying_there("done"), whole=False) == [], "an image record says so"


def test_a_submit_that_was_accepted_under_another_id_is_not_taken_up_twice() -> None:
    stage = Stage()
    stage.submit("second", request_id="request-first", durable=True)
    recovered = recovery.read(stage.journal)
    assert spooled.take_up(recovered, lying_there("first"), whole=False) == []


@pytest.mark.parametrize("change", [{"task": {}}, {"options": None}, {"num_images": "many"}, {"warnings": 3}])
def test_a_request_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    stage = Stage()
    stage.submit("job", durable=True)
    job = stage.farm.jobs["job"]
    with pytest.raises((KeyError, ValueError, TypeError, AttributeError)):
        Spooled.of("file:/spool/job-0", {**request_of(job, job.images[0]), **change})


def test_images_beyond_the_end_of_their_job_are_passed_over() -> None:
    stage = Stage()
    stage.submit("job")
    recovered = recovery.read(stage.journal)
    two = lying_there("job", images=2)
    assert spooled.take_up(recovered, two[1:], whole=False) == []


def test_open_jobs_of_a_damaged_journal_are_not_saved_twice() -> None:
    stage = Stage()
    stage.submit("job")
    recovered = recovery.read(stage.journal)
    recovered.unsure.add("job")
    after = restarted(recovered, Disk(files=frozenset({"/out/a_RAW_00001.png"})))
    assert after.states("job") == ["failed"]
    assert after.farm.jobs["job"].images[0].result.code == "unsure"
