"""How the farm scales: images a second with 1, 2, 4, ... workers, and what the supervisor pays for each.

Several client processes hand over, so that no single one of them is what is measured. Part of `luna-farm
bench --scale`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from luna_farm.cli import terminal
from luna_farm.cli.bench_view import table
from luna_farm.cli.images import Images, natural, noisy
from luna_farm.cli.measure import environment
from luna_farm.cli.trial_farm import own_farm, wait_ready
from luna_farm_client import FarmClient, SaveImage, SaveRequest

CLIENTS = 4
SECONDS = 2.0
HUGE = 8192
SMALL = 64
"""Sides of the samples that show what the farm itself costs."""
AHEAD = 32
"""Jobs that each client has open at most."""
Image = NDArray[np.uint8]


def steps(most: int | None = None) -> list[int]:
    """Return the numbers of workers to measure: powers of two up to the processors of this machine."""
    most = most or os.cpu_count() or 1
    return [2**n for n in range(most.bit_length()) if 2**n <= most]


def run(args: argparse.Namespace, chosen: Images) -> int:
    """Measure and print. Returns the exit code."""
    images = [noisy(sample) for sample in chosen.pixels]
    groups = {"large": images, "small": [image[:SMALL, :SMALL].copy() for image in images]}
    counts = steps()
    shown, task = terminal.progress("Measuring", len(groups) * len(counts) + 1)
    rows: list[dict[str, Any]] = []
    with shown, tempfile.TemporaryDirectory(prefix="luna-scale-", dir=args.folder) as folder:
        for workers in counts:
            for group, samples in groups.items():
                row = _rate(samples, Path(folder) / f"{group}-{workers}", workers)
                rows.append({"workers": workers, "images": group, **row})
                shown.advance(task)
        huge_s = one_large(Path(folder) / "huge", counts[-1])
        shown.advance(task)
    for row in rows:
        single = next(r for r in rows if r["images"] == row["images"])["images_per_s"]
        row["efficiency"] = row["images_per_s"] / (single * row["workers"])
    result = {"environment": environment(), "rows": rows, "huge_s": huge_s}
    if args.json:
        terminal.print_json(result)
    else:
        terminal.console().print(_view(result))
    return 0


def _view(result: dict[str, Any]) -> RenderableType:
    machine = result["environment"]
    title = f"{machine['machine']}, {machine['cpus']} CPUs, {CLIENTS} clients"
    columns = ("images", "workers", "images/s", "efficiency", "supervisor ms", "worker ms an image")
    shown = table(title, columns, 1)
    for row in result["rows"]:
        rate, share = f"{row['images_per_s']:,.0f}", f"{row['efficiency']:.0%}"
        costs = (f"{row['supervisor_ms']:.2f}", f"{row['worker_ms']:.2f}")
        shown.add_row(row["images"], str(row["workers"]), rate, share, *costs)
    text = f"One image of {HUGE}x{HUGE}, submit to saved: {result['huge_s'] * 1e3:.0f} ms"
    return Group(shown, Text(text))


def _rate(images: list[Image], folder: Path, workers: int) -> dict[str, float]:
    """Return images a second, and milliseconds of processor time an image of supervisor and workers."""
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    with own_farm(folder, workers) as (launched, farm):
        wait_ready(farm, workers, 0.0)
        token = (folder / "state" / "token").read_text("utf-8").strip()
        address = (launched.host, launched.port, token)
        before = _processor_ms(launched.pid)
        arguments = [(address, images, str(folder / f"out-{n}")) for n in range(CLIENTS)]
        with context.Pool(CLIENTS) as clients:
            rates = clients.starmap(_hand_over, arguments)
        after = _processor_ms(launched.pid)
        done = farm.status()["totals"]["images_saved"]
    spent = [(now - then) / done for then, now in zip(before, after, strict=True)]
    return {"images_per_s": sum(rates), "supervisor_ms": spent[0], "worker_ms": spent[1]}


def _hand_over(address: tuple[str, int, str], images: list[Image], folder: str) -> float:
    """Hand over for SECONDS (after a warm-up), wait for what is open, and return saved images a second."""
    with FarmClient(*address, timeout=120.0) as farm:
        _for(farm, images, folder, SECONDS / 4)
        started = time.perf_counter()
        count = _for(farm, images, folder, SECONDS)
        return count / (time.perf_counter() - started)


def _for(farm: FarmClient, images: list[Image], folder: str, seconds: float) -> int:
    until = time.perf_counter() + seconds
    open_jobs: list[str] = []
    count = 0
    for sample in _forever(images):
        if time.perf_counter() > until:
            break
        request = SaveRequest([SaveImage(sample)], output_dir=folder, filename=f"{os.getpid()}-%counter%")
        open_jobs.append(farm.submit(request).job_id)
        count += 1
        if len(open_jobs) > AHEAD:
            farm.wait(open_jobs.pop(0))
    for job_id in open_jobs:
        farm.wait(job_id)
    return count


def _forever(images: list[Image]) -> Iterator[Image]:
    while True:
        yield from images


def _processor_ms(pid: int) -> tuple[float, float]:
    """Milliseconds of processor time of the supervisor, and of its workers together."""
    process = psutil.Process(pid)
    own = process.cpu_times()
    children = [child.cpu_times() for child in process.children()]
    return (own.user + own.system) * 1e3, sum(times.user + times.system for times in children) * 1e3


def one_large(folder: Path, workers: int) -> float:
    """Return the seconds from submit to saved for one image of HUGE x HUGE, median of three."""
    sample = np.tile(natural(1024, 1), (HUGE // 1024, HUGE // 1024, 1))
    taken = []
    with own_farm(folder, workers) as (_, farm):
        wait_ready(farm, workers, 0.0)
        for _ in range(3):
            started = time.perf_counter()
            farm.wait(farm.submit(SaveRequest([SaveImage(sample)], output_dir=folder / "huge")).job_id)
            taken.append(time.perf_counter() - started)
    return median(taken)
