"""Real processes for tests of what survives them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from plain_process import ROOT

from luna_farm.storage import arena, arena_size, names, writer

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


@pytest.fixture(autouse=True)
def _forget() -> None:
    """No test starts with the names or the ways to publish that another one found."""
    names._numbers.clear()
    writer._ways.clear()


@pytest.fixture
def segment() -> Iterator[str]:
    """A name for shared memory that is gone after the test, whatever happens in it."""
    name = arena_size.fresh_names(".")[0]
    yield name
    arena.remove(name)
