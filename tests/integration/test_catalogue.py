"""What a real farm saves is found: by its clients, by the command line, and when it has stopped."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess, until

import luna_farm
from luna_farm.catalogue.rows import NAME
from luna_farm.errors import CatalogueUnavailable, InvalidRequest
from luna_farm_client import AsyncFarmClient, SaveImage, SaveRequest

PIXELS = np.random.default_rng(5).integers(0, 255, (2, 200, 200, 3), dtype=np.uint8)


def run(farm: FarmProcess, *arguments: str) -> str:
    command = [sys.executable, "-m", "luna_farm", *arguments, "--state-dir", str(farm.state)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_what_is_saved_is_found(
    start_farm: Callable[..., FarmProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = start_farm()
    with farm.client() as client:
        assert client.find() == []
        images = [SaveImage(PIXELS, affix="RAW"), SaveImage(PIXELS[0] // 2, affix="DARK", format="webp")]
        known = {"positive": "a lighthouse at night", "seed": 2**64 - 1, "model": "flux1-dev.safetensors"}
        receipt = client.submit(SaveRequest(images, output_dir=farm.out, filename="a", metadata=known))
        report = client.wait(receipt)
        assert report.images[0].scores["blank"] is False
        rows = until(lambda: (r := client.find("lighthouse")) and len(r) == 3 and r, "three rows")
        assert {row.path for row in rows} == set(report.paths)
        assert {row.seed for row in rows} == {2**64 - 1}
        assert {row.phash for row in rows} == {image.scores["phash"] for image in report.images}
        assert len(client.find(model="FLUX", seed=2**64 - 1, job=receipt.job_id, limit=2)) == 2
        assert client.find("harbour") == []
        hour = datetime.now(timezone.utc) - timedelta(hours=1)
        assert len(client.find(since=hour)) == 3
        assert client.find(since=hour.timestamp() + 7200) == []
        assert client.find(similar=PIXELS[1])[0].path == report.images[1].path
        alike = {row.path for row in client.find(similar=report.images[0].path)}
        assert alike == {report.images[0].path, report.images[2].path}, "the darker one looks the same"
        assert client.find(before=min(row.id for row in rows)) == []
        for score in ("beauty>1", "variance"):
            with pytest.raises(InvalidRequest, match="score"):
                client.find(score=score)
        with pytest.raises(InvalidRequest, match="similar"):
            client.find(similar=np.zeros((3, 3), np.int64))
        refused = client.submit(SaveRequest([SaveImage(np.zeros((1, 70_000, 3), np.uint8), format="jpeg")]))
        assert client.wait(refused).state == "failed"
        (failed,) = until(lambda: client.find(failed=True), "the failed image")
        assert failed.error
    told = run(farm, "find", "lighthouse")
    assert all(part in told for part in ("lighthouse at night", "flux1-dev", str(2**64 - 1), *report.paths))
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(farm.state))
    monkeypatch.setenv("LUNA_FARM_PORT", str(farm.port))
    through_the_farm = luna_farm.find("lighthouse", limit=2)
    assert farm.stop() == 0
    assert luna_farm.find("lighthouse", limit=2) == through_the_farm == rows[:2]
    assert luna_farm.find(similar=PIXELS[1], since=hour)[0].path == report.images[1].path  # type: ignore[attr-defined]
    by_file = json.loads(run(farm, "find", "lighthouse", "--json"))
    assert [row["path"] for row in by_file] == [row.path for row in rows]
    assert run(farm, "find", "harbour") == "Nothing found.\n"


async def test_an_asynchronous_client_finds(
    shared_farm: FarmProcess, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(shared_farm.state))
    async with AsyncFarmClient("127.0.0.1", shared_farm.port) as client:
        request = SaveRequest(
            [SaveImage(PIXELS)], output_dir=tmp_path, filename="a", metadata={"seed": 77_001}
        )
        await client.wait(await client.submit(request))
        for _ in range(600):
            if len(rows := await client.find(seed=77_001)) == 2:
                break
            await asyncio.sleep(0.02)
        assert sorted(row.path for row in rows) == [str(tmp_path / "a_0.png"), str(tmp_path / "a_1.png")]


def test_more_rows_than_one_answer_holds(start_farm: Callable[..., FarmProcess]) -> None:
    farm = start_farm()
    farm.stop()
    from luna_farm.catalogue.rows import CatalogueRow
    from luna_farm.catalogue.store import Store

    store = Store(farm.state / NAME)
    store.put([CatalogueRow(path=f"/x/{n}.png", saved_at=1e9 + n, prompt="p" * 2000) for n in range(2500)])
    store.close()
    farm.start()
    with farm.client() as client:
        assert [row.path for row in client.find(limit=2400)] == [f"/x/{2499 - n}.png" for n in range(2400)]


def test_a_farm_without_a_catalogue_says_so(start_farm: Callable[..., FarmProcess], tmp_path: Path) -> None:
    farm = start_farm(catalogue="false")
    with farm.client() as client:
        assert client.wait(client.submit(SaveImage(PIXELS))).state == "done"
        with pytest.raises(CatalogueUnavailable, match="keeps no catalogue"):
            client.find("x")
    assert farm.stop() == 0
    assert not (farm.state / NAME).exists()


def test_a_lost_catalogue_is_made_again(start_farm: Callable[..., FarmProcess]) -> None:
    farm = start_farm()
    with farm.client() as client:
        for n in range(3):
            client.wait(
                client.submit(SaveRequest([SaveImage(PIXELS)], output_dir=farm.out, metadata={"seed": n}))
            )
        until(lambda: len(client.find()) == 6, "six rows")
        before = client.find()
    assert farm.stop() == 0
    (farm.state / NAME).write_bytes(b"garbage" * 1000)
    farm.start()
    with farm.client() as client:
        until(lambda: any("set aside" in note for note in client.status()["notes"]), "a note")
        until(lambda: len(client.find()) == 6, "six rows again")
        again = client.find()
    assert {(row.path, row.seed, row.phash) for row in again} == {
        (row.path, row.seed, row.phash) for row in before
    }
    assert farm.stop() == 0
    for path in farm.state.glob(NAME + "*"):
        path.unlink()
    told = run(farm, "catalogue", "rebuild", str(farm.out), "--pixels")
    assert "In the catalogue: 6 images." in told
    rows = json.loads(run(farm, "find", "--json"))
    assert {(row["path"], row["seed"], row["phash"]) for row in rows} == {
        (row.path, row.seed, row.phash) for row in before
    }
