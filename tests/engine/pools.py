"""What the tests of pools share: images in an arena, and a pool whose events are kept."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from luna_farm.core import events
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.storage.arena import Arena

E = TypeVar("E")
WAIT_S = 90.0
"""How long an event may take on a machine that is busy with other things."""


class Images:
    """Images in an arena of their own, and the folder that they are saved to."""

    def __init__(self, arena: Arena, out: Path, size: int = 64) -> None:
        self.arena, self.out, self.size = arena, out, size
        rng = np.random.default_rng(1)
        pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
        arena.view(0, pixels.nbytes)[:] = pixels.tobytes()
        self.pixels = pixels
        self.options = SaveOptions(output_dir=str(out))

    def task(self, index: int, format_: str = "png", **changes: Any) -> ImageTask:
        """The task of image `index`; all have the same pixels."""
        name = changes.pop("name", f"{index}.{format_}")
        given = {
            "job_id": "job",
            "index": index,
            "affix": "RAW",
            "format": format_,
            "batch_index": 0,
            "batch_size": 1,
            "path": str(self.out / name),
            "segment": self.arena.name,
            "offset": 0,
            "height": self.size,
            "width": self.size,
            "channels": 3,
            "root": str(self.out),
        }
        return ImageTask(**{**given, **changes})


@contextmanager
def images(tmp_path: Path, size: int = 64) -> Iterator[Images]:
    """Images in a new arena, which is gone afterwards."""
    arena = Arena.create(f"shm:luna-{secrets.token_hex(6)}", max(2**20, size * size * 3))
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    try:
        yield Images(arena, out, size)
    finally:
        arena.unlink()


class Kept:
    """Keeps the events of a pool; `wait` returns the next of a kind."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self._seen: set[int] = set()

    def __call__(self, event: events.Event) -> None:
        self.events.append(event)

    def all(self, kind: type[E]) -> list[E]:
        """All events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait(self, kind: type[E], pool: Any, where: Callable[[E], bool] = lambda event: True) -> E:
        """Flush the pool and return the first event of a kind that no earlier call has returned."""
        end = time.monotonic() + WAIT_S
        while True:
            pool.flush()
            for number, event in enumerate(self.events):
                if isinstance(event, kind) and number not in self._seen and where(event):
                    self._seen.add(number)
                    return event
            assert time.monotonic() < end, f"no {kind.__name__}; there were {self.events}"
            await asyncio.sleep(0.005)


def babble(pipe: socket.socket) -> None:
    """What a child becomes that sends no messages."""
    pipe.sendall(b"GET / HTTP/1.1\r\n\r\n")
    pipe.recv(1)
