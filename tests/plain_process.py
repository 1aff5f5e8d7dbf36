"""A process that is no farm, and not one of multiprocessing: for what only another process can show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import luna_farm

ROOT = str(Path(luna_farm.__file__).parents[1])


def start_python(code: str, *args: str) -> subprocess.Popen[str]:
    """Run `code` with pipes for its input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
