"""Many small requests in one call beside one by one: time and CPU of client and supervisor.

    python3 scripts/bench together [--requests 200] [--rounds 5]

A real farm, images of 64x64x3, in turns; the least of all rounds counts. Must never be a test: figures
differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))


def main() -> None:
    """Measure and print."""
    from luna_farm_client import Receipt, SaveImage, SaveRequest

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    requests = [SaveRequest([SaveImage(pixels)], filename=f"s{n}") for n in range(given.requests)]
    with tempfile.TemporaryDirectory() as folder:
        farm = import_module("farm_process").FarmProcess(Path(folder)).start()
        try:
            with farm.client() as client:
                supervisor = psutil.Process(farm.pid)
                ways: dict[str, Callable[[], list[Receipt]]] = {
                    "one by one": lambda: [client.submit(request) for request in requests],
                    "submit_many": lambda: client.submit_many(requests),
                }
                least = {way: [float("inf")] * 3 for way in ways}
                for _ in range(given.rounds):
                    for way, hand_over in ways.items():
                        cpu, started = supervisor.cpu_times(), time.perf_counter()
                        mine = time.process_time()
                        receipts = hand_over()
                        took = time.perf_counter() - started
                        mine = time.process_time() - mine
                        after = supervisor.cpu_times()
                        theirs = after.user + after.system - cpu.user - cpu.system
                        each = [1e6 * value / len(requests) for value in (took, mine, theirs)]
                        least[way] = list(map(min, least[way], each))
                        for receipt in receipts:
                            client.wait(receipt, 60)
        finally:
            farm.stop()
    print(f"{given.requests} requests of one image of 64x64; us a request, least of {given.rounds} rounds")
    for way, (took, mine, theirs) in least.items():
        print(f"{way:<12} time {took:7.0f}   CPU of the client {mine:6.0f}   of the supervisor {theirs:6.0f}")
    ratios = [a / max(b, 1e-9) for a, b in zip(least["one by one"], least["submit_many"], strict=True)]
    print("ratio        time {:7.1f}   CPU of the client {:6.1f}   of the supervisor {:6.1f}".format(*ratios))
