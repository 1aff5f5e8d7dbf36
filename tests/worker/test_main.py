"""The loop of a worker: what it does between images."""

from __future__ import annotations

import select
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from farm_process import until
from plain_process import start_python

from luna_farm import system
from luna_farm.core import frames
from luna_farm.worker import main


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    worker = threading.Thread(target=main.serve, args=(theirs, False, str(tmp_path / "notes")), daemon=True)
    worker.start()
    yield ours
    ours.close()
    worker.join(60)
    theirs.close()
    assert not worker.is_alive()


def test_memory_goes_back_once_after_work_and_never_without(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    released: list[str] = []
    worked: list[Any] = []

    def image(self: main.Worker, message: dict[str, Any]) -> None:
        worked.append(message)
        self._worked = True

    monkeypatch.setattr(main, "IDLE_S", 0.0)
    monkeypatch.setattr(main.Worker, "_image", image)
    monkeypatch.setattr(system, "release_memory", lambda: released.append("released"))
    pipe = request.getfixturevalue("pipe")
    assert select.select([pipe], [], [], 60)[0], "it is ready"
    assert released == [], "nothing was done yet"
    for images in (1, 2):
        pipe.sendall(frames.encode({"t": "image"}))
        until(lambda images=images: len(released) == images, "idle after work")  # type: ignore[misc]
    pipe.sendall(frames.encode({"t": "forget", "segment": "shm:none"}))
    pipe.sendall(frames.encode({"t": "stop"}))
    assert len(worked) == len(released) == 2


FREED = """
from luna_farm import system
def anonymous():
    with open("/proc/self/smaps_rollup") as rows:
        return next(int(row.split()[1]) for row in rows if row.startswith("Anonymous:"))
blocks = [bytes(100_000) for _ in range(1000)]
kept = blocks[::50]
del blocks
before = anonymous()
system.release_memory()
print(before - anonymous())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: freed memory is counted on Linux")
def test_what_was_freed_between_blocks_in_use_goes_back() -> None:
    with start_python(FREED) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 50_000, "kB of about 100 MB"
