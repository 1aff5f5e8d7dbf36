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
from luna_farm.storage.notes import Notes
from luna_farm.storage.thumbnails import Thumbnails
from luna_farm.worker import main
from luna_farm.worker.thumbnails import ThumbnailMaker


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


class SlowDisk(ThumbnailMaker):
    """A maker whose worker writes its last image until thumbnails are asked for."""

    def __init__(self) -> None:
        super().__init__(Thumbnails("", 0))
        self.asked = threading.Event()
        self.made = threading.Event()

    @property
    def waits(self) -> bool:
        waits = super().waits
        self.asked.set()
        return waits

    def make_one(self) -> None:
        self._waiting.clear()
        self.made.set()

    def write(self) -> None:
        assert self.asked.wait(60)
        self.add("job", 0, None, "", 0)


def test_an_image_that_is_still_being_written_when_nothing_more_comes_has_its_thumbnail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    maker = SlowDisk()

    def image(self: main.Worker, message: dict[str, Any]) -> None:
        maker.asked.clear()
        self._writing = self._disk.submit(maker.write)

    monkeypatch.setattr(main.Worker, "_image", image)
    ours, theirs = socket.socketpair()
    worker = main.Worker(theirs, False, Notes(str(tmp_path / "notes")), thumbnails=maker)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    ours.sendall(frames.encode({"t": "image"}) + frames.encode({"t": "forget", "segment": "shm:none"}))
    assert maker.made.wait(60), "though no message came after it"
    ours.close()
    thread.join(60)
    theirs.close()
    assert not thread.is_alive()


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
