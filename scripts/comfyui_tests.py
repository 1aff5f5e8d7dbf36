#!/usr/bin/env python3
"""The tests against real ComfyUIs: python3 scripts/comfyui_tests.py [pytest arguments]

    COMFYUI_DIR=~/ComfyUI COMFYUI_PYTHON=~/ComfyUI/venv/bin/python python3 scripts/comfyui_tests.py
    ... --on DIR,PYTHON[,FRONTEND]   instead of the variables, as often as there are combinations to test;
                                     FRONTEND: folder of a frontend (with index.html) other than the installed
    ... --shots FOLDER               keep the browser's screenshots there, for a person to look at
    ... --long                       a hundred prompts where the short form queues twelve

Sets up `.venv` like scripts/test.py, with Playwright for Python on top, checks that ComfyUI's Python has what
requirements.txt lists, runs tests/comfyui on each combination, with canvas and with Vue nodes, and prints the
table of docs/comfyui.md. It must never write into a ComfyUI: the tests use a temporary base directory. It
fetches nothing but Playwright, and never skips what is missing without saying so.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree  # of a file that pytest just wrote

import bootstrap
from bootstrap import PYTHON, ROOT, TORCH, StepFailed, Steps

IMPORTS = "import aiohttp, msgpack, numpy, PIL, psutil, websockets, platformdirs, torch"
FRONTEND = "import importlib.metadata as m; print(m.version('comfyui-frontend-package'))"
LONG_PROMPTS = "100"
TABLE = (
    "\n| ComfyUI | frontend | API | canvas nodes | Vue nodes | date |",
    "| --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Combination:
    """One ComfyUI with one frontend ("": the installed one)."""

    folder: str
    python: str
    frontend: str = ""

    def check(self) -> None:
        """Leave with what to do where it cannot be tested."""
        if not (Path(self.folder) / "main.py").is_file():
            sys.exit(f"{self.folder} has no main.py, so it is no ComfyUI.")
        if self.frontend and not (Path(self.frontend) / "index.html").is_file():
            sys.exit(f"{self.frontend} has no index.html, so it is no frontend.")
        done = subprocess.run([self.python, "-c", IMPORTS], capture_output=True, text=True)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1]
            install = f"{self.python} -m pip install -r {ROOT}/requirements.txt"
            sys.exit(f"ComfyUI's Python lacks something ({why}). Type: {install}")

    def versions(self) -> tuple[str, str]:
        """Return the versions of ComfyUI and of the frontend."""
        text = (Path(self.folder) / "comfyui_version.py").read_text("utf-8")
        known = re.search(r'__version__ = "([^"]+)"', text)
        if self.frontend:
            beside = Path(self.frontend).parents[1].glob("comfyui_frontend_package-*.dist-info")
            frontend = next((path.name.split("-")[1].removesuffix(".dist") for path in beside), self.frontend)
        else:
            done = subprocess.run([self.python, "-c", FRONTEND], capture_output=True, text=True)
            frontend = done.stdout.strip()
        return known[1] if known else "unknown", frontend


def combinations(given: list[str]) -> list[Combination]:
    """Return what is to be tested: of the command line, else of the environment."""
    if given:
        return [Combination(*one.split(",")) for one in given]
    folder, python = os.environ.get("COMFYUI_DIR"), os.environ.get("COMFYUI_PYTHON")
    if not folder or not python:
        sys.exit(
            "Set COMFYUI_DIR to a ComfyUI (the folder with main.py) and COMFYUI_PYTHON to its Python.\n"
            "ComfyUI runs without a GPU; docs/comfyui.md says how to set one up for these tests."
        )
    return [Combination(folder, python, os.environ.get("COMFYUI_FRONTEND", ""))]


def run(one: Combination, arguments: list[str], environ: dict[str, str]) -> tuple[int, str]:
    """Run the tests on one combination. Returns the exit code and a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command: list[str | Path] = [
            PYTHON,
            "-m",
            "pytest",
            "tests/comfyui",
            f"--junitxml={report}",
            *arguments,
        ]
        where = {"COMFYUI_DIR": one.folder, "COMFYUI_PYTHON": one.python, "COMFYUI_FRONTEND": one.frontend}
        code = subprocess.run(command, cwd=ROOT, env=environ | where).returncode
        counts = _counts(report) if report.is_file() else {}
    comfyui, frontend = one.versions()
    cells = [_cell(counts.get(part, Counter())) for part in ("api", "canvas", "vue")]
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return code, " | ".join([f"| {comfyui}", frontend, *cells, f"{today} |"])


def _counts(report: Path) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - written by pytest
        mode = re.search(r"[\[-](canvas|vue)[-\]]", case.get("name", ""))
        state = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        counts.setdefault(mode[1] if mode else "api", Counter())[state] += 1
    return counts


def _cell(counts: Counter[str]) -> str:
    wrong = counts["failure"] + counts["error"]
    told = [f"{counts['passed']} passed", f"{wrong} failed" if wrong else "0 failed"]
    return ", ".join([*told, f"{counts['skipped']} skipped"] if counts["skipped"] else told)


def main() -> int:
    """Prepare, then hand over to pytest for each combination. Returns the worst exit code."""
    bootstrap.check_python()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--on", action="append", default=[], metavar="DIR,PYTHON[,FRONTEND]")
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--long", action="store_true")
    options, arguments = parser.parse_known_args()
    chosen = combinations(options.on)
    for one in chosen:
        one.check()
    environ = dict(os.environ)
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
        environ["LUNA_FARM_TEST_SHOTS"] = str(options.shots.absolute())
    if options.long:
        environ["LUNA_FARM_TEST_PROMPTS"] = LONG_PROMPTS
    try:
        bootstrap.prepare("dev", [TORCH])
        if subprocess.run([PYTHON, "-c", "import playwright"], capture_output=True).returncode:
            Steps(1).run("Playwright for Python", [PYTHON, "-m", "pip", "install", "playwright"])
    except StepFailed as error:
        print(f"{error.output}\n{error}. Nothing was tested.", file=sys.stderr)
        return 1
    results = [run(one, arguments, environ) for one in chosen]
    print("\n".join([*TABLE, *(row for _, row in results)]))
    return max(code for code, _ in results)


if __name__ == "__main__":
    sys.exit(main())
