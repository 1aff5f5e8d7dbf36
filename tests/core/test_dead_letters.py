"""Dead letters are believed where the journal tells nothing of them, or something older."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stage import Disk, Stage, batch

from luna_farm.core import recovery
from luna_farm.core.dead_letters import DeadLetter, take_up
from luna_farm.core.job import ImageState


def letters_of(stage: Stage) -> list[DeadLetter]:
    """What the disk holds of the images that were set aside."""
    return [
        DeadLetter(job.options, replace(image.task, segment="shm:old", offset=8), "why", image.task.segment)
        for job in stage.farm.jobs.values()
        for image in job.images
        if image.task.segment.startswith("npy:")
    ]


def failed_stage() -> Stage:
    """A job with an image that was saved between two that were set aside."""
    stage = Stage(max_workers=1)
    stage.workers()
    stage.submit("job-0001", batch(), batch(), batch())
    stage.finish(state="failed", code="encode", error="no")
    stage.finish()
    stage.finish(state="failed", code="encode", error="no")
    return stage


def test_a_job_that_no_record_knows_comes_back_as_failed_and_can_be_tried_again() -> None:
    letters = letters_of(failed_stage())
    assert [letter.task.index for letter in letters] == [0, 2]
    recovered = recovery.read([])
    assert take_up(recovered, letters) == []
    job = recovered.jobs["job-0001"]
    assert [(i.task.index, i.state, i.task.segment) for i in job.images] == [
        (0, ImageState.FAILED, letters[0].segment),
        (1, ImageState.FAILED, letters[1].segment),
    ]
    assert (job.state, job.images[1].result.error) == ("failed", "why")


def test_taken_up_twice_is_taken_up_once() -> None:
    letters = letters_of(failed_stage())
    recovered = recovery.read([])
    take_up(recovered, letters)
    stage = Stage()
    recovery.restore(stage.farm, recovered, Disk(), 0.0)
    again = recovery.read(recovery.snapshot(stage.farm))
    assert take_up(again, letters) == []
    assert len(again.jobs["job-0001"].images) == 2


def test_what_the_journal_knows_stays_as_it_is() -> None:
    stage = failed_stage()
    recovered = recovery.read(stage.journal)
    before = [(i.state, i.task) for i in recovered.jobs["job-0001"].images]
    assert take_up(recovered, letters_of(stage)) == []
    assert [(i.state, i.task) for i in recovered.jobs["job-0001"].images] == before


@pytest.mark.parametrize("state", [ImageState.QUEUED, ImageState.LOST])
def test_a_journal_older_than_the_letter_is_corrected(state: ImageState) -> None:
    stage = failed_stage()
    recovered = recovery.read(stage.journal[:2])
    image = recovered.jobs["job-0001"].images[0]
    image.state = state
    assert take_up(recovered, letters_of(stage)[:1]) == []
    assert (image.state, image.task.segment) == (ImageState.FAILED, letters_of(stage)[0].segment)


def test_the_letter_of_an_image_that_was_made_after_all_is_not_needed() -> None:
    stage = failed_stage()
    recovered = recovery.read(stage.journal)
    letters = letters_of(stage)
    recovered.jobs["job-0001"].images[0].state = ImageState.SAVED
    assert take_up(recovered, letters) == [letters[0].segment]
