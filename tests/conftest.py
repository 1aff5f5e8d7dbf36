"""What all tests share: no property depends on speed, and one farm serves all that leave it as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from farm_process import FarmProcess

# Processes inherit a signal that is ignored, as in a shell's background; Ctrl-C is tested there, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy with something else makes no property false.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

LONG = ("sinks", "faults", "integration", "security", "feed", "cli", "packaging")
"""Folders whose files take long. They come first, so that all processes of a run end at about one time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmProcess]:
    """A farm that is there already; for tests that save below folders of their own."""
    farm = FarmProcess(tmp_path_factory.mktemp("farm")).start()
    yield farm
    assert farm.stop() == 0


@pytest.fixture
def start_farm(tmp_path: Path) -> Iterator[Callable[..., FarmProcess]]:
    """`start_farm(max_workers=4)`: a farm for one test alone."""
    started: list[FarmProcess] = []

    def start(**settings: Any) -> FarmProcess:
        home = tmp_path / f"farm{len(started)}"
        home.mkdir()
        started.append(FarmProcess(home, **settings).start())
        return started[-1]

    yield start
    for farm in started:
        farm.stop()
        farm.destroy()


@pytest.fixture
def small_shm() -> Callable[[int], tuple[str, ...]]:
    """`before=small_shm(8)`: the command sees a /dev/shm of 8 MiB that no other process sees."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("NOT TESTED: a small /dev/shm needs Linux, root and unshare")
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("NOT TESTED: this container does not let its root mount a small /dev/shm")

    def before(mebibytes: int) -> tuple[str, ...]:
        mount = f'mount -t tmpfs -o size={mebibytes}m,mode=1777 tmpfs /dev/shm && exec "$@"'
        return ("unshare", "-m", "sh", "-c", mount, "sh")

    return before


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The mount points that there are, as the farm sees them."""
    from luna_farm.storage import mounts

    points = {"/", "/mnt/disk"}

    def device(path: str) -> int:
        return max(number for number, point in enumerate(sorted(points)) if mounts.below(path, point))

    monkeypatch.setattr(mounts, "_device", device)
    return points
