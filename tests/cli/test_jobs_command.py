"""`jobs`, `job` and `retry` against a farm in memory."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from luna_farm.errors import UnknownJob

spec = importlib.util.spec_from_file_location("cli_conftest", Path(__file__).with_name("conftest.py"))
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)


@pytest.fixture
def jobs(farm):
    done = fakes.report("aaaaaaaa")
    images = [fakes.image("failed", error="no space left"), fakes.image("saved", index=1, score=0.5)]
    failed = fakes.report("bbbbbbbb", "failed", images, warnings=("unknown token %x%",))
    farm.reports = {"aaaaaaaa": done, "bbbbbbbb": failed}
    return farm


def test_jobs_are_listed(jobs, cli):
    code, out, _ = cli("jobs")
    assert code == 0
    lines = out.splitlines()
    assert lines[1].split()[:5] == ["aaaaaaaa", "done", "1", "1.5", "kB"]
    assert "bbbbbbbb" in lines[2]


def test_jobs_can_be_limited_and_chosen_by_state(jobs, cli):
    assert "bbbbbbbb" not in cli("jobs", "--limit", "1")[1]
    assert "aaaaaaaa" not in cli("jobs", "--state", "failed")[1]


def test_that_there_are_more_jobs_is_said_and_a_state_is_looked_for_among_all(farm, cli):
    farm.reports = {f"{n:08x}": fakes.report(f"{n:08x}") for n in range(30)}
    farm.reports["ffffffff"] = fakes.report("ffffffff", "failed")
    assert "There are more than 20 jobs" in cli("jobs")[2]
    _, out, err = cli("jobs", "--state", "failed")
    assert ("ffffffff" in out, err) == (True, "")


def test_jobs_as_json(jobs, cli):
    rows = json.loads(cli("jobs", "--json")[1])
    assert rows[1]["images"][0]["error"] == "no space left"
    assert rows[0]["images"][0]["ms"] == {"encode": 3.0, "write": 1.0}


def test_no_jobs_is_said(farm, cli):
    assert cli("jobs") == (0, "No jobs.\n", "")


def test_one_job_is_shown_with_errors_and_warnings(jobs, cli):
    code, out, _ = cli("job", "bbbbbbbb")
    assert code == 0
    for part in (
        "bbbbbbbb: failed",
        "3.0 ms",
        "0.50",
        "image 0: no space left",
        "unknown token %x%",
        "/out/a.png",
    ):
        assert part in out


def test_an_unknown_job_is_code_1(jobs, cli):
    code, _, err = cli("job", "cccccccc")
    assert code == 1
    assert "cccccccc" in err


@pytest.mark.parametrize(("ends", "code"), [("done", 0), ("failed", 1), ("lost", 1)])
def test_waiting_for_a_job_tells_by_the_code_how_it_ended(ends, code, jobs, cli):
    jobs.reports["cccccccc"] = fakes.report("cccccccc", "queued")
    jobs.after_wait = ends
    assert cli("job", "cccccccc", "--wait", "--timeout", "5")[0] == code
    assert jobs.waited == [("cccccccc", 5.0)]


def test_ctrl_c_ends_the_wait_and_says_that_the_job_goes_on(jobs, cli):
    jobs.reports["cccccccc"] = fakes.report("cccccccc", "queued")
    jobs.unfinished, jobs.unfinished_as = 1, KeyboardInterrupt()
    told = "Not waiting any more: job cccccccc goes on in the farm.\n"
    assert cli("job", "cccccccc", "--wait") == (130, "", told)


def test_a_finished_job_is_not_waited_for_but_judged(jobs, cli):
    assert cli("job", "bbbbbbbb", "--wait")[0] == 1
    assert jobs.waited == []


def test_retry_waits_unless_told_not_to(jobs, cli):
    assert cli("retry", "bbbbbbbb")[0] == 0
    assert jobs.waited == [("bbbbbbbb", None)]
    assert cli("retry", "bbbbbbbb", "--no-wait", "--json")[0] == 0
    assert len(jobs.waited) == 1


def test_no_farm_is_code_3(no_farm, cli):
    assert cli("jobs")[0] == 3


def test_jobs_are_cancelled_and_one_that_is_not_known_keeps_nothing_from_it(farm, cli):
    farm.reports = {"a1b2c3d4": fakes.report("a1b2c3d4", "queued")}
    code, out, err = cli("cancel", "00000000", "a1b2c3d4")
    assert (code, out) == (1, "Job a1b2c3d4: 1 cancelled.\n")
    assert "00000000" in err
    assert farm.cancelled == ["a1b2c3d4"]
    code, out, _ = cli("cancel", "a1b2c3d4", "--json")
    assert (code, json.loads(out)[0]["state"]) == (0, "cancelled")


@pytest.mark.parametrize("command", ["cancel", "dismiss"])
def test_one_image_of_a_job_is_given_up(command, farm, cli):
    farm.reports = {"a1b2c3d4": fakes.report("a1b2c3d4", "queued")}
    code, out, _ = cli(command, "a1b2c3d4", "--image", "2")
    assert (code, out) == (0, "Job a1b2c3d4: 1 cancelled.\n")
    assert farm.cancelled == [("a1b2c3d4", 2)]


def test_what_a_refused_cancellation_recommends_names_the_farm(farm, cli, monkeypatch):
    def refuse(job_id, index=None):
        raise UnknownJob("No job 'x' is known here; `luna-farm jobs` lists those that are.", job_id)

    monkeypatch.setattr(farm, "cancel", refuse)
    assert "`luna-farm jobs --port 7`" in cli("cancel", "x", "--port", "7")[2]


def test_what_is_dismissed_is_called_so(farm, cli):
    images = [fakes.image("failed"), fakes.image("missing"), fakes.image("saved")]
    farm.reports = {"a1b2c3d4": fakes.report("a1b2c3d4", "failed", images)}
    farm.after_cancel = [fakes.image("cancelled"), fakes.image("cancelled"), fakes.image("saved")]
    assert cli("dismiss", "a1b2c3d4") == (0, "Job a1b2c3d4: 2 dismissed, 1 saved.\n", "")


def test_images_in_a_row_with_one_error_have_one_line(farm, cli):
    gone = [fakes.image("missing", index=n, error="not handed over") for n in range(2, 5)]
    images = [fakes.image("failed", error="full"), fakes.image("saved", index=1), *gone]
    farm.reports = {"a1b2c3d4": fakes.report("a1b2c3d4", "failed", images)}
    _, out, _ = cli("job", "a1b2c3d4")
    assert out.splitlines()[-2:] == ["image 0: full", "images 2 to 4: not handed over"]


@pytest.mark.parametrize(
    "options", [("jobs", "--limit", "0"), ("cancel", "a", "--image", "-1"), ("job", "a", "--timeout", "-1")]
)
def test_values_that_are_not_allowed_are_wrong_usage(options, farm, cli):
    assert cli(*options)[0] == 2
