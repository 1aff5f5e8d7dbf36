"""What all tests share: no property depends on speed, and one farm serves all that leave it as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from farm_process import FarmProcess

# A machine that is busy with something else makes no property false.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


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
