"""How the farm scales: images a second with 1, 2, 4, ... workers, and what the supervisor pays for each.

Several client processes hand over, so that no single one of them is what is measured. Part of `luna-farm
bench --scale`.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from luna_farm.cli.bench import own_farm, wait_ready
from luna_farm_client import FarmClient, SaveImage, SaveRequest

CLIENTS = 4
SMALL = 64
"""Sides of the pictures that show what the farm itself costs."""
AHEAD = 32
"""Jobs that each client has open at most."""
Picture = NDArray[np.uint8]


def steps(most: int | None = None) -> list[int]:
    """Return the numbers of workers to measure: powers of two up to the processors of this machine."""
    most = most or os.cpu_count() or 1
    return [2**n for n in range(most.bit_length()) if 2**n <= most]


def scale(
    pictures: list[Picture], folder: Path, seconds: float, tick: Callable[[], None]
) -> list[dict[str, Any]]:
    """Measure each number of workers with pictures of full size, and small ones with all workers."""
    rows: list[dict[str, Any]] = []
    for workers in steps():
        for group, images in (
            ("large", pictures),
            ("small", [picture[:SMALL, :SMALL].copy() for picture in pictures]),
        ):
            rate, supervisor_ms, worker_ms = _rate(images, folder / f"{group}-{workers}", workers, seconds)
            rows.append({"workers": workers, "pictures": group, "images_per_s": rate})
            rows[-1] |= {"supervisor_ms_per_image": supervisor_ms, "workers_ms_per_image": worker_ms}
            tick()
    for row in rows:
        single = next(r for r in rows if r["pictures"] == row["pictures"])["images_per_s"]
        row["efficiency"] = row["images_per_s"] / (single * row["workers"])
    return rows


def _rate(images: list[Picture], folder: Path, workers: int, seconds: float) -> tuple[float, float, float]:
    """Return images a second, and milliseconds of processor time an image of supervisor and of all
    workers."""
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    with own_farm(folder, workers) as (launched, farm):
        wait_ready(farm, workers, 0.0)
        token = (folder / "state" / "token").read_text("utf-8").strip()
        address = (launched.host, launched.port, token)
        before = _processor_s(launched.pid)
        arguments = [(address, images, str(folder / f"out-{n}"), seconds) for n in range(CLIENTS)]
        with context.Pool(CLIENTS) as clients:
            rates = clients.starmap(_hand_over, arguments)
        after = _processor_s(launched.pid)
        done = farm.status()["totals"]["images_saved"]
    return sum(rates), (after[0] - before[0]) / done * 1e3, (after[1] - before[1]) / done * 1e3


def _hand_over(address: tuple[str, int, str], images: list[Picture], folder: str, seconds: float) -> float:
    """Hand over for `seconds` (after a warm-up), wait for what is open, and return saved images a second."""
    with FarmClient(*address, timeout=120.0) as farm:
        _for(farm, images, folder, seconds / 4)
        started = time.perf_counter()
        count = _for(farm, images, folder, seconds)
        return count / (time.perf_counter() - started)


def _for(farm: FarmClient, images: list[Picture], folder: str, seconds: float) -> int:
    until = time.perf_counter() + seconds
    open_jobs: list[str] = []
    count = 0
    for picture in _forever(images):
        if time.perf_counter() > until:
            break
        request = SaveRequest([SaveImage(picture)], output_dir=folder, filename=f"{os.getpid()}-%counter%")
        open_jobs.append(farm.submit(request).job_id)
        count += 1
        if len(open_jobs) > AHEAD:
            farm.wait(open_jobs.pop(0))
    for job_id in open_jobs:
        farm.wait(job_id)
    return count


def _forever(images: list[Picture]) -> Iterator[Picture]:
    while True:
        yield from images


def _processor_s(pid: int) -> tuple[float, float]:
    """Seconds of processor time of the supervisor, and of its workers together."""
    process = psutil.Process(pid)
    own = process.cpu_times()
    children = [child.cpu_times() for child in process.children()]
    return own.user + own.system, sum(times.user + times.system for times in children)


def one_large(side: int, folder: Path, workers: int) -> float:
    """Return the seconds from submit to saved for one picture of `side` x `side`, median of three."""
    from luna_farm.cli.pictures import natural

    picture = np.tile(natural(1024, 1), (side // 1024, side // 1024, 1))
    taken = []
    with own_farm(folder, workers) as (_, farm):
        wait_ready(farm, workers, 0.0)
        for _ in range(3):
            started = time.perf_counter()
            farm.wait(farm.submit(SaveRequest([SaveImage(picture)], output_dir=folder / "large")).job_id)
            taken.append(time.perf_counter() - started)
    return median(taken)
