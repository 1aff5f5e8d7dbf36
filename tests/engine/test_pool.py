"""What every pool does, whatever its workers are: the same tests for each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from pools import Images, Kept, images

from luna_farm.core import events
from luna_farm.engine.local import LocalPool
from luna_farm.engine.pool import Pool, WorkerSettings


class Stand:
    """A pool, the events that came of it, images to give it."""

    def __init__(self, pool: Pool, kept: Kept, images_: Images, notes: Path) -> None:
        self.pool, self.kept, self.images, self.notes = pool, kept, images_, notes

    async def worker(self, number: int = 1) -> events.WorkerReady:
        """A worker that is ready."""
        self.pool.spawn(number)
        return await self.kept.wait(events.WorkerReady, self.pool, lambda event: event.worker == number)

    async def made(self, worker: int, index: int, **changes: Any) -> events.ImageFinished:
        """Have an image made."""
        self.pool.dispatch(worker, self.images.task(index, **changes), self.images.options, last=False)
        return await self.kept.wait(events.ImageFinished, self.pool)


@pytest.fixture(params=["local"])
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    """A pool of each kind, closed afterwards."""
    notes = tmp_path / "notes"
    notes.mkdir()
    kept = Kept()
    pool = LocalPool(kept, WorkerSettings(True, str(notes), uploads=str(tmp_path / "uploads")))
    with images(tmp_path) as pictures:
        yield Stand(pool, kept, pictures, notes)
        await pool.close(5.0)


async def test_an_image_becomes_a_file_with_its_pixels(stand: Stand) -> None:
    """Ready, image, result: the file is there, whole, and the times of its steps are known."""
    ready = await stand.worker()
    done = await stand.made(1, 0)
    assert ready.encoders["png"]
    assert (done.worker, done.job_id, done.index, done.result.state) == (1, "job", 0, "saved")
    assert done.result.bytes == (stand.images.out / "0.png").stat().st_size
    assert np.array_equal(np.asarray(Image.open(done.result.path)), stand.images.pixels)
    assert {"gate", "encode", "write"} <= set(done.result.ms or {})


async def test_results_come_back_in_the_order_of_the_images(stand: Stand) -> None:
    """A worker may hold several images; what fails costs its image alone."""
    await stand.worker()
    for index in range(4):
        task = stand.images.task(index, "no format" if index == 1 else "png")
        stand.pool.dispatch(1, task, stand.images.options, last=True)
    results = [await stand.kept.wait(events.ImageFinished, stand.pool) for _ in range(4)]
    assert [done.index for done in results] == [0, 1, 2, 3]
    assert [done.result.state for done in results] == ["saved", "failed", "saved", "saved"]


async def test_a_name_that_is_taken_is_not_overwritten(stand: Stand) -> None:
    """Also when another program made the file after the name was reserved."""
    (stand.images.out / "0.png").write_bytes(b"mine")
    await stand.worker()
    done = await stand.made(1, 0)
    assert (stand.images.out / "0.png").read_bytes() == b"mine"
    assert done.result.path == str(stand.images.out / "0_00001.png")


async def test_a_folder_that_cannot_be_written_is_a_result(stand: Stand) -> None:
    """The core holds the image; the worker goes on."""
    await stand.worker()
    (stand.images.out / "file").write_bytes(b"")
    done = await stand.made(1, 0, name="file/0.png")
    assert (done.result.state, done.result.code) == ("failed", "disk")
    assert (await stand.made(1, 1)).result.state == "saved"


async def test_pixels_that_are_gone_are_a_result(stand: Stand) -> None:
    """A segment that nobody made."""
    await stand.worker()
    done = await stand.made(1, 0, segment="shm:luna-none")
    assert (done.result.state, done.result.code) == ("failed", "arena")


async def test_a_worker_that_is_killed_is_gone_and_others_go_on(stand: Stand) -> None:
    """The reason is the one given; its notes are read, and their file goes."""
    await stand.worker(1)
    await stand.worker(2)
    await stand.made(1, 0)
    stand.pool.kill(1, "no progress for 1 s")
    gone = await stand.kept.wait(events.WorkerGone, stand.pool)
    assert (gone.worker, gone.why) == (1, "no progress for 1 s")
    assert [note.name for note in gone.notes] == ["0.png"]
    assert not (stand.notes / "1").exists()
    stand.pool.kill(1, "it is gone already")
    assert (await stand.made(2, 1)).worker == 2


async def test_a_worker_that_is_retired_finishes_what_it_has(stand: Stand) -> None:
    """And is gone for the reason given."""
    await stand.worker()
    stand.pool.dispatch(1, stand.images.task(0), stand.images.options, last=True)
    stand.pool.retire(1, "idle")
    done = await stand.kept.wait(events.ImageFinished, stand.pool)
    gone = await stand.kept.wait(events.WorkerGone, stand.pool)
    assert (done.result.state, gone.why) == ("saved", "idle")


async def test_close_ends_all_workers(stand: Stand) -> None:
    """Those that are starting as well. Nothing is started any more, and the next start finds the notes."""
    ready = await stand.worker(1)
    await stand.made(1, 0)
    stand.pool.spawn(2)
    await stand.pool.close(5.0)
    stand.pool.spawn(3)
    assert {gone.worker for gone in stand.kept.all(events.WorkerGone)} == {1, 2}
    assert not psutil.pid_exists(ready.pid)
    assert (stand.notes / "1").exists()
    stand.pool.forget(stand.images.arena.name)
    stand.pool.flush()


async def test_memory_that_is_given_back_is_let_go_of(stand: Stand) -> None:
    """Otherwise its pages stay until the worker ends."""
    ready = await stand.worker()
    await stand.made(1, 0)
    maps = psutil.Process(ready.pid).memory_maps()
    name = stand.images.arena.name.partition(":")[2]
    assert any(name in each.path for each in maps)
    stand.pool.forget(stand.images.arena.name)
    await stand.made(1, 1, segment="shm:luna-none")  # behind the message, so it was handled
    assert not any(name in each.path for each in psutil.Process(ready.pid).memory_maps())
