"""What the thumbnails of all images cost: a farm with them beside one without, in turns.

    python3 scripts/bench thumbnails [--rounds N] [--images N] [--workers N]

Each round hands the same images to both farms and waits until all are saved: `load` is the processor time of
supervisor and workers per image until then, which is what images per second depend on. `all` is the time with
what is done afterwards, when the farm is idle: most thumbnails are made then. The least of all rounds counts.
Linux only: it reads the scheduler's nanoseconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from luna_farm.cli.trial_farm import own_farm, wait_ready
from luna_farm_client import FarmClient, SaveImage, SaveRequest

SIDE = 1024
FORMATS = ("png", "jpeg", "webp")
SETTING = "LUNA_FARM_THUMBNAIL_BYTES"


def images(count: int) -> list[np.ndarray]:
    """Soft shapes with the noise of a sensor: what PNG takes longest for."""
    chance = np.random.default_rng(1)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    made = []
    for n in range(count):
        waves = np.stack([np.sin((n + 3) * y + c) * np.cos((n + 5) * x - c) for c in range(3)], axis=2)
        noise = chance.normal(0, 1.5, waves.shape)
        made.append(np.clip(128 + 100 * waves + noise, 0, 255).astype(np.uint8))
    return made


def cpu_s(farm: FarmClient) -> float:
    """Processor seconds of the supervisor and its workers so far."""
    status = farm.status()
    pids = [status["pid"], *(worker["pid"] for worker in status["workers"])]
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


Round = tuple[float, float, float]
"""Images per second, and processor milliseconds per image until all are saved, and until the farm is idle."""


def one_round(farm: FarmClient, pixels: list[np.ndarray], form: str, out: str) -> Round:
    """Save all images once."""
    before, started = cpu_s(farm), time.perf_counter()
    request = SaveRequest(
        [SaveImage(p, format=form, subdir=False) for p in pixels], output_dir=out, filename="a"
    )
    farm.wait(farm.submit(request))
    rate, load = len(pixels) / (time.perf_counter() - started), cpu_s(farm) - before
    done = load
    while True:
        time.sleep(0.2)
        now = cpu_s(farm) - before
        if now - done < 0.005:
            return rate, load * 1e3 / len(pixels), now * 1e3 / len(pixels)
        done = now


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    pixels = images(given.images)
    with ExitStack() as stack:
        farms = []
        for setting in ("0", "512MiB"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            os.environ[SETTING] = setting
            _, farm = stack.enter_context(own_farm(folder, given.workers))
            wait_ready(farm, given.workers, 0.0)
            farms.append((farm, str(folder)))
        print(f"{'format':<8}{'load without':>16}{'with':>10}{'ratio':>9}{'all':>11}{'images/s':>11}")
        for form in FORMATS:
            rounds: list[tuple[Round, Round]] = []
            for n in range(given.rounds):
                turn = farms if n % 2 else farms[::-1]
                both = {id(farm): one_round(farm, pixels, form, out) for farm, out in turn}
                rounds.append((both[id(farms[0][0])], both[id(farms[1][0])]))
            load, every = ([min(r[side][at] for r in rounds) for side in (0, 1)] for at in (1, 2))
            rate = statistics.median(a[0] / b[0] for a, b in rounds)
            print(
                f"{form:<8}{load[0]:>10.2f} ms/im{load[1]:>10.2f}{load[1] / load[0]:>8.3f}x"
                f"{every[1] / every[0]:>10.3f}x{rate:>10.3f}x"
            )
    return 0
