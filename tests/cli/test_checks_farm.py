"""What `doctor` says of the farm itself."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from luna_farm import config
from luna_farm.cli import checks_farm
from luna_farm.cli.findings import FINE, NOTE, PROBLEM
from luna_farm.supervisor import state_dir

spec = importlib.util.spec_from_file_location("cli_conftest", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)
SCARCE = 100
QUIET: dict[str, Any] = {**fakes.STATUS, "queue": {"jobs": 0, "images": 0, "bytes": 0}, "ready": True}
LACKS = {"job_id": "a1b2c3d4", "num_images": 40, "images": 15, "path": "/out/b.png", "error": "never"}


def test_a_farm_that_has_nothing_to_say_is_fine() -> None:
    (finding,) = checks_farm.running(QUIET, SCARCE)
    assert (finding.level, finding.text) == (FINE, "Process 100 has saved what it accepted.")
    (finding,) = checks_farm.running(fakes.STATUS, SCARCE)
    assert finding.text == "Process 100 saves 7 images."
    (finding,) = checks_farm.running({**QUIET, "ready": False, "uptime_s": 1.0}, SCARCE)
    assert finding.level == FINE, "its workers are starting"


@pytest.mark.parametrize(
    ("changed", "level", "part"),
    [
        (
            {"folders": [{"path": "/nas", "state": "failing", "error": "gone", "since_s": 5}]},
            PROBLEM,
            "/nas fails",
        ),
        (
            {"destinations": [{"destination": "s3://b", "state": "failing", "error": "no", "since_s": 5}]},
            PROBLEM,
            "s3://b fails for 5 s: no",
        ),
        (
            {"folders": [{"path": "/out", "state": "ok", "free_bytes": 9, "total_bytes": 1000}]},
            PROBLEM,
            "/out, where the farm saves: only 9 B are free.",
        ),
        ({"paused": True, "queue": {"images": 3}}, NOTE, "It is paused, with 3 images waiting."),
        ({"draining": True}, NOTE, "It is stopping"),
        ({"ready": False, "uptime_s": 60.0}, PROBLEM, "No worker is ready"),
        ({"incomplete_jobs": [LACKS]}, NOTE, "15 images of 1 job never came, or were lost"),
        ({"notes": ["a smaller arena"]}, NOTE, "a smaller arena"),
    ],
)
def test_what_a_person_should_know_is_said(changed: dict[str, Any], level: str, part: str) -> None:
    (finding,) = checks_farm.running({**QUIET, **changed}, SCARCE)
    assert finding.level == level
    assert part in finding.text


def test_what_the_last_farm_left_is_said(tmp_path: Path) -> None:
    settings = config.load({"state_dir": str(tmp_path)}, {}, None, serving=False)
    assert checks_farm.look(settings, None, SCARCE) == ([], {})
    state_dir.write_endpoint(tmp_path, {"port": 1, "pid": 99})
    ((finding,), _) = checks_farm.look(settings, None, SCARCE)
    assert "process 99, crashed or was killed" in finding.text
    state_dir.write_endpoint(tmp_path, {"port": 1, "pid": 99, "stopped": True})
    assert checks_farm.look(settings, None, SCARCE) == ([], {})
    state_dir.write_left(tmp_path, 3, ["a1b2c3d4"], ["/nas"])
    ((finding,), _) = checks_farm.look(settings, None, SCARCE)
    assert "None runs. 3 images are accepted and not written yet" in finding.text


def test_a_farm_that_does_not_answer_is_a_problem(tmp_path: Path, no_farm: None) -> None:
    settings = config.load({"state_dir": str(tmp_path)}, {}, None, serving=False)
    ((finding,), _) = checks_farm.look(settings, os.getpid(), SCARCE)
    assert (finding.level, finding.text) == (
        PROBLEM,
        f"Process {os.getpid()} does not answer: No farm at 127.0.0.1:1.",
    )
