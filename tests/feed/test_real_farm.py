"""The feed of a real farm: what it emits while it saves is what docs/feed.schema.json says."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from farm_process import Wire, until
from feed_visitor import Subscription
from websockets.asyncio.client import connect

from luna_farm.cli.launch import Launched, launch
from luna_farm_client import FarmClient, SaveImage, SaveRequest

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "feed.schema.json").read_text("utf-8"))


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    state = tmp_path / "state"
    environ = {**os.environ, "LUNA_FARM_STATE_DIR": str(state), "LUNA_FARM_ARENA_BYTES": "64MiB"}
    found = launch(["--port", "0", "--feed-port", "0"], state, environ)
    yield found
    with FarmClient(port=found.port, token=token(tmp_path)) as farm:
        farm.shutdown(now=True)
    found.process.wait(60)


def token(tmp_path: Path) -> str:
    return (tmp_path / "state" / "token").read_text("utf-8").strip()


def save(port: int, tmp_path: Path) -> str:
    """Save an image, and one that the gate rejects; return the job's id."""
    noise = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
    flat = np.zeros((48, 64, 3), np.uint8)
    images = [SaveImage(noise, affix="RAW", format="png"), SaveImage(flat, affix="FLAT", format="webp")]
    request = SaveRequest(
        images=images, output_dir=str(tmp_path / "out"), filename="night", quality_gate="variance"
    )
    with FarmClient(port=port, token=token(tmp_path)) as farm:
        receipt = farm.submit(request)
        farm.wait(receipt.job_id, timeout=120)
    return receipt.job_id


async def test_every_message_of_a_farm_that_saves(launched: Launched, tmp_path: Path) -> None:
    async with connect(f"ws://127.0.0.1:{launched.feed_port}/?after=0&thumbnails=1") as connection:
        subscription = Subscription(connection)
        await subscription.next()
        job_id = await asyncio.to_thread(save, launched.port, tmp_path)
        seen = await subscription.until(lambda message: message.get("event") == "save_job_done")
        ask: dict[str, Any] = {
            "type": "action",
            "name": "retry",
            "job_id": "ffffffff",
            "token": token(tmp_path),
        }
        refused = await subscription.answer(**ask)
        await subscription.send(type="get_status")
        # The first one may have been made before the image was saved.
        seen += await subscription.until(
            lambda m: m.get("type") == "status" and m["data"]["totals"]["images_saved"]
        )
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for message in [*seen, refused]:
        validator.validate(message)
    mine = [message for message in seen if message.get("job_id") == job_id]
    assert {"save_job_queued", "save_started", "image_saved", "image_rejected", "save_job_done"} <= {
        m["event"] for m in mine
    }
    saved = next(message for message in mine if message["event"] == "image_saved")
    assert Path(saved["path"]).stat().st_size == saved["bytes"]
    assert saved["thumbnail"].startswith("/9j/")
    assert (refused["ok"], refused["code"]) == (False, "unknown_job")
    assert seen[-1]["data"]["totals"]["images_saved"] == 1


async def test_the_time_that_a_client_takes_to_fill_a_slot_is_not_the_farms(
    launched: Launched, tmp_path: Path
) -> None:
    image = {"shape": [1, 4, 4, 3], "subdir": False}
    submit = {"cmd": "save_images_async", "id": 3, "request_id": "slow-client", "timestamp": "2026-01-02"}
    with Wire(launched.port) as wire:
        wire.hello(token(tmp_path))
        lease = wire.ask({"cmd": "lease", "sizes": [48], "id": 2})["leases"][0]["lease"]
        sent = time.monotonic()
        wire.send({**submit, "output_dir": str(tmp_path), "images": [image]})
        async with connect(f"ws://127.0.0.1:{launched.feed_port}/?after=0") as connection:
            subscription = Subscription(connection)
            for _ in range(4):  # the status comes once a second
                await subscription.until(lambda message: message.get("type") == "status")
            held_ms = (time.monotonic() - sent) * 1e3
            wire.send({"cmd": "seal", "id": 3, "parts": [[lease, 1]]})
            seen = await subscription.until(lambda message: message.get("event") == "save_job_queued")
    assert 0 < seen[-1]["handover_ms"] < held_ms / 2


async def test_a_link_of_the_farm_lets_a_browser_act_and_its_actions_reach_the_farm(
    launched: Launched, tmp_path: Path
) -> None:
    with FarmClient(port=launched.port, token=token(tmp_path)) as farm:
        link = await asyncio.to_thread(farm.dashboard_link)

        def login() -> str:
            address = f"http://127.0.0.1:{launched.feed_port}/api/login"
            secret = link.partition("#login=")[2]
            ask = urllib.request.Request(address, headers={"Authorization": f"Login {secret}"})
            with urllib.request.urlopen(ask, timeout=60) as answer:
                return str(json.load(answer)["session"])

        session = await asyncio.to_thread(login)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            await asyncio.to_thread(login)
        job_id = await asyncio.to_thread(save, launched.port, tmp_path)
        act = {"type": "action", "token": session}
        async with connect(f"ws://127.0.0.1:{launched.feed_port}/") as connection:
            subscription = Subscription(connection)
            paused = await subscription.answer(name="pause", **act)
            resumed = await subscription.answer(name="resume", **act)
            refused = await subscription.answer(name="dismiss", job_id=job_id, index=0, **act)
    assert (paused["result"]["paused"], resumed["result"]["paused"]) == (True, False)
    assert refused["error"] == f"Image 0 of job {job_id} is saved: it has not failed."
    for message in (paused, resumed, refused):
        jsonschema.Draft202012Validator(SCHEMA).validate(message)


async def test_what_a_farm_saves_is_in_its_gallery_with_its_thumbnail(
    launched: Launched, tmp_path: Path
) -> None:
    job_id = await asyncio.to_thread(save, launched.port, tmp_path)

    def ask(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{launched.feed_port}{path}", timeout=60) as answer:
            return bytes(answer.read())

    def tiles() -> list[dict[str, Any]]:
        ids = [int(number) for number in array("d", ask(f"/api/gallery/ids?job={job_id}"))]
        found = json.loads(ask(f"/api/gallery/tiles?ids={','.join(map(str, ids))}"))["tiles"]
        return list(found)

    found = await asyncio.to_thread(
        until,
        lambda: len(both := tiles()) == 2 and all(tile["thumbnail"] for tile in both) and both,
        "both images are in the gallery",
    )
    assert {tile["state"] for tile in found} == {"saved", "discarded"}
    saved = next(tile for tile in found if tile["state"] == "saved")
    (file,) = (tmp_path / "out").rglob(saved["name"])
    assert ask(f"/api/gallery/file?id={saved['id']}") == file.read_bytes()
