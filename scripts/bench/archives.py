"""A million members in tar shards: memory of the process that writes them, as their number grows.

    python3 scripts/bench archives [--members 1000000] [--shard 10000] [--kind tar]

The shards are written as the archiver writes them, 256 members a sync, and removed once they are published.
`--farm N` sends N images through a real farm as well and prints the memory of its processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
TEMP = ".luna-bench-shard.tmp"
TOGETHER = 256


def shards(members: int, of_shard: int, kind: str) -> None:
    """Write members and print the memory at every tenth of them."""
    from luna_farm.storage.archive import Shard

    me, body = psutil.Process(), bytes(2000)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        written = 0
        while written < members:
            shard = Shard(folder, TEMP, kind)
            for n in range(written, min(written + of_shard, members)):
                origin = {"luna_farm": {"shard": "bench", "job_id": "bench", "index": n}}
                shard.add(f"image_{n}", [("png", [body])], json.dumps(origin).encode())
                if n % TOGETHER == 0:
                    shard.sync()
            written += shard.members
            shard.sync()
            path = shard.publish(f"{folder}/set_00001.{kind}", folder)
            Path(path).unlink()
            if written % max(of_shard, members // 10) < of_shard:
                rate = written / (time.perf_counter() - started)
                print(f"{written:>9} members: {me.memory_info().rss / 2**20:6.1f} MiB, {rate:6.0f} a second")


def through_a_farm(images: int, of_shard: int, kind: str) -> None:
    """Send small images through a farm and print the memory of its processes at every tenth of them."""
    from luna_farm_client import SaveImage, SaveRequest

    pixels = np.random.default_rng(1).integers(0, 255, (1000, 16, 16, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        farm = import_module("farm_process").FarmProcess(Path(folder)).start()
        try:
            with farm.client() as client:
                sent = 0
                while sent < images:
                    request = SaveRequest(
                        [SaveImage(pixels)], archive=kind, filename="set", shard_images=of_shard
                    )
                    report = client.wait(client.submit(request), 600)
                    assert report.state == "done", report
                    sent += len(pixels)
                    for path in farm.out.glob("set_*"):
                        path.unlink()
                    if sent % max(1000, images // 10) == 0:
                        print(f"{sent:>9} images: {_memory(farm.pid)}")
        finally:
            farm.stop()


def _memory(pid: int) -> str:
    parent = psutil.Process(pid)
    each = []
    for process in (parent, *parent.children()):
        memory = process.memory_info()
        each.append(f"{(memory.rss - memory.shared) / 2**20:.0f}")
    return f"supervisor {each[0]} MiB, workers and uploader {', '.join(each[1:])} MiB without shared memory"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--shard", type=int, default=10_000)
    parser.add_argument("--kind", choices=("tar", "zip"), default="tar")
    parser.add_argument("--farm", type=int, default=0, metavar="N")
    given = parser.parse_args()
    if given.members:
        shards(given.members, given.shard, given.kind)
    if given.farm:
        through_a_farm(given.farm, given.shard, given.kind)
