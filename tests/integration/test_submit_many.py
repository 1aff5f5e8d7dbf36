"""Many requests in one call: the same files and receipts as one by one, by any client, whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess
from PIL import Image

from luna_farm.errors import FarmBusy, InvalidRequest
from luna_farm_client import AsyncFarmClient, SaveImage, SaveRequest

Farm = Callable[..., FarmProcess]


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """`farm(max_workers=2)`: a farm that is not started yet."""
    made: list[FarmProcess] = []

    def make(**settings: Any) -> FarmProcess:
        made.append(FarmProcess(tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        one.destroy()


def request(number: int, side: int = 9, **fields: Any) -> SaveRequest:
    """One image and a batch of two, of odd sizes and other types."""
    images = [
        SaveImage(np.full((side, 7, 3), number, np.uint8), affix="I"),
        SaveImage(np.full((2, 5, 3, 3), number / 255, np.float32), affix="B"),
    ]
    return SaveRequest(images, filename=f"n{number}", **fields)


def check(out: Path, count: int) -> None:
    """Every image is there with its own pixels."""
    names = {path.name for path in out.iterdir()}
    assert names == {f"n{n}_{rest}.png" for n in range(count) for rest in ("I", "B_0", "B_1")}
    for name in names:
        with Image.open(out / name) as image:
            assert set(np.asarray(image).flat) == {int(name[1:].partition("_")[0])}


def test_each_request_is_a_job_of_its_own(farm: Farm) -> None:
    one = farm().start()
    with one.client() as client:
        receipts = client.submit_many([request(n, durable=n == 3) for n in range(20)])
        assert [receipt.paths[0] for receipt in receipts] == [str(one.out / f"n{n}_I.png") for n in range(20)]
        assert {client.wait(receipt, 300).state for receipt in receipts} == {"done"}
        check(one.out, 20)
        with pytest.raises(InvalidRequest, match=r"requests\[1\].png_compression"):
            client.submit_many([request(30), request(31, png_compression=77)])
        assert client.submit_many([]) == []
        assert client.status()["totals"]["jobs"] == 20


def test_what_does_not_fit_into_one_message_goes_in_several(farm: Farm) -> None:
    one = farm(arena_bytes="16MiB").start()
    with one.client() as client:
        large = np.zeros((1200, 1100, 3), np.uint8)
        requests = [SaveRequest([SaveImage(large)], filename=f"l{n}", png_compression=1) for n in range(7)]
        requests[2:2] = [request(n) for n in range(3)]
        receipts = client.submit_many(requests)
        assert [Path(receipt.paths[0]).name for receipt in receipts] == [
            *("l0.png", "l1.png", "n0_I.png", "n1_I.png", "n2_I.png"),
            *(f"l{n}.png" for n in range(2, 7)),
        ]
        assert {client.wait(receipt, 300).state for receipt in receipts} == {"done"}
        client.pause()  # or workers might keep up
        with pytest.raises(FarmBusy) as caught:
            client.submit_many(requests * 3, when_busy="report")
        client.resume()
        for receipt in caught.value.receipts:
            client.wait(receipt, 300)


def test_over_the_wire_and_by_asyncio(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    one = farm().start()
    from luna_farm_client.mapped import MappedSegments

    def elsewhere(self: object, name: str) -> object:
        raise OSError("another host")

    monkeypatch.setattr(MappedSegments, "arena", elsewhere)
    with one.client() as client:
        for receipt in client.submit_many([request(n) for n in range(3)]):
            assert client.wait(receipt, 300).state == "done"
    monkeypatch.undo()
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(one.state))

    async def more() -> None:
        async with AsyncFarmClient("127.0.0.1", one.port) as client:
            for receipt in await client.submit_many([request(n) for n in range(3, 6)]):
                assert (await client.wait(receipt, 300)).state == "done"

    asyncio.run(more())
    check(one.out, 6)


@pytest.mark.parametrize("point", ["supervisor.journaled", "supervisor.acknowledged:2"])
def test_an_answer_that_was_lost_costs_no_second_job(
    farm: Farm, point: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    once = tmp_path / "fired"
    once.mkdir()
    monkeypatch.setenv("LUNA_FARM_CRASH", point)
    monkeypatch.setenv("LUNA_FARM_CRASH_ONCE", str(once))
    one = farm().start()
    with one.kept_alive(), one.client(timeout=60, restart_s=60) as client:
        receipts = client.submit_many([request(n) for n in range(5)])
        assert {client.wait(receipt, 300).state for receipt in receipts} == {"done"}
    assert list(once.iterdir()), "the point was reached"
    check(one.out, 5)
