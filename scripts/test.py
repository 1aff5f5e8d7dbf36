#!/usr/bin/env python3
"""Everything that must hold, in one command that needs nothing installed: python3 scripts/test.py

Sets up `.venv`, then lint, format, types, import contracts, all tests with coverage, and short runs of the
sanitizer and fuzzers. Stops at nothing: every step runs, the summary says what failed and what was skipped,
and the exit code is 0 only if nothing failed. It must never pass over a test silently.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import bootstrap
from bootstrap import PYTHON, ROOT, TORCH, VENV, StepFailed, Steps

TYPES = VENV / "types"
REPORT = VENV / "test-report.xml"
# Folders whose import name is another one: what mypy, which knows no package_dir, has to see.
LINKS = {"luna_farm": "luna_farm", "luna_farm_client": "client", "luna_farm_nodes": "comfy_nodes"}
# A test that hangs must not hold the whole run: far above what any test takes.
TEST_TIMEOUT_S = 900
PROCESSES = 3
"""Of the tests. They wait for others half of the time: on two processors three take less than two."""
CORE_COVERAGE, TOTAL_COVERAGE = 100, 90


def link_packages() -> None:
    """Make `.venv/types` hold the packages under the names that they are imported by."""
    TYPES.mkdir(exist_ok=True)
    for name, folder in LINKS.items():
        link = TYPES / name
        if link.exists():
            continue
        try:
            link.symlink_to(ROOT / folder, target_is_directory=True)
        except OSError:  # Windows without developer mode: a junction needs no privilege
            subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(ROOT / folder)], check=True)


Command = list["str | Path"]


def static_checks() -> list[tuple[str, Command]]:
    """Return title and command of each check that runs no test."""
    tool: Command = [PYTHON, "-m"]
    scripts = sorted(script.stem for script in ROOT.glob("scripts/*.py"))
    scripts += sorted(f"bench.{script.stem}" for script in ROOT.glob("scripts/bench/*.py"))
    mypy: Command = [*tool, "mypy", *(f"-p{name}" for name in LINKS), *(f"-m{name}" for name in scripts)]
    return [
        ("lint (ruff)", [*tool, "ruff", "check", "--output-format=concise", "."]),
        ("format (ruff)", [*tool, "ruff", "format", "--check", "--output-format=concise", "."]),
        ("types (mypy --strict)", mypy),
        ("import contracts", [PYTHON.with_name("lint-imports"), "--no-cache"]),
        ("workflows (schemas, actionlint)", [PYTHON, ROOT / "scripts" / "workflows.py"]),
        ("documents (strict build)", [PYTHON, ROOT / "scripts" / "docs.py", "--check"]),
    ]


def test_steps() -> list[tuple[str, Command]]:
    """Return title and command of the tests and of what judges their coverage, in order."""
    coverage: Command = [PYTHON, "-m", "coverage"]
    pytest = [
        "-m",
        "pytest",
        "-n",
        str(PROCESSES),
        "--dist",
        "loadfile",
        f"--timeout={TEST_TIMEOUT_S}",
        "--hypothesis-seed=0",  # the same examples each time; plain pytest looks for new ones
        f"--junitxml={REPORT}",
    ]
    core = ["--include=luna_farm/core/*", f"--fail-under={CORE_COVERAGE}"]
    return [
        ("tests", [*coverage, "run", *pytest]),
        ("coverage: combine", [*coverage, "combine", "--quiet"]),
        (f"coverage of core >= {CORE_COVERAGE} %", [*coverage, "report", *core]),
        (f"coverage of all >= {TOTAL_COVERAGE} %", [*coverage, "report", f"--fail-under={TOTAL_COVERAGE}"]),
    ]


def short_runs() -> list[tuple[str, Command]]:
    """Return title and command of each sanitizer and fuzz script of the checkout, in its short form."""
    scripts = sorted([*ROOT.glob("scripts/sanitize*.py"), *ROOT.glob("scripts/fuzz*.py")])
    return [(f"{script.stem} (short)", [PYTHON, script, "--short"]) for script in scripts]


def left_out(output: str) -> list[str]:
    """Return the lines in which a sanitizer or fuzz script says that it could not do its work here."""
    return [line.strip() for line in output.splitlines() if "NOT RUN" in line]


def skipped() -> list[str]:
    """Return a line for every reason why tests were skipped, with their number and the first of them."""
    if not REPORT.exists():
        return []
    reasons: dict[str, list[str]] = {}
    for case in ElementTree.parse(REPORT).iter("testcase"):  # noqa: S314  written by pytest just now
        mark = case.find("skipped")
        if mark is not None:
            name = f"{case.get('classname', '')}::{case.get('name', '')}"
            reasons.setdefault(mark.get("message", "no reason given"), []).append(name)
    return [
        f"{len(names)} x {reason}   ({names[0]}{', ...' if names[1:] else ''})"
        for reason, names in reasons.items()
    ]


def counts() -> str:
    """Return how many tests ran, as the report has it."""
    if not REPORT.exists():
        return "no tests ran"
    suite = next(ElementTree.parse(REPORT).iter("testsuite"))  # noqa: S314  written by pytest just now
    number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    passed = number["tests"] - number["failures"] - number["errors"] - number["skipped"]
    broken = number["failures"] + number["errors"]
    return f"{passed} passed, {broken} failed, {number['skipped']} skipped"


def summary(failed: list[str], not_run: list[str], started: float) -> int:
    """Say how it went, skipped tests loudest. Returns the exit code."""
    bold, red, yellow, off = (
        ("\033[1m", "\033[31m", "\033[33m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
    )
    print(f"\n{bold}Summary{off} after {time.monotonic() - started:.0f} s: {counts()}")
    not_tested = [*skipped(), *not_run]
    if not_tested:
        print(f"{yellow}{bold}!! SKIPPED on this machine, so not tested here:{off}")
        for line in not_tested:
            print(f"{yellow}!!   {line}{off}")
    for title in failed:
        print(f"{red}{bold}FAILED: {title}{off}")
    print(f"{bold}{red}Not all is well.{off}" if failed else f"{bold}All is well.{off}")
    return 1 if failed else 0


def main() -> int:
    """Run every step, whatever the ones before it said."""
    bootstrap.check_python()
    started = time.monotonic()
    try:
        bootstrap.prepare("dev", [TORCH])
    except StepFailed as error:
        print(error.output, file=sys.stderr)
        print(f"{error}. Nothing was tested.", file=sys.stderr)
        return 1
    link_packages()
    REPORT.unlink(missing_ok=True)
    for left in ROOT.glob(".coverage*"):
        left.unlink()
    plan = [*static_checks(), *test_steps(), *short_runs()]
    steps = Steps(len(plan))
    failed: list[str] = []
    not_run: list[str] = []
    # Tests start programs of the project by name: they are those of this environment. They start some 500
    # farms: where Python may not keep bytecode, each process would compile the project again (0.3 s a farm).
    path = f"{PYTHON.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environ = {"PATH": path, "PYTHONDONTWRITEBYTECODE": ""}
    for title, command in plan:
        try:
            not_run += left_out(steps.run(title, command, environ=environ, show=title == "tests"))
        except StepFailed as error:
            failed.append(title)
            print(error.output.replace(f"{TYPES.relative_to(ROOT)}{os.sep}", ""), flush=True)
    return summary(failed, not_run, started)


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
