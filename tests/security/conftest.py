"""What the security tests share: real farms."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from real_farm import RealFarm

Start = Callable[..., RealFarm]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(allowed_dirs=..., LUNA_FARM_TOKEN=...)` starts a farm; all are ended after the test."""
    farms: list[RealFarm] = []

    def begin(**given: object) -> RealFarm:
        farms.append(RealFarm(tmp_path / f"farm-{len(farms)}", **given))
        return farms[-1].start()

    yield begin
    for farm in farms:
        if farm.process is not None and farm.process.poll() is None:
            farm.stop()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFarm]:
    """One farm for the tests of a module that leave it as it was."""
    running = RealFarm(tmp_path_factory.mktemp("farm")).start()
    yield running
    assert running.process is not None
    assert running.process.poll() is None, f"the farm died: {running.log()[-3000:]}"
    running.stop()
    assert "Traceback" not in running.said()
