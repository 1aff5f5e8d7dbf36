"""A farm to try things on: of its own, on free ports, with its state in a folder that goes afterwards.

It must never disturb a farm that runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from luna_farm.cli.launch import Launched
    from luna_farm_client import FarmClient

READY_WITHIN_S = 20.0


@contextmanager
def own_farm(folder: Path, workers: int, *more: str) -> Iterator[tuple[Launched, FarmClient]]:
    """Run a farm on free ports with its state in `folder`, and stop it at the end."""
    from luna_farm.cli.launch import launch
    from luna_farm_client import FarmClient

    state_dir = folder / "state"
    arguments = [
        "--port",
        "0",
        "--feed-port",
        "0",
        "--state-dir",
        str(state_dir),
        "--output-dir",
        str(folder),
    ]
    arguments += ["--min-workers", str(workers), "--max-workers", str(workers), *more]
    launched = launch(arguments, state_dir)
    token = (state_dir / "token").read_text("utf-8").strip()
    try:
        with FarmClient(launched.host, launched.port, token) as farm:
            yield launched, farm
            farm.shutdown()
    except BaseException:
        launched.process.terminate()
        raise
    finally:
        launched.process.wait()


def wait_ready(farm: FarmClient, workers: int, since_start_s: float) -> float:
    """Return the seconds from start until all workers can take an image."""
    started = time.monotonic()
    while time.monotonic() - started < READY_WITHIN_S:
        states = [worker["state"] for worker in farm.status()["workers"]]
        if len(states) >= workers and "starting" not in states:
            break
        time.sleep(0.02)
    return since_start_s + time.monotonic() - started
