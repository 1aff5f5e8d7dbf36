"""The processes of a farm: how many, what they hold, and that nothing of them grows or stays."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from farm_process import FarmProcess, until

from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.storage import arena_size
from luna_farm.storage.arena import Arena, Segments
from luna_farm.worker import pipeline
from luna_farm_client import FarmClient, SaveImage, SaveRequest

Start = Callable[..., FarmProcess]
ROUNDS, PROCESSES = 250, 4
SAVER = """
import sys, numpy as np
from luna_farm_client import FarmClient, SaveImage, SaveRequest
port, token, out, number = sys.argv[1:]
pixels = np.full((8, 8, 3), int(number), np.uint8)
with FarmClient("127.0.0.1", int(port), token) as farm:
    for _ in range({rounds}):
        farm.submit(SaveRequest([SaveImage(pixels, "RAW")], output_dir=out, filename="same"))
"""


def workers(farm: FarmProcess) -> list[psutil.Process]:
    with farm.client() as client:
        return [psutil.Process(worker["pid"]) for worker in client.status()["workers"]]


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: what a process has loaded is asked of /proc")
def test_nobody_loads_what_is_not_for_them(start_farm: Start, tmp_path: Path) -> None:
    farm = start_farm()
    with farm.client() as client:
        until(lambda: client.status()["workers"], "a worker is ready")
        images = [
            SaveImage(np.zeros((8, 8, 3), np.uint8), str(n), f) for n, f in enumerate(("png", "jpeg", "webp"))
        ]
        receipt = client.submit(SaveRequest(images, output_dir=tmp_path))
        assert client.wait(receipt.job_id, timeout=60).state == "done"

    def loaded(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text()

    supervisor = loaded(farm.pid)
    assert not [word for word in ("numpy", "PIL", "torch") if f"/{word}/" in supervisor]
    for worker in workers(farm):
        assert "/torch/" not in loaded(worker.pid)
        assert "/numpy/" in loaded(worker.pid), "that is how it would show"


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory by process is asked of /proc")
def test_an_idle_farm_takes_little_memory(
    start_farm: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Supervisor, workers and shared memory together, each shared page counted once."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    farm = start_farm(arena_bytes="1GiB", min_workers=2)
    until(lambda: len(workers(farm)) == 2, "both workers are ready")

    def all_bytes() -> int:
        processes = [psutil.Process(farm.pid), *psutil.Process(farm.pid).children(recursive=True)]
        with farm.client() as client:
            reserved = client.status()["arena"]["reserved_bytes"]
        return reserved + sum(process.memory_full_info().pss for process in processes)

    assert {p.pid for p in psutil.Process(farm.pid).children()} == {p.pid for p in workers(farm)}
    assert all_bytes() < 80 << 20
    with farm.client() as client:
        frames = np.zeros((40, 1024, 1024, 3), np.uint8)
        receipt = client.submit(SaveRequest([SaveImage(frames)], output_dir=tmp_path))
        assert client.wait(receipt.job_id, timeout=60).state == "done"
        arena = client.status()["arena"]
    assert arena["used_bytes"] <= arena["reserved_bytes"] < arena["bytes"] == 1 << 30


def test_workers_yield_to_the_program_that_makes_the_images(start_farm: Start) -> None:
    farm = start_farm()
    until(lambda: workers(farm), "a worker is ready")
    own = psutil.Process(farm.pid).nice()
    assert all(worker.nice() > own for worker in workers(farm))


def test_the_pool_grows_with_the_queue_and_shrinks_again(start_farm: Start, tmp_path: Path) -> None:
    farm = start_farm(min_workers=2, max_workers=4, idle_timeout="0.1")
    noisy = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    with farm.client() as client:
        request = SaveRequest([SaveImage(noisy)] * 40, output_dir=tmp_path, png_compression=9)
        receipt = client.submit(request)
        assert client.wait(receipt.job_id, timeout=120).state == "done"
        until(lambda: farm.log.count(" is ready (pid ") >= 4, "four workers started")
        until(lambda: farm.log.count(" ended (idle)") >= 2, "two of them ended")
        until(lambda: len(client.status()["workers"]) == 2, "two workers again")
    assert len(list(tmp_path.glob("*.png"))) == 40
    until(lambda: len(psutil.Process(farm.pid).children()) <= 3, "the others are collected")


def thumbnails(farm: FarmProcess) -> int:
    """How many are kept."""
    if not (farm.state / "thumbnails.sqlite").exists():
        return 0
    address = f"file:{farm.state / 'thumbnails.sqlite'}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as store:
        tables = store.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'thumbnails'").fetchone()[0]
        return int(store.execute("SELECT count(*) FROM thumbnails").fetchone()[0]) if tables else 0


def test_four_processes_save_again_and_again_under_one_name(start_farm: Start, tmp_path: Path) -> None:
    farm = start_farm(fsync="false")
    out = tmp_path / "same"

    def held() -> dict[str, int]:
        processes = [psutil.Process(farm.pid), *workers(farm)]
        return {
            "files": sum(p.num_fds() if hasattr(p, "num_fds") else p.num_handles() for p in processes),
            "threads": sum(p.num_threads() for p in processes),
            "mappings": sum(len(p.memory_maps(grouped=False)) for p in processes if sys.platform == "linux"),
        }

    def run(number: int, rounds: int) -> subprocess.Popen[bytes]:
        code = SAVER.replace("{rounds}", str(rounds))
        return subprocess.Popen(
            [sys.executable, "-c", code, str(farm.port), farm.token, str(out), str(number)]
        )

    with farm.client() as client:
        until(lambda: len(client.status()["workers"]) == 2, "two workers")
        assert run(9, 100).wait(120) == 0
        until(lambda: client.status()["queue"]["jobs"] == 0, "all are saved")
        until(lambda: thumbnails(farm) == 100, "their thumbnails are made, by libraries that stay loaded")
        before = until(
            lambda: held() if len(psutil.Process(farm.pid).net_connections()) <= 3 else None, "they left"
        )
        # A worker maps libraries when it first needs them, allocators some memory; what 1,000 images left
        # behind would be far more.
        spare = {"files": 2, "threads": 2, "mappings": 24}
        saving = [run(number, ROUNDS) for number in range(PROCESSES)]
        assert [process.wait(300) for process in saving] == [0] * PROCESSES
        until(lambda: client.status()["queue"]["jobs"] == 0, "all are saved")
        status = client.status()
        assert status["totals"]["images_saved"] == 100 + PROCESSES * ROUNDS
        assert status["arena"]["used_bytes"] == 0
        everything = 100 + PROCESSES * ROUNDS
        until(lambda: thumbnails(farm) == everything, "workers have closed their store of thumbnails")
        until(
            lambda: all(held()[what] <= count + spare[what] for what, count in before.items()),
            f"no more than {before}",
        )
    made = sorted(out.iterdir())
    assert len(made) == 100 + PROCESSES * ROUNDS, "not one was overwritten"
    assert {path.suffix for path in made} == {".png"}, "and nothing else lies there"


@pytest.mark.parametrize("busy", [False, True])
def test_after_a_stop_nothing_is_left(start_farm: Start, tmp_path: Path, busy: bool) -> None:
    farm = start_farm()
    out = tmp_path / "out"
    until(lambda: workers(farm), "a worker is ready")
    segments = [line for line in (farm.state / "arena").read_text().split("\n") if line.startswith("shm:")]
    with farm.client() as client:
        images = [SaveImage(np.zeros((256, 256, 3), np.uint8))] * 30
        receipt = client.submit(SaveRequest(images, output_dir=out))
        if not busy:
            client.wait(receipt.job_id, timeout=60)
    children = psutil.Process(farm.pid).children(recursive=True)
    assert farm.stop() == 0
    until(lambda: not psutil.wait_procs(children, 0.01)[1], "no process is left")
    assert len(list(out.glob("*.png"))) == 30
    assert not list(out.glob(".luna*"))
    for segment in segments:
        assert not Path("/dev/shm", segment.removeprefix("shm:")).exists()


def test_the_encoder_reads_the_very_bytes_that_the_client_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Any] = []
    encode = pipeline.encode

    def watched(pixels: Any, *args: Any) -> Any:
        received.append(pixels)
        return encode(pixels, *args)

    monkeypatch.setattr(pipeline, "encode", watched)
    arena = Arena.create(arena_size.fresh_names(tmp_path)[0], 64 * 1024)
    segments = Segments()
    slot = np.frombuffer(arena.view(4096, 12 * 16 * 3), np.uint8)
    task = ImageTask("ab12cd34", 0, "", "png", 0, 1, str(tmp_path / "a.png"), arena.name, 4096, 12, 16, 3)
    try:
        pixels = pipeline.view(segments, task)
        assert not np.shares_memory(pixels, slot), "another mapping, as another process has it"
        slot[:] = 77
        assert np.all(pixels == 77), "of the same memory"
        pipeline.make(
            pixels, task, SaveOptions(str(tmp_path), quality_gate="both", min_quality_threshold=0.0)
        )
        assert np.shares_memory(received[0], pixels)
        assert received[0].flags.c_contiguous
    finally:
        del pixels, slot
        received.clear()
        segments.close()
        arena.close()
        arena.unlink()


def test_a_client_reuses_its_connection(shared_farm: FarmProcess, tmp_path: Path) -> None:
    process = psutil.Process(shared_farm.pid)
    with shared_farm.client() as farm:
        farm.ping()
        before = len(process.net_connections("tcp")) if hasattr(process, "net_connections") else 0
        for _ in range(50):
            farm.submit(SaveRequest([SaveImage(np.zeros((4, 4, 3), np.uint8))], output_dir=tmp_path))
        after = len(process.net_connections("tcp")) if hasattr(process, "net_connections") else 0
        assert isinstance(farm, FarmClient)
    assert after <= before
