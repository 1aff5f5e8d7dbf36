#!/usr/bin/env python3
"""Fuzzes the code that reads bytes of unauthenticated peers: the targets of tests/fuzz (atheris, libFuzzer).

    python3 scripts/fuzz.py --long                 every target for ten minutes
    python3 scripts/fuzz.py --short                every target for a second, for scripts/test.py
    python3 scripts/fuzz.py --target NAME --seconds 60
    python3 scripts/fuzz.py --farm 1000000         that many frames against a real farm

Needs the project installed, as in the environment that scripts/test.py makes. Findings and new inputs
lie in fuzz-findings/; what is worth keeping goes into tests/fuzz/corpus and is tested from then on. Without
atheris (for Linux and macOS, and not for every Python) it says that it did not run, and exits with 0:
the tests run the same targets by hypothesis. It must never talk to a farm that it did not start.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FUZZ = ROOT / "tests" / "fuzz"
FINDINGS = ROOT / "fuzz-findings"
SHORT_S, LONG_S = 1, 600
RSS_GROWTH, PING_P99_MS = 20e6, 5.0


def main() -> int:
    """Do what was asked; returns 1 when something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--short", action="store_true", help=f"every target for {SHORT_S} s")
    kind.add_argument("--long", action="store_true", help=f"every target for {LONG_S} s")
    kind.add_argument("--target", help="one target only")
    kind.add_argument("--farm", type=int, metavar="FRAMES", help="frames against a real farm")
    parser.add_argument("--seconds", type=int, default=60, help="how long one target runs")
    parser.add_argument("--seed", type=int, default=1, help="of the frames against a farm")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.farm:
        return farm(args.farm, args.seed)
    if importlib.util.find_spec("atheris") is None:
        print("NOT RUN: fuzzing by coverage, atheris is not installed here (pip install atheris)")
        return 0
    if args.inside:
        return inside(args.target, args.seconds)
    if args.target:
        return run([args.target], args.seconds)
    return run(list(targets().TARGETS), SHORT_S if args.short else LONG_S)


def targets() -> Any:
    """The module with the targets; it is none of a package."""
    sys.path.insert(0, str(FUZZ))
    return importlib.import_module("targets")


def run(names: list[str], seconds: int) -> int:
    """Fuzz each target in a process of its own, as many at a time as there are processors."""
    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        outcomes = list(pool.map(lambda name: one(name, seconds), names))
    print(f"{len(names)} targets in {time.monotonic() - started:.0f} s")
    return max(outcomes)


def one(name: str, seconds: int) -> int:
    """Fuzz one target and say what came of it."""
    command = [sys.executable, str(Path(__file__)), "--inside", "--target", name, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    last = [line for line in done.stderr.splitlines() if line.startswith(("#", "Done"))]
    if done.returncode == 0:
        print(f"{name:20} nothing found   {last[-1] if last else ''}", flush=True)
        return 0
    print(f"{name:20} FOUND SOMETHING, exit code {done.returncode}:\n{done.stderr[-4000:]}", flush=True)
    return 1


def inside(name: str, seconds: int) -> int:
    """Be the process that libFuzzer runs in; it ends the process by itself."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["luna_farm", "targets"]):
        target = targets().TARGETS[name]
    learned = FINDINGS / "corpus" / name
    if seconds <= SHORT_S:  # a test run leaves nothing behind
        learned = Path(tempfile.mkdtemp()) / name
    learned.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={FINDINGS}/{name}-", "-timeout=10"]
    options += ["-rss_limit_mb=2048", "-print_final_stats=1"]
    FINDINGS.mkdir(exist_ok=True)
    atheris.Setup(["fuzz", *options, str(learned), str(FUZZ / "corpus" / name)], target)
    atheris.Fuzz()
    return 0


def farm(count: int, seed: int) -> int:
    """Send frames to a farm that is started for it. Returns 1 when a bound was not kept."""
    sys.path.insert(0, str(FUZZ))
    live: Any = importlib.import_module("live")
    with tempfile.TemporaryDirectory() as home:
        running = live.RealFarm(Path(home) / "farm").start()
        try:
            result = live.fuzz(
                running, count, seed=seed, say=lambda line: print(line, flush=True), step_back=15
            )
        finally:
            running.stop()
    print(result)
    held = {
        "the farm lives, without a traceback": result.alive and not result.tracebacks,
        "RSS growth below 20 MB": result.rss_growth < RSS_GROWTH,
        "everything of the good client is saved": not result.unsaved,
        "no file of another sender is written": not result.foreign_files,
    }
    for what, kept in held.items():
        print(f"{'ok  ' if kept else 'NOT '} {what}")
    # How busy this machine is with other things is reported, not judged.
    word = "ok  " if result.ping_p99_ms < PING_P99_MS else "slow"
    print(
        f"{word} ping p99 {result.ping_p99_ms:.2f} ms beside it"
        f" (target {PING_P99_MS} ms; {result.idle_p99_ms:.2f} ms alone on this machine)"
    )
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
