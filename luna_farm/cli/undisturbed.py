"""What is left of the speed of a busy program while the farm saves for it at full rate.

The program is a loop of pure Python in the main thread of this process, which is also the farm's client: its
images are handed over before, then it loops until the last of them is saved. Measured in turns with the
same loop beside an idle farm. It must never count the handing over, which is measured as such.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from luna_farm.cli.measure import PILLOW_LEVEL, Pixels, handed_over, remove
from luna_farm.errors import FarmError

if TYPE_CHECKING:
    from luna_farm_client import FarmClient

ITERATIONS = 100_000
"""Between two looks at whether the farm is done: some milliseconds."""
ALONE_S = 0.25
HELD_LEVEL, HELD_IMAGES = 9, 2
"""What keeps each worker encoding while the queue is filled, so that it is full when the loop begins."""
ROOM = 0.75
"""Share of the farm's memory to fill: a submit must not wait until the queue drains."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of the loop: turns, seconds, and those seconds of them in which it had a processor."""

    iterations: int
    seconds: float
    running_s: float

    @property
    def speed(self) -> float:
        """Iterations a second."""
        return self.iterations / self.seconds

    @property
    def running(self) -> float:
        """Share of the time in which it had a processor; what is missing it waited for one."""
        return self.running_s / self.seconds


def workers_beside(cpus: int) -> int:
    """Return for how many workers the figure is meant: one less than processors, so that the loop has one."""
    return max(1, cpus - 1)


def filling(farm: FarmClient, images: Sequence[Pixels], workers: int, most: int) -> list[Pixels]:
    """Return up to `most` images, over and over the same, that fit into the farm's memory at once."""
    room = farm.status()["arena"]["bytes"] * ROOM / max(image.nbytes for image in images)
    count = max(1, min(most, int(room) - HELD_IMAGES * workers))
    return [images[number % len(images)] for number in range(count)]


def undisturbed(
    farm: FarmClient, images: Sequence[Pixels], folder: Path, workers: int, rounds: int
) -> dict[str, Any]:
    """Measure in turns, `rounds` times; each of the images is a job, the farm has `workers`.

    Returns medians over the rounds: `share` (of the speed beside an idle farm), `alone_per_s` and
    `beside_per_s` (iterations), `alone_running` and `beside_running` (share of the time in which the loop had
    a processor), `saved_per_s` (images while the loop ran); and `images`, `rounds`.
    """
    alone, beside, saved = [_alone()], [], []
    for _ in range(rounds):
        stretch, rate = _beside(farm, images, folder, workers)
        beside.append(stretch)
        saved.append(rate)
        alone.append(_alone())
    # Processors drift within seconds: each stretch against the mean of those right before and after it.
    around = [(before.speed + after.speed) / 2 for before, after in pairwise(alone)]
    return {
        "share": median(ours.speed / speed for ours, speed in zip(beside, around, strict=True)),
        "alone_per_s": median(stretch.speed for stretch in alone),
        "beside_per_s": median(stretch.speed for stretch in beside),
        "alone_running": median(stretch.running for stretch in alone),
        "beside_running": median(stretch.running for stretch in beside),
        "saved_per_s": median(saved),
        "images": len(images),
        "rounds": rounds,
    }


def loop(ended: Callable[[], bool]) -> Stretch:
    """Do what a program does that holds the interpreter all the time, until `ended()`, at least once."""
    total = turns = 0
    running, started = time.thread_time(), time.perf_counter()
    while turns == 0 or not ended():
        for number in range(ITERATIONS):
            total += number & 7
        turns += ITERATIONS
    return Stretch(turns, time.perf_counter() - started, time.thread_time() - running)


def _alone() -> Stretch:
    until = time.perf_counter() + ALONE_S
    return loop(lambda: time.perf_counter() >= until)


def _beside(farm: FarmClient, images: Sequence[Pixels], folder: Path, workers: int) -> tuple[Stretch, float]:
    """Fill the queue, then loop until all is saved. Returns the loop, and images saved a second meanwhile."""
    held = [
        handed_over(farm, images[0], folder, "held", HELD_LEVEL).job_id for _ in range(HELD_IMAGES * workers)
    ]
    jobs = [handed_over(farm, image, folder, "beside", PILLOW_LEVEL).job_id for image in images]
    farm.wait(held[-workers])  # the first of the last that are encoded at once: from now on the queue drains
    ended = threading.Event()
    # A thread that waits for an answer takes no part in the turns of the interpreter's lock.
    waiter = threading.Thread(target=_wait_for, args=(farm, jobs[-1], ended.set), daemon=True)
    waiter.start()
    open_images = farm.status()["queue"]["images"]
    stretch = loop(ended.is_set)
    waiter.join()
    for job in (*held, *jobs):
        remove(farm.wait(job).paths)
    return stretch, open_images / stretch.seconds


def _wait_for(farm: FarmClient, job: str, then: Callable[[], None]) -> None:
    try:
        with suppress(FarmError):  # the next call raises it too
            farm.wait(job)
    finally:
        then()
