"""What the fault tests share: real farms, small disks, and a place for the figures that docs/reliability.md
shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hung_folder import Hung
from measured import LONG, Figures, note
from mounting import mounted
from running_farm import RunningFarm, Start

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("faults")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note of each test how it went, so that scripts/faults.py knows which figures stand."""
    report = yield
    if item.path.is_relative_to(HERE) and (report.when == "call" or not report.passed):
        note({"test": item.nodeid, "outcome": report.outcome})
    return report


@pytest.fixture
def long() -> bool:
    """Whether the long form was asked for."""
    return LONG


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.node.nodeid)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Start]:
    """`farm(max_workers=2, LUNA_FARM_CRASH="...")` starts a real farm; all are ended after the test."""
    farms: list[RunningFarm] = []

    def start(home: str = "farm", *, started: bool = True, **given: Any) -> RunningFarm:
        (tmp_path / home).mkdir()
        farms.append(RunningFarm(tmp_path / home, **given))
        return farms[-1].start() if started else farms[-1]

    yield start
    for one in farms:
        one.destroy()


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`tmpfs("size=1m")`: a small disk in memory."""
    folder = tmp_path / "disk"
    yield lambda options: mounted(folder, "-t", "tmpfs", "-o", options, "tmpfs")
    subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`ext4(4, inodes=32)`: a disk of so many MiB in a file."""
    folder, image = tmp_path / "ext4", tmp_path / "image"

    def make(mebibytes: int, inodes: int = 64) -> Path:
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("NOT TESTED: mkfs.ext4 is not installed")
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-N", str(inodes), image], check=True)
        return mounted(folder, "-o", "loop", str(image))

    yield make
    subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


@pytest.fixture
def hung_folder(tmp_path: Path) -> Iterator[Hung]:
    """A network folder whose server never answers: a process that looks at it sleeps until `let_go`."""
    hung = Hung(tmp_path / "net")
    yield hung
    hung.let_go()
