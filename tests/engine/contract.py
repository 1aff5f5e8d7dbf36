"""What every pool does, whatever its workers are: the same tests for each kind.

The module of a subclass has a fixture `pool` of scope and loop "module" that yields a `Stand`. Its workers
are used again: one elsewhere takes a second to start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from pools import Images, Kept, images

from luna_farm.core import events
from luna_farm.engine.pool import Pool


class Stand:
    """A pool, the events that came of it, the folder of its notes, and images to give it."""

    def __init__(self, pool: Pool, kept: Kept, notes: Path) -> None:
        self.pool, self.kept, self.notes = pool, kept, notes
        self.images: Images
        self._last = 0
        self._warm: set[int] = set()

    async def worker(self) -> int:
        """The number of a worker that is ready and has nothing to do."""
        gone = {event.worker for event in self.kept.all(events.WorkerGone)}
        ready = [event.worker for event in self.kept.all(events.WorkerReady)]
        fresh = [number for number in ready if number not in gone and number not in self._warm]
        if fresh:
            self._warm.add(fresh[0])
            return fresh[0]
        self._last += 1
        number = self._last
        self.pool.spawn(number)
        await self.kept.wait(events.WorkerReady, self.pool, lambda event: event.worker == number)
        self._warm.add(number)
        return number

    def ready(self, worker: int) -> events.WorkerReady:
        """What a worker said when it was ready."""
        return next(event for event in self.kept.all(events.WorkerReady) if event.worker == worker)

    def next_test(self) -> None:
        """Every worker that lives may be used again."""
        self._warm.clear()

    async def made(self, worker: int, index: int, **changes: Any) -> events.ImageFinished:
        """Have an image made."""
        self.pool.dispatch(worker, self.images.task(index, **changes), self.images.options, last=False)
        return await self.kept.wait(events.ImageFinished, self.pool)

    async def gone(self, worker: int) -> events.WorkerGone:
        """The end of a worker."""
        return await self.kept.wait(events.WorkerGone, self.pool, lambda event: event.worker == worker)


def with_images(pool: Stand, tmp_path: Path) -> Iterator[Stand]:
    """A pool with new images and a new folder."""
    with images(tmp_path) as made:
        pool.images = made
        pool.next_test()
        yield pool
        pool.pool.forget(made.arena.name)


class PoolContract:
    """The tests."""

    @pytest.fixture
    def stand(self, pool: Stand, tmp_path: Path) -> Iterator[Stand]:
        """The pool, with new images."""
        yield from with_images(pool, tmp_path)

    async def test_an_image_becomes_a_file_with_its_pixels(self, stand: Stand) -> None:
        """Ready, image, result: the file is there, whole, and the times of its steps are known."""
        worker = await stand.worker()
        done = await stand.made(worker, 0)
        assert stand.ready(worker).encoders["png"]
        assert (done.worker, done.job_id, done.index, done.result.state) == (worker, "job", 0, "saved")
        assert done.result.bytes == (stand.images.out / "0.png").stat().st_size
        assert np.array_equal(np.asarray(Image.open(done.result.path)), stand.images.pixels)
        assert {"gate", "encode", "write"} <= set(done.result.ms or {})

    async def test_results_come_back_in_the_order_of_the_images(self, stand: Stand) -> None:
        """A worker may hold several images; what fails costs its image alone."""
        worker = await stand.worker()
        for index in range(4):
            task = stand.images.task(index, "no format" if index == 1 else "png")
            stand.pool.dispatch(worker, task, stand.images.options, last=True)
        results = [await stand.kept.wait(events.ImageFinished, stand.pool) for _ in range(4)]
        assert [done.index for done in results] == [0, 1, 2, 3]
        assert [done.result.state for done in results] == ["saved", "failed", "saved", "saved"]

    async def test_a_name_that_is_taken_is_not_overwritten(self, stand: Stand) -> None:
        """Also when another program made the file after the name was reserved."""
        (stand.images.out / "0.png").write_bytes(b"mine")
        worker = await stand.worker()
        done = await stand.made(worker, 0)
        assert (stand.images.out / "0.png").read_bytes() == b"mine"
        assert done.result.path == str(stand.images.out / "0_00001.png")

    async def test_a_folder_that_cannot_be_written_is_a_result(self, stand: Stand) -> None:
        """The core holds the image; the worker goes on."""
        worker = await stand.worker()
        (stand.images.out / "file").write_bytes(b"")
        done = await stand.made(worker, 0, name="file/0.png")
        assert (done.result.state, done.result.code) == ("failed", "disk")
        assert (await stand.made(worker, 1)).result.state == "saved"

    async def test_pixels_that_are_gone_are_a_result(self, stand: Stand) -> None:
        """A segment that does not exist."""
        worker = await stand.worker()
        done = await stand.made(worker, 0, segment="shm:luna-none")
        assert (done.result.state, done.result.code) == ("failed", "arena")

    async def test_a_worker_that_is_killed_is_gone_and_others_go_on(self, stand: Stand) -> None:
        """The reason is the one given; its notes are read, and their file goes."""
        worker, other = await stand.worker(), await stand.worker()
        await stand.made(worker, 0)
        stand.pool.kill(worker, "no progress for 1 s")
        gone = await stand.gone(worker)
        assert gone.why == "no progress for 1 s"
        assert "0.png" in [note.name for note in gone.notes]
        assert not (stand.notes / str(worker)).exists()
        stand.pool.kill(worker, "it is gone already")
        assert (await stand.made(other, 1)).worker == other

    async def test_a_worker_that_is_retired_finishes_what_it_has(self, stand: Stand) -> None:
        """And is gone for the reason given."""
        worker = await stand.worker()
        stand.pool.dispatch(worker, stand.images.task(0), stand.images.options, last=True)
        stand.pool.retire(worker, "idle")
        done = await stand.kept.wait(events.ImageFinished, stand.pool)
        gone = await stand.gone(worker)
        assert (done.result.state, gone.why) == ("saved", "idle")

    async def test_memory_that_is_given_back_is_let_go_of(self, stand: Stand) -> None:
        """Otherwise its pages stay until the worker ends."""
        worker = await stand.worker()
        process = psutil.Process(stand.ready(worker).pid)
        await stand.made(worker, 0)
        name = stand.images.arena.name.partition(":")[2]
        assert any(name in each.path for each in process.memory_maps())
        stand.pool.forget(stand.images.arena.name)
        await stand.made(worker, 1, segment="shm:luna-none")  # behind the message, so it was handled
        assert not any(name in each.path for each in process.memory_maps())

    async def test_z_close_ends_all_workers(self, stand: Stand) -> None:
        """Those that are starting as well. Nothing is started any more, and the next start finds the
        notes. The last test: the pool is of no use after it."""
        worker = await stand.worker()
        await stand.made(worker, 0)
        alive = {event.worker for event in stand.kept.all(events.WorkerReady)}
        stand.pool.spawn(1000)
        await stand.pool.close(5.0)
        stand.pool.spawn(1001)
        gone = {event.worker for event in stand.kept.all(events.WorkerGone)}
        assert gone == alive | {1000}
        assert not psutil.pid_exists(stand.ready(worker).pid)
        assert (stand.notes / str(worker)).exists()
        stand.pool.dispatch(worker, stand.images.task(0), stand.images.options, last=True)
        stand.pool.retire(worker, "it is gone already")
        stand.pool.flush()
        await stand.pool.close(0.0)
