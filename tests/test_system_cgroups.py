"""Limits of control groups: the smallest on the way up, of either version."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from luna_farm.system_cgroups import memory_limit

MEMORY_V1 = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """A /proc/self; the file systems of both versions are mounted below `tmp_path`."""
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def mounted(process: Path, *lines: str, group: str) -> None:
    (process / "mountinfo").write_text("22 1 0:21 / /proc rw - proc proc rw\n" + "\n".join(lines) + "\n")
    (process / "cgroup").write_text(group)


def limited(folder: Path, name: str, value: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{value}\n")


def v2(place: Path, root: str = "/") -> str:
    escaped = str(place).replace(" ", "\\040")
    return f"41 31 0:38 {root} {escaped} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"


def v1(place: Path, root: str = "/", controllers: str = "rw,memory") -> str:
    return f"35 31 0:32 {root} {place} rw,relatime - cgroup cgroup {controllers}"


@pytest.mark.parametrize(
    ("service", "slice_", "expected"), [("500", "900", 500), ("900", "500", 500), ("max", "max", None)]
)
def test_the_smallest_on_the_way_up_counts(
    service: str, slice_: str, expected: int | None, process: Path, tmp_path: Path
) -> None:
    place = tmp_path / "a cgroup"
    limited(place / "user.slice", "memory.max", slice_)
    limited(place / "user.slice" / "farm.service", "memory.max", service)
    limited(place / "user.slice" / "other.service", "memory.max", "1")
    mounted(process, v2(place), group="0::/user.slice/farm.service\n")
    found = memory_limit(process)
    assert (found and found[0]) == expected
    if found:
        assert Path(found[1]).read_text() == f"{expected}\n"


def test_memory_high_counts_too(process: Path, tmp_path: Path) -> None:
    limited(tmp_path / "farm.service", "memory.max", "900")
    limited(tmp_path / "farm.service", "memory.high", "800")
    mounted(process, v2(tmp_path), group="0::/farm.service\n")
    assert memory_limit(process) == (800, str(tmp_path / "farm.service" / "memory.high"))


def test_version_1_and_both_at_once(process: Path, tmp_path: Path) -> None:
    limited(tmp_path / "v1" / "docker", "memory.limit_in_bytes", "700")
    limited(tmp_path / "cpu" / "docker", "memory.limit_in_bytes", "1")
    limited(tmp_path / "v2", "memory.max", "max")
    mounts = (v1(tmp_path / "v1"), v1(tmp_path / "cpu", controllers="rw,cpu"), v2(tmp_path / "v2"))
    mounted(process, *mounts, group="4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    assert memory_limit(process) == (700, str(tmp_path / "v1" / "docker" / "memory.limit_in_bytes"))


def test_a_container_sees_its_own_group_as_the_root_of_the_mount(process: Path, tmp_path: Path) -> None:
    limited(tmp_path / "v1", "memory.limit_in_bytes", "600")
    mounted(process, v1(tmp_path / "v1", root="/docker/abc"), group="4:memory:/docker/abc\n")
    assert memory_limit(process) == (600, str(tmp_path / "v1" / "memory.limit_in_bytes"))
    mounted(process, v1(tmp_path / "v1", root="/elsewhere"), group="4:memory:/docker/abc\n")
    assert memory_limit(process) == (600, str(tmp_path / "v1" / "memory.limit_in_bytes"))
    mounted(process, v1(tmp_path / "v1"), group="4:memory:/../../etc\n")
    assert memory_limit(process) == (600, str(tmp_path / "v1" / "memory.limit_in_bytes"))


def test_without_any_of_it_there_is_no_limit(process: Path, tmp_path: Path) -> None:
    assert memory_limit(tmp_path / "no proc") is None
    mounted(process, group="")
    assert memory_limit(process) is None


def test_a_real_farm_in_a_small_group_stays_within_it(tmp_path: Path) -> None:
    """Asked for more shared memory than the group allows, it takes less, says so, and is not killed."""
    if os.name == "nt" or os.geteuid() != 0 or not os.access(MEMORY_V1 / "memory.limit_in_bytes", os.W_OK):
        pytest.skip("NOT TESTED: a real memory limit needs root and a writable cgroup of version 1")
    group = MEMORY_V1 / f"luna-test-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(400 << 20))
        where = f"--state-dir {tmp_path / 'state'} --port 0 --feed-port off --arena-bytes 2GiB"
        luna = f"{sys.executable} -m luna_farm"
        script = f"""
            echo $$ > {group}/cgroup.procs
            {luna} start --detach {where} || exit 1
            {sys.executable} -c 'import numpy; numpy.save("a.npy", numpy.zeros((40, 1024, 1024, 3), "u1"))'
            {luna} save a.npy --state-dir {tmp_path / "state"} --output-dir out || exit 2
            {luna} stop --state-dir {tmp_path / "state"}
        """
        done = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "no room for 2048.0 MiB, the arena has 200.0 MiB" in done.stderr
        assert len(list((tmp_path / "out").iterdir())) == 40
    finally:
        group.rmdir()
