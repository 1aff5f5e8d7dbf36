"""Disks of their own for tests, where the machine lets root mount them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def mounted(folder: Path, *arguments: str) -> Path:
    """Mount something at `folder`, or skip loudly where that is not allowed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("NOT TESTED: a disk of its own needs Linux and root")
    folder.mkdir()
    done = subprocess.run(["mount", *arguments, str(folder)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: this machine does not let its root mount: {done.stderr.strip()}")
    return folder
