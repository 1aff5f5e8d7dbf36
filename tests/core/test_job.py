"""The table of an image's life, and how a job follows from its images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage import options

from luna_farm.core.job import HISTORY_LENGTH, TRANSITIONS, UNFINISHED, Image, ImageState, Job
from luna_farm.core.messages import ImageResult, ImageTask

S = ImageState


def image(state: ImageState = S.QUEUED, index: int = 0) -> Image:
    task = ImageTask("ab12cd34", index, "RAW", "png", 0, 1, f"/out/{index}.png", "shm:arena", 0, 4, 4, 3)
    return Image(task, state)


def job(*states: ImageState) -> Job:
    images = [image(state, index) for index, state in enumerate(states)]
    given_options = options(
        prompt="{}", extra_pnginfo="{}", custom_metadata="1", metadata="{}", model_name="m"
    )
    return Job("ab12cd34", "request-1", given_options, images, 0.0, ("a warning",))


@pytest.mark.parametrize("start", S)
@pytest.mark.parametrize("to", S)
def test_only_what_the_table_lists_may_happen_to_an_image(start: ImageState, to: ImageState) -> None:
    subject = image(start)
    if to in TRANSITIONS[start]:
        subject.move(to)
        assert subject.state is to
        assert subject.history == [start.value]
    else:
        subject.history = ["once", "upon a time"]
        with pytest.raises(
            AssertionError, match=f"cannot go from {start.value} to {to.value}; history: once > upon"
        ):
            subject.move(to)


def test_what_is_finished_stays_so_except_for_a_retry_a_submit_sent_again_or_a_dismissal() -> None:
    for state in S:
        if state not in UNFINISHED:
            again = {
                S.FAILED: {S.QUEUED, S.UPLOADING, S.CANCELLED, S.SAVED, S.DISCARDED},
                S.MISSING: {S.QUEUED, S.CANCELLED},
                S.LOST: {S.CANCELLED},
            }
            assert TRANSITIONS[state] == again.get(state, set())
            assert image(state).finished
        else:
            assert not image(state).finished
    assert set(TRANSITIONS) == set(S)


def test_a_long_story_keeps_its_end() -> None:
    subject = image()
    for _ in range(40):
        subject.move(S.HELD)
        subject.move(S.QUEUED)
    assert len(subject.history) == HISTORY_LENGTH
    assert subject.history[-2:] == ["queued", "held"]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((S.QUEUED, S.QUEUED), "queued"),
        ((S.QUEUED, S.RUNNING), "running"),
        ((S.SAVED, S.QUEUED), "running"),
        ((S.HELD,), "running"),
        ((S.BURYING, S.FAILED), "running"),
        ((S.SAVED, S.DISCARDED, S.DROPPED), "done"),
        ((S.SAVED, S.CANCELLED), "cancelled"),
        ((S.CANCELLED, S.FAILED), "failed"),
        ((S.FAILED, S.LOST, S.CANCELLED), "lost"),
    ],
)
def test_the_state_of_a_job_follows_from_its_images(states: tuple[ImageState, ...], expected: str) -> None:
    assert job(*states).state == expected
    assert job(*states).finished == (expected not in ("queued", "running"))


@given(st.lists(st.sampled_from(S), min_size=1))
def test_a_job_is_finished_exactly_when_its_state_says_so(states: list[ImageState]) -> None:
    subject = job(*states)
    assert subject.finished == (subject.state not in ("queued", "running"))
    assert sum(subject.count(state) for state in S) == len(states) == subject.count(*S)


def test_the_report_tells_the_path_that_was_made_or_else_the_one_that_is_reserved() -> None:
    subject = job(S.SAVED, S.QUEUED)
    subject.images[0].result = ImageResult(
        "saved",
        path="/out/0_00001.png",
        bytes=5,
        score=0.5,
        threshold=0.3,
        warnings=("hm",),
        ms={"encode": 1.0},
    )
    report = subject.report()
    assert report["state"] == "running"
    assert report["num_images"] == 2
    assert (report["job_id"], report["request_id"]) == ("ab12cd34", "request-1")
    assert (report["output_dir"], report["model_name"]) == ("/out", "m")
    assert report["warnings"] == ["a warning"]
    first, second = report["images"]
    assert (first["path"], first["bytes"], first["warnings"], first["ms"]) == (
        "/out/0_00001.png",
        5,
        ["hm"],
        {"encode": 1.0},
    )
    assert (second["path"], second["state"], second["ms"], second["error"]) == (
        "/out/1.png",
        "queued",
        {},
        "",
    )


def test_a_report_that_is_kept_holds_no_workflow() -> None:
    subject = job(S.SAVED)
    subject.forget_metadata()
    kept = subject.options
    assert (kept.prompt, kept.extra_pnginfo, kept.custom_metadata, kept.metadata) == ("", "", "", "")
    assert kept.model_name == "m"


def test_an_image_is_known_by_its_job_and_number() -> None:
    assert image(index=3).key == ("ab12cd34", 3)
