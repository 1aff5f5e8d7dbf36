"""The workers of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio
from contract import PoolContract, Stand
from pools import Kept, babble

from luna_farm.core import events
from luna_farm.engine.child import Child, _without_tracker, exit_reason
from luna_farm.engine.local import LocalPool
from luna_farm.engine.pool import WorkerSettings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """A pool of processes."""
    notes, kept = tmp_path_factory.mktemp("notes"), Kept()
    uploads = str(tmp_path_factory.mktemp("uploads"))
    pool = LocalPool(kept, WorkerSettings(True, str(notes), uploads=uploads))
    yield Stand(pool, kept, notes)
    await pool.close(0.0)


@pytest.mark.asyncio(loop_scope="module")
class TestLocalPool(PoolContract):
    """Processes."""


async def test_a_process_that_cannot_be_started_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of processes: the reason reaches the one who asked, and nothing stays open."""
    monkeypatch.setattr("luna_farm.engine.child.START_AGAIN_S", 0.0)

    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refuse)
    _without_tracker()
    open_before = psutil.Process().num_fds() if hasattr(psutil.Process(), "num_fds") else 0
    ended: list[str] = []
    child = Child("worker", print, (), lambda message: None, ended.append)
    await child.wait()
    assert ended == ["could not be started: [Errno 11] Resource temporarily unavailable"]
    if open_before:
        assert psutil.Process().num_fds() <= open_before


async def test_a_process_that_sends_no_messages_is_ended() -> None:
    """Whatever it was, it is no worker any more."""
    ended: list[str] = []
    child = Child("worker", babble, (), lambda message: None, ended.append)
    await child.wait()
    assert ended == ["it sent what is no message"]
    assert child.pid == 0


def test_what_ended_a_process_is_a_word() -> None:
    """Signals by their names, where they have one."""
    assert exit_reason(-9) == "ended by SIGKILL"
    assert exit_reason(-250) == "ended by signal 250"
    assert exit_reason(3) == "ended with exit code 3"


async def test_a_killed_worker_is_collected_before_it_is_reported(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Nothing of it can write any more when its image goes to another one."""
    notes, kept = tmp_path_factory.mktemp("notes"), Kept()
    pool = LocalPool(kept, WorkerSettings(True, str(notes)))
    pool.spawn(1)
    ready = await kept.wait(events.WorkerReady, pool)
    pool.kill(1, "")
    gone = await kept.wait(events.WorkerGone, pool)
    assert gone.why == "ended by SIGKILL"
    assert not psutil.pid_exists(ready.pid)
    await asyncio.wait_for(pool.close(1.0), 60)
