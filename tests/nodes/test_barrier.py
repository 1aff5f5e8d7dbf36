"""Waiting for jobs: which ids, how long, and what is raised."""

from __future__ import annotations

import pytest

from luna_farm_client import FarmUnavailable
from luna_farm_nodes import barrier, handover


@pytest.fixture
def job(comfy, farm, tensor) -> str:
    from luna_farm_client import SaveImage, SaveRequest

    request = SaveRequest([SaveImage(tensor)], output_dir=str(comfy.output))
    return str(farm.submit(request, when_busy="report").job_id)


def wait(ids: list[str], timeout: float = 60.0) -> list:
    """`barrier.wait` on a clock that only its sleeping moves."""
    now = [0.0]
    return barrier.wait(ids, timeout, lambda: now[0], lambda s: now.__setitem__(0, now[0] + s))


@pytest.mark.parametrize(("texts", "ids"), [
    (["[Luna Daemon Image Saver] Submitted 3 images to daemon. Job ID: a1b2c3d4"], ["a1b2c3d4"]),
    (["a1b2c3d4, 00ff00ff\n11111111"], ["a1b2c3d4", "00ff00ff", "11111111"]),
    (["Job ID: a1b2c3d4", "", "Job ID: a1b2c3d4"], ["a1b2c3d4"]),
])  # fmt: skip
def test_ids_are_found_in_texts_and_lists(texts, ids):
    assert barrier.job_ids(texts) == ids


@pytest.mark.parametrize("text", ["", "   ", "[x] ERROR: Connection refused. Is daemon running?"])
def test_a_text_without_a_job_is_refused(text):
    with pytest.raises(RuntimeError, match="no job to wait for"):
        barrier.job_ids([text])


def test_it_waits_and_shows_progress(job, farm, comfy):
    queued = farm.reports[job]
    farm.end(job, "saved")
    done = farm.reports[job]
    farm.reports[job] = [queued, queued, done]
    assert [image.state for image in wait([job])] == ["saved", "saved"]
    assert comfy.progress == [(0, 2), (0, 2), (2, 2)]


def test_cancel_interrupts_it(job, comfy):
    comfy.interrupted = True
    with pytest.raises(BaseException) as caught:
        wait([job])
    assert type(caught.value).__name__ == "Interrupted"


def test_it_has_an_end(job, comfy):
    with pytest.raises(RuntimeError, match="After 5 s 2 of 2 images are not saved yet"):
        wait([job], 5.0)


def test_a_failed_image_is_an_error_with_its_reason(job, farm, comfy):
    farm.end(job, "saved", "failed", error="disk full", state="failed")
    with pytest.raises(RuntimeError, match=r"failed: .*_1.png: disk full"):
        wait([job])


def test_an_unknown_job_is_an_error_at_once(farm, comfy):
    with pytest.raises(RuntimeError, match="no job ffffffff"):
        wait(["ffffffff"])


def test_a_farm_that_restarts_is_waited_for(job, farm, comfy):
    farm.end(job, "saved")
    farm.reports[job] = [FarmUnavailable("away")] * 50 + [farm.reports[job]]
    assert len(wait([job])) == 2


def test_a_farm_that_is_not_there_is_said_so(job, farm, comfy):
    farm.reports[job] = FarmUnavailable("away")
    with pytest.raises(RuntimeError, match="Connection refused"):
        wait([job], 3600.0)


def test_what_was_saved_here_needs_no_farm(comfy, no_farm, tensor, saved_here):
    from luna_farm_client import SaveImage, SaveRequest

    handed = handover.save_here(SaveRequest([SaveImage(tensor)], output_dir=str(comfy.output)))
    assert [image.state for image in wait([handed.job_id])] == ["saved", "saved"]


def test_reports_kept_for_barriers_are_bounded(comfy, tensor, saved_here, monkeypatch):
    from luna_farm_client import SaveImage, SaveRequest

    monkeypatch.setattr(handover, "KEPT_HERE", 3)
    for _ in range(5):
        handover.save_here(SaveRequest([SaveImage(tensor)], output_dir=str(comfy.output)))
    assert len(handover._saved_here) == 3
