"""`stop`: ask, watch, and say when the process is gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from luna_farm.cli import stop
from luna_farm.errors import FarmUnavailable


@pytest.fixture
def stopping(farm, monkeypatch):
    """A farm whose process is as alive as `alive` says, one answer per look."""
    farm.asked = []
    farm.alive = [True, True, False]
    farm.shutdown = lambda now: farm.asked.append(now) or 100
    monkeypatch.setattr(stop, "POLL_S", 0.0)
    monkeypatch.setattr(stop, "_is_alive", lambda pid: farm.alive.pop(0))
    return farm


@pytest.mark.parametrize(("options", "now"), [((), False), (("--drain",), False), (("--now",), True)])
def test_the_farm_is_asked_to_drain_unless_told_otherwise(options, now, stopping, cli):
    assert cli("stop", *options) == (0, "The farm (process 100) has stopped.\n", "")
    assert stopping.asked == [now]
    assert stopping.alive == []


def test_a_farm_that_closed_its_port_is_still_waited_for(stopping, cli):
    stopping.alive = [True, True, True, True, False]
    stopping.statuses = [stopping.status(), FarmUnavailable("closed")]
    assert cli("stop")[0] == 0
    assert stopping.alive == []


def test_a_farm_elsewhere_is_gone_when_it_does_not_answer(stopping, cli):
    stopping.alive = [False]
    stopping.statuses = [stopping.status(), stopping.status(), FarmUnavailable("closed")]
    assert cli("stop")[0] == 0
    assert stopping.statuses == []


def test_a_farm_that_does_not_end_in_time_is_code_1(stopping, cli):
    stopping.alive = [True] * 10
    code, _, err = cli("stop", "--timeout", "0")
    assert code == 1
    assert "process 100" in err
    assert "--now" in err


def test_ctrl_c_ends_the_wait_and_says_that_the_farm_goes_on_stopping(stopping, cli):
    stopping.alive = [True] * 5
    stopping.statuses = [stopping.status(), stopping.status(), KeyboardInterrupt()]
    code, out, err = cli("stop", "--port", "7")
    assert (code, out) == (130, "")
    assert err.startswith(
        "Not waiting any more: the farm (process 100) goes on stopping, with 7 images to write"
    )
    assert "`luna-farm stop --port 7 --now`" in err


def test_drain_and_now_exclude_each_other(stopping, cli):
    assert cli("stop", "--drain", "--now")[0] == 2


def test_no_farm_is_code_3(no_farm, cli):
    assert cli("stop")[0] == 3


def test_a_process_that_ended_and_was_not_collected_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    child.stdout.read()
    child.stdout.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not stop._is_alive(child.pid)
    child.wait()
    assert not stop._is_alive(child.pid)
    assert stop._is_alive(os.getpid())
