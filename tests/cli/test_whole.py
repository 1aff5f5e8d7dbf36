"""The command line as a person uses it: a real farm, and each command its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest


@pytest.fixture
def luna(tmp_path):
    """Run `luna-farm` with a state folder of its own; whatever it left running is ended afterwards."""
    environ = {**os.environ, "LUNA_FARM_STATE_DIR": str(tmp_path / "state"), "COLUMNS": "150"}

    def run(*arguments):
        command = [sys.executable, "-m", "luna_farm", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=60)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    yield run
    run("stop", "--now")


def test_from_start_to_stop(luna, tmp_path):
    assert luna("status")[0] == 3
    code, out, err = luna("start", "--detach", "--port", "0", "--feed-port", "0", "--max-workers", "2")
    assert (code, err) == (0, "")
    assert "http://127.0.0.1:" in out

    code, out, _ = luna("status", "--json")
    status = json.loads(out)
    assert (code, status["running"]) == (0, True)
    pid = status["pid"]
    code, _, err = luna("start", "--port", "0", "--feed-port", "0")
    assert code == 1
    assert str(pid) in err

    np.save(tmp_path / "pair.npy", np.zeros((2, 8, 8, 3), np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no image")
    code, out, err = luna("save", "pair.npy", "bad.png", "--output-dir", "files", "--affix", "RAW")
    assert code == 1
    assert "bad.png" in err
    files = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert files == ["pair_RAW_0.png", "pair_RAW_1.png"]

    ((job,),) = (json.loads(luna("jobs", "--json")[1]),)
    assert job["state"] == "done"
    assert luna("job", job["job_id"])[0] == 0
    assert luna("retry", job["job_id"])[0] == 1
    assert luna("job", "00000000")[0] == 1

    workers = [worker["pid"] for worker in status["workers"]]
    code, out, _ = luna("stop")
    assert (code, out) == (0, f"The farm (process {pid}) has stopped.\n")
    assert luna("status")[0] == 3
    alive = [process for process in [pid, *workers] if psutil.pid_exists(process)]
    assert [p for p in alive if psutil.Process(p).status() != psutil.STATUS_ZOMBIE] == []


def test_in_the_foreground_ctrl_c_drains_and_ends_well(tmp_path):
    command = [
        sys.executable,
        "-m",
        "luna_farm",
        "start",
        "--port",
        "0",
        "--feed-port",
        "off",
        "--log-format",
        "human",
    ]
    environ = {**os.environ, "LUNA_FARM_STATE_DIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, cwd=tmp_path) as process:
        lines = [process.stderr.readline()]
        assert lines[0].startswith("[Luna Farm] Luna Farm listens on 127.0.0.1:")
        process.send_signal(2)
        rest = process.stderr.read()
        assert process.wait(timeout=30) == 0
    assert "Traceback" not in rest
