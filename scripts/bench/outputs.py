"""Several files of one image beside the sum of their encodings: CPU time of one worker.

    python3 scripts/bench outputs [--repeat 15]

Each set of outputs is made of one image of 1024x1024x3 as a worker makes it (gate, resize, encode), and each
of its files alone from pixels of its size. Least of all repeats, in turns. Must never be a test: figures
differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

SIDE = 1024
SETS = (
    "png, webp 1600 web, thumbnail 256",
    "png, webp 512 web, thumbnail 256",
    "png, jpeg web q85, thumbnail 256",
    "jpeg, jpeg 512 web, jpeg 256 thumb",
    "png l9, webp 800 web, thumbnail 256",
)


def best(works: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Least CPU milliseconds of each, taken in turns."""
    took = dict.fromkeys(works, float("inf"))
    for _ in range(repeat):
        for name, work in works.items():
            started = time.process_time()
            work()
            took[name] = min(took[name], (time.process_time() - started) * 1e3)
    return took


def main() -> None:
    """Measure and print."""
    from luna_farm.core.messages import ImageTask, SaveOptions
    from luna_farm.core.outputs import checked, placed
    from luna_farm.imaging import resize
    from luna_farm.imaging.encoders import encode
    from luna_farm.imaging.metadata import embed
    from luna_farm.worker import pipeline

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=15)
    given = parser.parse_args()
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    waves = [128 + 60 * np.sin(rows / (40 + 9 * c)) + 50 * np.cos(columns / (57 - 7 * c)) for c in range(3)]
    grain = np.random.default_rng(1).normal(0, 2, (SIDE, SIDE, 3))
    pixels = np.clip(np.stack(waves, axis=2) + grain, 0, 255).astype(np.uint8)
    options = SaveOptions("/out")
    print(f"{'outputs':<40} {'together':>9} {'sum of encodings':>17} {'ratio':>6}")
    for text in SETS:
        outputs = checked(text)
        paths = [f"/out/{n}" for n in range(len(outputs))]
        task = ImageTask(
            "job", 0, "", outputs[0].format, 0, 1, paths[0], "", 0, SIDE, SIDE, 3,
            outputs=placed(outputs, paths),
        )  # fmt: skip
        embedded = embed(options, task)
        works: dict[str, Callable[[], object]] = {
            "together": partial(pipeline.encoded, pixels, task, options)
        }
        for number, output in enumerate(outputs):
            small = resize.within(pixels, output.max_side) if output.max_side else pixels
            own = options.of_output(output)
            works[str(number)] = partial(encode, small, output.format, own, embedded)
        took = best(works, given.repeat)
        alone = sum(ms for name, ms in took.items() if name != "together")
        print(f"{text:<40} {took['together']:>6.1f} ms {alone:>14.1f} ms {took['together'] / alone:>6.2f}")
