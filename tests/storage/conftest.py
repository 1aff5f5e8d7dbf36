"""Real processes for tests of what survives them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import luna_farm
from luna_farm.storage import arena, arena_size

ROOT = str(Path(luna_farm.__file__).parents[1])
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def python() -> Run:
    """`python(code, *args, before=[...], **environ)`: run code in a plain process, not one of
    multiprocessing."""

    def run(
        code: str, *args: str, before: tuple[str, ...] = (), **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, sys.executable, "-W", "error", "-c", code, *args],
            env={**os.environ, "PYTHONPATH": ROOT, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def segment() -> Iterator[str]:
    """A name for shared memory that is gone after the test, whatever happens in it."""
    name = arena_size.fresh_names(".")[0]
    yield name
    arena.remove(name)


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
