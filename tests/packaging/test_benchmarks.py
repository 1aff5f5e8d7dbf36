"""The front command of the benchmarks: it lists them all, and what it lists runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRONT = [sys.executable, str(ROOT / "scripts" / "bench"), "--here"]


def run(*arguments):
    return subprocess.run([*FRONT, *arguments], capture_output=True, text=True, timeout=240)


def test_the_help_lists_each_with_one_line():
    out = run("--help").stdout
    listed = {
        line.split()[0]: line.split(None, 1)[1] for line in out.partition("benchmarks:\n")[2].splitlines()
    }
    assert {"farm", "formats", "handover", "tensors", "trace"} <= set(listed)
    assert all(len(line) > 20 for line in listed.values())


@pytest.mark.parametrize(
    "name",
    sorted(
        file.stem for file in (ROOT / "scripts" / "bench").glob("[a-z]*.py") if "def main" in file.read_text()
    ),
)
def test_each_shows_its_help_or_says_what_to_install(name):
    done = run(name, "--help")
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert "-m pip install" in done.stderr
    else:
        assert "usage:" in done.stdout


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("trace", ["--repeat", "2", "--side", "64"], "`submit` returns"),
        ("formats", ["--help"], "--seconds"),
        ("handover", ["--help"], "--repeat"),
        ("comfyui", ["--help"], "--rounds"),
    ],
)
def test_a_benchmark_runs(name, options, said):
    done = run(name, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert said in done.stdout
