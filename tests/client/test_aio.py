"""`AsyncFarmClient`: the same as its blocking twin, for one event loop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
from farm_process import FarmProcess
from PIL import Image

from luna_farm.errors import FarmUnavailable, InvalidRequest, NotPossible, UnknownJob
from luna_farm_client import AsyncFarmClient, SaveImage, SaveRequest
from luna_farm_client.aio import AsyncConnection


def client(shared_farm: FarmProcess, **options: object) -> AsyncFarmClient:
    os.environ["LUNA_FARM_STATE_DIR"] = str(shared_farm.state)
    try:
        return AsyncFarmClient("127.0.0.1", shared_farm.port, **options)
    finally:
        del os.environ["LUNA_FARM_STATE_DIR"]


def request(out: Path, value: int = 7, **fields: object) -> SaveRequest:
    return SaveRequest(
        [SaveImage(np.full((16, 16, 3), value, np.uint8))], output_dir=out, filename="a", **fields
    )


async def test_many_tasks_save_through_one_client(shared_farm: FarmProcess, tmp_path: Path) -> None:
    async with client(shared_farm) as farm:

        async def save(value: int) -> tuple[int, str]:
            receipt = await farm.submit(request(tmp_path, value))
            report = await farm.wait(receipt.job_id, timeout=60)
            assert report.state == "done"
            return value, report.paths[0]

        saved = await asyncio.gather(*map(save, range(20)))
    assert len({path for _, path in saved}) == 20
    for value, path in saved:
        with Image.open(path) as image:
            assert np.all(np.asarray(image) == value)


async def test_it_asks_what_the_other_asks(shared_farm: FarmProcess, tmp_path: Path) -> None:
    async with client(shared_farm) as farm:
        receipt = await farm.submit(request(tmp_path))
        assert (await farm.wait(receipt.job_id)).state == "done"
        assert (await farm.job(receipt.job_id)).job_id == receipt.job_id
        assert (await farm.jobs(limit=1))[0].job_id == receipt.job_id
        assert (await farm.status())["pid"] == shared_farm.pid
        assert (await farm.call("ping"))["pong"] is True
        with pytest.raises(UnknownJob):
            await farm.job("no-such-job")
        for refused in (farm.cancel, farm.retry, farm.dismiss):
            with pytest.raises(NotPossible):
                await refused(receipt.job_id, 0)
        with pytest.raises(NotPossible):
            await farm.dashboard_link()
        assert not (await farm.resume()).paused
        try:
            assert (await farm.pause()).paused
        finally:
            await farm.resume()


@pytest.mark.parametrize("side", [4, 400], ids=["copied first", "announced first"])
async def test_bad_pixels_leave_the_connection_good(
    shared_farm: FarmProcess, tmp_path: Path, side: int
) -> None:
    async with client(shared_farm) as farm:
        bad = SaveRequest([SaveImage(np.full((side, side, 3), 200.0, np.float32))], output_dir=tmp_path)
        with pytest.raises(InvalidRequest, match="floats up to 200"):
            await farm.submit(bad)
        receipt = await farm.submit(request(tmp_path))
        assert (await farm.wait(receipt.job_id, timeout=60)).state == "done"


async def test_a_cancelled_call_does_not_answer_the_next_one(
    shared_farm: FarmProcess, tmp_path: Path
) -> None:
    async with client(shared_farm) as farm:
        receipt = await farm.submit(request(tmp_path))
        await farm.wait(receipt.job_id)
        for _ in range(5):
            asking = asyncio.ensure_future(farm.status())
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert (await farm.job(receipt.job_id)).job_id == receipt.job_id


async def test_without_a_farm_it_says_so() -> None:
    async with AsyncFarmClient("127.0.0.1", 9, token="x", timeout=1.0) as farm:
        with pytest.raises(FarmUnavailable, match="luna-farm start"):
            await farm.status()


async def test_something_else_on_the_port_is_no_farm() -> None:
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(chatter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AsyncFarmClient("127.0.0.1", port, token="x", timeout=5.0) as farm:
        with pytest.raises(FarmUnavailable, match="does not answer"):
            await farm.status()


async def test_its_connections_close_at_the_same_time(
    shared_farm: FarmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, each would have its own second for a farm that is silent."""
    closing, all_closing, closed = 0, asyncio.Event(), AsyncConnection.closed

    async def together(self: AsyncConnection) -> None:
        nonlocal closing
        if (closing := closing + 1) == 3:
            all_closing.set()
        await asyncio.wait_for(all_closing.wait(), 120)
        await closed(self)

    monkeypatch.setattr(AsyncConnection, "closed", together)
    async with client(shared_farm) as farm:
        await asyncio.gather(*(farm.ping() for _ in range(3)))
    assert closing == 3
