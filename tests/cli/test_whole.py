"""The command line as a person uses it: a real farm, and each command its own process."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys

import numpy as np
import psutil
import pytest
from farm_process import until
from free_ports import free_port


@pytest.fixture
def luna(tmp_path):
    """Run `luna-farm` with a state folder of its own; whatever it left running is ended afterwards."""
    environ = {**os.environ, "LUNA_FARM_STATE_DIR": str(tmp_path / "state"), "COLUMNS": "150"}

    def run(*arguments, **more):
        command = [sys.executable, "-m", "luna_farm", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**environ, **more}, cwd=tmp_path, timeout=120
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    yield run
    run("stop", "--now")


def test_from_start_to_stop(luna, tmp_path):
    assert luna("status", "--port", free_port())[0] == 3
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

    processes = [psutil.Process(each) for each in (pid, *(worker["pid"] for worker in status["workers"]))]
    code, out, _ = luna("stop")
    assert (code, out) == (0, f"The farm (process {pid}) has stopped.\n")
    assert luna("status")[0] == 3  # the port that it listened on
    assert not any(map(is_alive, processes))


def test_two_farms_are_told_apart(luna, tmp_path):
    """Each hint and each explicit port leads to the farm that it names."""
    assert luna("start", "--detach", "--port", 0, "--feed-port", "off")[0] == 0
    other = tmp_path / "other state"
    code, out, _ = luna("start", "--detach", "--port", 0, "--feed-port", "off", "--state-dir", other)
    assert code == 0
    (hint,) = (line.split("stop it", 1)[1].strip() for line in out.splitlines() if "stop it" in line)
    assert luna("stop", "--port", free_port())[0] == 3
    assert luna("status")[0] == 0
    _, _, err = luna("job", "nothing", "--state-dir", other)
    assert f"`luna-farm jobs {shlex.join(['--state-dir', str(other)])}` lists" in err
    assert luna(*shlex.split(hint)[1:])[0] == 0
    assert luna("status")[0] == 0
    assert luna("status", "--state-dir", other)[0] == 3


def test_a_dashboard_port_that_is_taken_is_told_at_the_start(luna):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        code, out, err = luna("start", "--detach", "--port", 0, "--feed-port", taken)
    assert code == 0
    assert "http://" not in out
    assert f"Feed port {taken} cannot be used (another program listens there): no dashboard" in err


def test_only_now_may_hurry_and_what_is_left_is_said(luna, tmp_path):
    """A worker that hangs: the drain goes on however often it is asked for, and nothing is forgotten."""
    crash = {"LUNA_FARM_CRASH": "worker.received:*:stop"}
    options = ("--port", 0, "--feed-port", "off", "--max-workers", 1, "--min-workers", 1)
    assert luna("start", "--detach", *options, **crash)[0] == 0
    np.save(tmp_path / "three.npy", np.zeros((3, 8, 8, 3), np.uint8))
    job_id = json.loads(luna("save", "three.npy", "--output-dir", "files", "--no-wait", "--json")[1])[0][
        "job_id"
    ]
    for again in ((), ("--drain",), ()):
        code, out, err = luna("stop", *again, "--timeout", 0.1)
        assert (code, out) == (1, "")
        assert "3 images" in err
        assert "luna-farm stop --now" in err
    code, out, _ = luna("stop", "--now")
    assert code == 0
    assert f"has stopped. 3 images are accepted and not written yet, of job {job_id}" in out
    assert job_id in out
    assert str(tmp_path / "files") in out
    code, _, err = luna("status")
    assert code == 3
    assert f"3 images are accepted and not written yet, of job {job_id}" in err
    assert luna("start", "--detach", "--port", 0, "--feed-port", "off")[0] == 0
    assert luna("job", job_id, "--wait")[0] == 0
    assert luna("stop")[1].endswith("has stopped.\n")
    assert "image" not in luna("status")[2]


def test_a_folder_that_cannot_be_written_is_said_and_its_job_cancelled(luna, tmp_path):
    full = tmp_path / "full"
    full.touch()
    crash = {"LUNA_FARM_CRASH": "writer.written:*:raise:ENOSPC", "LUNA_FARM_CRASH_WHILE": str(full)}
    assert luna("start", "--detach", "--port", 0, "--feed-port", "off", **crash)[0] == 0
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 3), np.uint8))
    until(lambda: json.loads(luna("status", "--json")[1])["workers"], "a worker is ready")
    code, _, err = luna("save", "a.npy", "--output-dir", "files", "--timeout", 10)
    assert code == 1
    assert f"Waiting for {tmp_path / 'files'}: " in err
    assert "No space left on device" in err
    command = err.rsplit("luna-farm ", 1)[1].split()
    assert luna(*command)[:2] == (0, f"Job {command[1]}: 1 cancelled.\n")
    full.unlink()
    assert luna("save", "a.npy", "--output-dir", "files", "--filename", "b")[0] == 0
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["b.png"]
    assert luna("logs", "--lines", 5)[0] == 0
    assert luna("stop")[0] == 0


def is_alive(process):
    """Whether a process runs. One that ended may wait long for an init that collects it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_while_it_starts_in_the_background_leaves_nothing_running(tmp_path):
    environ = {**os.environ, "LUNA_FARM_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "luna_farm", "start", "--detach", "--port", "0", "--feed-port", "off"]
    log = tmp_path / "state" / "start.log"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, cwd=tmp_path) as process:
        until(log.exists, "the background process is started")
        children = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        code = process.wait()
    if code == 0:  # it was ready just before
        subprocess.run([*command[:3], "stop", "--now"], env=environ, check=True, timeout=60)
    else:
        assert (code, err) == (130, "Stopped.\n")
    until(lambda: not any(map(is_alive, children)), "the background process has ended")


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
        assert process.wait(timeout=60) == 0
    assert "Traceback" not in rest


def test_a_file_larger_than_the_memory_of_the_farm_is_one_job_and_saved_once(luna, tmp_path):
    more = ("--port", "0", "--feed-port", "off", "--arena-bytes", "1MiB", "--max-workers", "2")
    assert luna("start", "--detach", *more)[0] == 0
    np.save(tmp_path / "many.npy", np.random.default_rng(0).integers(0, 256, (40, 256, 256, 3), np.uint8))
    code, _, err = luna("save", "many.npy", "--output-dir", "files", "--png-compression", "9")
    assert (code, err) == (0, "")
    assert len(list((tmp_path / "files").iterdir())) == 40
    assert len(json.loads(luna("jobs", "--json")[1])) == 1


def test_ctrl_c_while_a_file_is_handed_over_names_the_job_of_what_was_accepted(luna, tmp_path):
    """The arena holds a part of the file only, and nothing leaves it."""
    more = ("--port", "0", "--feed-port", "off", "--arena-bytes", "1MiB")
    assert luna("start", "--detach", *more)[0] == 0
    assert luna("pause")[0] == 0
    np.save(tmp_path / "many.npy", np.zeros((40, 256, 256, 3), np.uint8))
    environ = {**os.environ, "LUNA_FARM_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "luna_farm", "save", "many.npy", "--output-dir", "files"]
    pipes = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environ, cwd=tmp_path, **pipes) as process:
        until(lambda: json.loads(luna("jobs", "--json")[1]), "images are accepted")
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    (job,) = json.loads(luna("jobs", "--json")[1])
    assert f"Job {job['job_id']} goes on in the farm" in err
    assert luna("cancel", job["job_id"])[0] == 0
