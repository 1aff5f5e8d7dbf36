"""Crash points: nothing while off, exactly what was asked while on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import luna_farm
from luna_farm.testing import faults
from luna_farm.testing.faults import POINTS, Faults

PACKAGE = Path(luna_farm.__file__).parent


def test_off_is_an_empty_function(tmp_path: Path) -> None:
    assert faults.crash_point is faults._nothing
    assert faults.half_write is faults._nothing_written
    faults.crash_point("writer.named")
    with (tmp_path / "file").open("wb") as file:
        faults.half_write("journal.half_record", file.fileno(), b"whole")
    assert (tmp_path / "file").read_bytes() == b""
    assert not Faults({})


def test_the_catalogue_and_the_code_name_the_same_points() -> None:
    named = {
        point
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "testing"
        for point in re.findall(r'\b(?:crash_point|half_write)\(\s*"([\w.]+)"', path.read_text("utf-8"))
    }
    assert named == set(POINTS)


def test_a_point_fires_at_the_passing_it_was_given_and_only_then() -> None:
    plan = Faults({"LUNA_FARM_CRASH": "writer.named:2:raise:ENOSPC,worker.encoded::stop"})
    assert [plan.due("writer.named") for _ in range(4)] == ["", "raise:ENOSPC", "", ""]
    assert [plan.due("worker.encoded") for _ in range(2)] == ["stop", ""]
    assert plan.due("writer.written") == ""


def test_a_star_fires_every_time_while_the_file_is_there(tmp_path: Path) -> None:
    full = tmp_path / "disk is full"
    plan = Faults({"LUNA_FARM_CRASH": "writer.named:*:raise:EIO", "LUNA_FARM_CRASH_WHILE": str(full)})
    plan.at("writer.named")
    full.touch()
    for _ in range(3):
        with pytest.raises(OSError, match=r"\[Errno 5\] .*simulated"):
            plan.at("writer.named")
    full.unlink()
    plan.at("writer.named")


def test_once_over_all_processes_leaves_a_file_as_proof(tmp_path: Path) -> None:
    environ = {"LUNA_FARM_CRASH": "writer.named:*", "LUNA_FARM_CRASH_ONCE": str(tmp_path)}
    assert [Faults(environ).due("writer.named") for _ in range(3)] == ["kill", "", ""]
    assert (tmp_path / "writer.named").read_text() == str(os.getpid())


def test_half_a_write_is_half_a_write(tmp_path: Path) -> None:
    plan = Faults({"LUNA_FARM_CRASH": "journal.half_record::raise:ENOSPC"})
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(OSError, match="Errno 28"):
            plan.half_write("journal.half_record", file.fileno(), b"12345678")
        plan.half_write("journal.half_record", file.fileno(), b"12345678")
    assert (tmp_path / "file").read_bytes() == b"1234"


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        ("writer.nowhere", "is no crash point; there are: writer.created"),
        ("writer.named:0", "has the count '0'"),
        ("writer.named:x", "has the count 'x'"),
        ("writer.named:1:burn", "ends in 'burn'; allowed: kill, stop"),
        ("writer.named:1:raise:ENOTHING", "ends in 'raise:ENOTHING'"),
        ("writer.named:1:raise", "ends in 'raise'"),
        ("writer.named:1:kill:now", "ends in 'kill:now'"),
        ("writer.named:1,worker.encoded,writer.named:3", "'writer.named' is there twice"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_at_the_start(plan: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Faults({"LUNA_FARM_CRASH": plan})


CODE = """
from luna_farm.testing.faults import crash_point
crash_point("writer.named")
print("passed", flush=True)
"""


def _start(plan: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "LUNA_FARM_CRASH": plan, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.Popen([sys.executable, "-c", CODE], env=environ, stdout=subprocess.PIPE, text=True)


def test_kill_is_a_real_kill() -> None:
    with _start("writer.named") as process:
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == -signal.SIGKILL


def test_stop_hangs_until_it_is_continued() -> None:
    with _start("writer.named:1:stop") as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "passed\n"
