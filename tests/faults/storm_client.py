"""A client of the storm, as a process that may be killed: hands over images and notes each receipt.

    python storm_client.py PORT STATE_DIR OUT NOTES FIRST

Each image has a number of its own in blocks that JPEG and WebP keep. A receipt is noted in one write, so that
a kill leaves the whole line or nothing.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from running_farm import answers

from luna_farm_client import FarmClient, SaveImage, SaveRequest

BLOCK, BITS, SIDE = 8, 32, 8
FORMATS = ("png", "png", "jpeg", "webp")
AHEAD = 40
"""Jobs that a client hands over before it waits for the oldest: enough that each kill hits some, and few
enough that a machine on which clients get more processor time than workers is not left with thousands."""
_noise = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def numbered(number: int, flat: bool) -> NDArray[np.uint8]:
    """An image with its number in 32 blocks, noise below them. `flat`: none, so that the gate rejects it."""
    pixels = np.full((64, 64, 3), 128, np.uint8) if flat else np.roll(_noise, number, axis=0)
    for bit in range(BITS):
        top, left = BLOCK * (bit // SIDE), BLOCK * (bit % SIDE)
        pixels[top : top + BLOCK, left : left + BLOCK] = 255 * (number >> bit & 1)
    return pixels


def number_in(path: Path) -> int | None:
    """The number of a file; None if it is damaged, or another image than that."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
    except (OSError, SyntaxError, ValueError):
        return None
    if pixels.shape != (64, 64, 3):
        return None
    number = 0
    for bit in range(BITS):
        top, left = BLOCK * (bit // SIDE), BLOCK * (bit % SIDE)
        number |= int(pixels[top + 2 : top + 6, left + 2 : left + 6].mean() > 127) << bit
    whole = min(np.abs(pixels - numbered(number, flat)).mean() for flat in (False, True))
    return number if whole < (1 if path.suffix == ".png" else 40) else None


def main() -> None:
    """Hand over until killed."""
    port, state, out, notes, first = sys.argv[1:]
    client = FarmClient("127.0.0.1", int(port), timeout=300.0, restart_s=120.0)
    client.endpoint = dataclasses.replace(client.endpoint, state_dir=Path(state))
    answers(client, lambda client: client.ping())  # between two supervisors there may be none
    chance, number = random.Random(int(first)), int(first)
    ahead: collections.deque[str] = collections.deque()
    log = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while True:
        count = chance.choice((1, 1, 2, 3))
        numbers = list(range(number, number + count))
        number += count
        images = [
            SaveImage(numbered(n, chance.random() < 0.2), affix=f"I{i}", format=chance.choice(FORMATS))
            for i, n in enumerate(numbers)
        ]
        receipt = client.submit(
            SaveRequest(
                images,
                filename="a",
                output_dir=out,
                durable=chance.random() < 0.3,
                quality_gate=chance.choice(("disabled", "edge_density")),
                on_reject="discard",
                lossless_webp=chance.random() < 0.5,
                metadata={"prompt": "a storm" * chance.randrange(200)},
            )
        )
        line = json.dumps({"job": receipt.job_id, "numbers": numbers})
        os.write(log, line.encode() + b"\n")
        ahead.append(receipt.job_id)
        if len(ahead) > AHEAD:
            oldest = ahead.popleft()
            answers(client, lambda client: client.wait(oldest, 300.0), 300.0)  # noqa: B023


if __name__ == "__main__":
    main()
