"""Processor time of one image in client, supervisor and workers, in turns with another checkout.

    python3 scripts/bench processor --against CHECKOUT [--side 64] [--images 1000] [--rounds 4] [--workflow]
        [--set catalogue=false --set thumbnail_bytes=0]

CHECKOUT is another working tree of this project whose kernel is built (`python setup.py build_ext
--inplace`). Each side starts a farm of its own with two workers on a disk in memory and hands images over one
by one, a job each; `--set` gives that of this checkout a setting, to leave out what the other has not.
Figures are microseconds of processor time, the least and the median of the rounds; ratios are those of
CHECKOUT to this one: above 1, this one takes less. Linux only: the scheduler counts. The last line is the
time on the clock, of an image in a row of many; on a busy machine it says little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("client", "supervisor", "workers", "others", "all", "on the clock")
TOGETHER = 400
"""Jobs that are open at a time."""
SETTLED_S = 0.3
WORKERS = 2


def used_us(pids: Iterable[int]) -> float:
    """Return the processor time that all threads of some processes have had."""
    threads = (f"/proc/{pid}/task/{thread}" for pid in pids for thread in os.listdir(f"/proc/{pid}/task"))
    return sum(int(Path(thread, "schedstat").read_text().split()[0]) for thread in threads) / 1e3


def picture(side: int) -> Any:
    """Return smooth waves with noise, [side, side, 3]."""
    y, x = np.mgrid[0:side, 0:side]
    noise = np.random.default_rng(3).normal(0, 4, (side, side, 3))
    waves = (np.sin(x / 37) + np.cos(y / 53) + 2) * 60
    return np.clip(waves[..., None] + noise, 0, 255).astype(np.uint8)


def workflow(nodes: int = 40) -> dict[str, Any]:
    """Return a prompt and a workflow of about 20 KB."""
    prompt = {str(n): {"class_type": "Note", "inputs": {"text": f"node {n} " * 6}} for n in range(nodes)}
    drawn = [
        {"id": n, "type": "Note", "pos": [n, n], "widgets_values": [f"text {n} " * 40]} for n in range(nodes)
    ]
    return {"prompt": prompt, "extra_pnginfo": {"workflow": {"nodes": drawn, "links": []}}}


@contextmanager
def running(folder: Path) -> Iterator[tuple[Any, int]]:
    """Start a farm of the code that is imported here, with two workers; yield a client and its process id."""
    from luna_farm_client import FarmClient

    os.environ["LUNA_FARM_STATE_DIR"] = str(folder / "state")
    command = [sys.executable, *["-S"] * sys.flags.no_site, "-m", "luna_farm", "start"]
    command += ["--port", "0", "--feed-port", "0", "--output-dir", str(folder / "out")]
    command += ["--min-workers", str(WORKERS), "--max-workers", str(WORKERS)]
    farm = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        endpoint = folder / "state" / "endpoint.json"
        while not endpoint.exists():
            assert farm.poll() is None, "the farm did not start"
            time.sleep(0.05)
        os.environ["LUNA_FARM_PORT"] = str(json.loads(endpoint.read_text())["port"])
        with FarmClient() as client:
            yield client, farm.pid
    finally:
        farm.terminate()
        farm.wait()


def measure_one(side: int, images: int, with_workflow: bool) -> dict[str, float]:
    """Start a farm of the code that is imported here, and measure it."""
    documents = workflow() if with_workflow else {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, running(Path(folder)) as (client, pid):
        return used_by_images(client, pid, picture(side), images, documents)


def used_by_images(
    client: Any, pid: int, pixels: Any, images: int, documents: Mapping[str, Any]
) -> dict[str, float]:
    """Save images with a farm; return microseconds of processor time for one, by part."""
    from luna_farm_client import SaveImage, SaveRequest

    def save(stem: str, count: int) -> None:
        for first in range(0, count, TOGETHER):
            jobs = [
                client.submit(SaveRequest([SaveImage(pixels)], filename=f"{stem}{n}", **documents)).job_id
                for n in range(first, min(first + TOGETHER, count))
            ]
            for job in jobs:
                client.wait(job)

    save("w", max(100, images // 10))
    workers: list[int] = []
    while len(workers) < WORKERS:  # one may still be starting: its time would be that of "others"
        time.sleep(SETTLED_S)
        workers = [worker["pid"] for worker in client.status()["workers"] if worker["state"] != "starting"]
    children = [child.pid for child in psutil.Process(pid).children(recursive=True)]
    others = [child for child in children if child not in workers]
    processes = {"supervisor": [pid], "workers": workers, "others": others}
    before = {part: used_us(pids) for part, pids in processes.items()}
    started, began = time.process_time(), time.perf_counter()
    save("a", images)
    took_us = (time.perf_counter() - began) * 1e6
    found = {"client": (time.process_time() - started) * 1e6}
    found |= {part: used_us(pids) - before[part] for part, pids in processes.items()}
    found["all"] = sum(found.values())
    found["on the clock"] = took_us
    return {part: value / images for part, value in found.items()}


def measured(checkout: Path, options: list[str], settings: Mapping[str, str]) -> dict[str, float]:
    """Measure the code of a checkout, in a process that imports it."""
    with tempfile.TemporaryDirectory() as packages:
        Path(packages, "luna_farm").symlink_to(checkout / "luna_farm")
        Path(packages, "luna_farm_client").symlink_to(checkout / "client")
        command = [sys.executable, __file__, "--one", *options]
        environ = {**os.environ, **settings, "PYTHONPATH": packages}
        done = subprocess.run(command, env=environ, cwd=packages, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure both in turns and print what each part of an image takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", type=Path, default=ROOT, help="another working tree, built")
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--workflow", action="store_true", help="with a prompt and a workflow of 20 KB")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of this side's farm"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure_one(given.side, given.images, given.workflow)))
        return
    options = ["--side", str(given.side), "--images", str(given.images), *["--workflow"] * given.workflow]
    sides = {"other": given.against.resolve(), "this": ROOT}
    given_here = (setting.partition("=") for setting in given.set)
    settings = {"this": {f"LUNA_FARM_{name.upper()}": value for name, _, value in given_here}, "other": {}}
    rows: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(given.rounds):
        # By turns first: memory that a virtual machine has not had before costs the one that asks for it.
        for side in sorted(sides, reverse=number % 2 == 1):
            rows[side].append(measured(sides[side], options, settings[side]))
    documents = ", with a workflow" if given.workflow else ""
    documents += "".join(f", this with {setting}" for setting in given.set)
    print(f"{given.images} images of {given.side}x{given.side}{documents}, us of processor time an image")
    print(f"{'':<14}{'least':>10}{'':>10}{'':>8}{'median':>10}")
    print(f"{'':<14}" + f"{'other':>10}{'this':>10}{'ratio':>8}" * 2)
    for part in PARTS:
        cells = ""
        for middle in (min, statistics.median):
            other, this = (middle([row[part] for row in rows[side]]) for side in sides)
            cells += f"{other:>10.0f}{this:>10.0f}{other / this if this else 0:>8.2f}"
        print(f"{part:<14}{cells}")


if __name__ == "__main__":
    main()
