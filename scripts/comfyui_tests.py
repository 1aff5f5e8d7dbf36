#!/usr/bin/env python3
"""The tests against a real ComfyUI and its real frontend: python3 scripts/comfyui_tests.py [pytest arguments]

    COMFYUI_DIR=~/ComfyUI COMFYUI_PYTHON=~/ComfyUI/venv/bin/python python3 scripts/comfyui_tests.py
    ... --shots FOLDER      keep the browser's screenshots there, for a person to look at

Sets up `.venv` like scripts/test.py, with Playwright for Python on top, checks that ComfyUI's Python has what
requirements.txt lists, and runs tests/comfyui. It must never write into that ComfyUI: the tests use a
temporary base directory, and it must never pass over missing means silently.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bootstrap
from bootstrap import PYTHON, ROOT, TORCH, StepFailed, Steps

IMPORTS = "import aiohttp, msgpack, numpy, PIL, psutil, websockets, platformdirs, torch"


def located() -> tuple[Path, Path]:
    """Return ComfyUI's folder and its Python, or leave with what to set."""
    folder, python = os.environ.get("COMFYUI_DIR"), os.environ.get("COMFYUI_PYTHON")
    if not folder or not python:
        sys.exit(
            "Set COMFYUI_DIR to a ComfyUI (the folder with main.py) and COMFYUI_PYTHON to its Python.\n"
            "ComfyUI runs without a GPU; docs/comfyui.md says how to set one up for these tests."
        )
    if not (Path(folder) / "main.py").is_file():
        sys.exit(f"COMFYUI_DIR={folder} has no main.py, so it is no ComfyUI.")
    done = subprocess.run([python, "-c", IMPORTS], capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1]
        install = f"{python} -m pip install -r {ROOT}/requirements.txt"
        sys.exit(f"ComfyUI's Python lacks something ({why}). Type: {install}")
    return Path(folder), Path(python)


def main() -> int:
    """Prepare, then hand over to pytest. Returns its exit code."""
    bootstrap.check_python()
    located()
    arguments = sys.argv[1:]
    environ = dict(os.environ)
    if "--shots" in arguments:
        at = arguments.index("--shots")
        shots = Path(arguments[at + 1]).absolute()
        shots.mkdir(parents=True, exist_ok=True)
        environ["LUNA_FARM_TEST_SHOTS"] = str(shots)
        arguments = arguments[:at] + arguments[at + 2 :]
    try:
        bootstrap.prepare("dev", [TORCH])
        if subprocess.run([PYTHON, "-c", "import playwright"], capture_output=True).returncode:
            Steps(1).run("Playwright for Python", [PYTHON, "-m", "pip", "install", "playwright"])
    except StepFailed as error:
        print(f"{error.output}\n{error}. Nothing was tested.", file=sys.stderr)
        return 1
    command: list[str | Path] = [PYTHON, "-m", "pytest", "tests/comfyui", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ).returncode


if __name__ == "__main__":
    sys.exit(main())
