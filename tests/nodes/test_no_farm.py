"""Where no farm listens the node says so at once: by one attempt to connect, whatever the machine's speed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess

from luna_farm_client import SaveImage, SaveRequest
from luna_farm_nodes import handover

GOAL_S = 0.05
"""How long a node may wait altogether before it says that no farm is there."""


@dataclass
class Waits:
    """What a hand-over waited for: attempts to connect, and seconds of sleep."""

    attempts: list[Any] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    found = Waits()
    connect, sleep = socket.create_connection, time.sleep

    def attempt(*where: Any, **more: Any) -> socket.socket:
        found.attempts.append(where)
        return connect(*where, **more)

    def pause(seconds: float) -> None:
        found.slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(socket, "create_connection", attempt)
    monkeypatch.setattr(time, "sleep", pause)
    return found


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that is bound, so that no other program gets it, and on which no program listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def request(folder: Path) -> SaveRequest:
    return SaveRequest([SaveImage(np.zeros((8, 8, 3), np.float32))], output_dir=folder, filename="a")


def use(monkeypatch: pytest.MonkeyPatch, port: int, state_dir: Path) -> None:
    """Let the nodes make their client for a farm there, as in a ComfyUI that has just started."""
    monkeypatch.setenv("LUNA_FARM_PORT", str(port))
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(state_dir))
    monkeypatch.setattr(handover, "_farm", None)


@pytest.mark.parametrize("when_busy", ["wait", "report", "save_here"])
def test_no_farm_is_one_attempt_and_no_pause(when_busy, monkeypatch, waits, taken_port, tmp_path):
    use(monkeypatch, taken_port, tmp_path)
    with pytest.raises(handover.NotHandedOver, match="Is daemon running"):
        handover.hand_over(request(tmp_path), "report", when_busy)
    assert (len(waits.attempts), waits.slept) == (1, [])


def test_a_farm_that_was_stopped_is_one_attempt_too(monkeypatch, waits, tmp_path):
    farm = FarmProcess(tmp_path).start()
    try:
        use(monkeypatch, farm.port, farm.state)
        handover.hand_over(request(tmp_path), "report", "wait")
    finally:
        farm.stop()
    waits.attempts.clear()
    waits.slept.clear()
    with pytest.raises(handover.NotHandedOver, match="Is daemon running"):
        handover.hand_over(request(tmp_path), "report", "wait")
    assert len(waits.attempts) == 1
    assert sum(waits.slept) < GOAL_S
