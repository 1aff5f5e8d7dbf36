#!/usr/bin/env python3
"""All fault tests in one command, and what they measured as docs/reliability.md: python3 scripts/faults.py

    python3 scripts/faults.py            the short form, as in every test run: some minutes
    python3 scripts/faults.py --long     10,000 saves through 1,000 worker and 100 supervisor kills and so on
    python3 scripts/faults.py --render   the page again, from the figures of the last run
    python3 scripts/faults.py --add F    the page again, with the figures that `--figures F` noted elsewhere

Further arguments go to pytest: `-k disks` runs some of the tests, and their figures take the place of those
they had. Nothing in the table of that page is typed in: the tests note figures, this renders them. The page
is written only while every test passed when it last ran; it must never show figures of one that failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import bootstrap
from bootstrap import PYTHON, ROOT, TORCH, VENV, StepFailed

PAGE = ROOT / "docs" / "reliability.md"
NOTES = VENV / "fault-figures.json"
TEST_TIMEOUT_S = {False: 900, True: 3600}


class Row(NamedTuple):
    """A row of the table: the key that tests note figures under, what is tested, what it must show."""

    key: str
    test: str
    target: str


ROWS = (
    Row(
        "crash points",
        "Crash at each named point of worker and supervisor, small and 24 MB images; stopped there; the disk "
        "refusing there",
        "every point fired; 0 lost, corrupt, duplicate, stray",
    ),
    Row(
        "kill storm",
        "Saves while workers and the supervisor get `kill -9` all the time",
        "10,000 saves, 1,000 and 100 kills (short: 600, 90, 9): 0 lost, corrupt, duplicate, overwritten",
    ),
    Row(
        "storm on file systems",
        "The same on ext4, tmpfs, overlayfs, ntfs-3g and exFAT (FUSE): three formats, gate, durable and not,"
        " clients killed, too",
        "10,000 images each, 200 and 20 kills (short: 60, 4, 1, on two of them): 0 lost, corrupt, twice, "
        "stray, segments left",
    ),
    Row("mutations", "The code with one guard taken away", "each is caught by a test"),
    Row("journal", "Journal cut at every byte, bits flipped, zeros behind it", "right prefix, 0 phantoms"),
    Row("power cut", "Power cut simulated over a record of disk operations", "every `saved` file is whole"),
    Row(
        "disks",
        "1 MB tmpfs, small ext4, no inodes, read-only, a folder of another user, a full state folder",
        "clear error, saved once space is back, 0 half files",
    ),
    Row(
        "shared memory",
        "Shared memory of 8 and 64 MB, arena full, arena unlinked; other bounds reached",
        "0 crashes, busy within 50 ms, nothing lost",
    ),
    Row("SIGSTOP", "A worker and the supervisor stopped", "saved once, within the deadline + 1 s"),
    Row(
        "hung folder",
        "A folder whose server never answers (FUSE), as a dead network folder",
        "its caller told within 8 s, other folders served meanwhile, saved once it is back",
    ),
    Row(
        "fuzzing",
        "10,000 fuzzed frames and foreign preambles (HTTP, TLS, pickle, WebSocket)",
        "0 crashes, memory growth < 20 MB, a good client's p99 < 5 ms",
    ),
    Row(
        "crowds",
        "200 clients, 200 slow ones, 64 file descriptors",
        "all answered or told busy, a good one within 100 ms, recovery < 2 s",
    ),
    Row(
        "names",
        "4 processes x 1,000 under one name, 4 x 500 on exFAT, NTFS and link-less FUSE, 1,000 symlink swaps; "
        "each of 21 errors of eight operations of a disk (FUSE)",
        "0 overwritten, 0 half files, 0 outside; saved at once, or once the error is over",
    ),
    Row("clock", "The clock set a day forth and back", "no process killed, no job ended early"),
    Row("second supervisor", "A second supervisor; an old worker alive at a restart", "refused; fenced off"),
    Row("restart", "Restart after `kill -9` with 64 jobs pending", "listening < 1 s, all saved"),
    Row("reboot", "The memory is gone, or of another boot", "durable jobs finished, others named as lost"),
    Row(
        "journal damage",
        "Bits, cuts, zeros, swapped and doubled records in the journal with durable jobs open",
        "no pixels removed, all saved or named, none saved twice",
    ),
    Row("state folder", "Journal lost or damaged, dead letters left", "nothing dropped, `retry` works"),
    Row(
        "stopping", "SIGTERM, Ctrl-C, a second signal, a stop with a full disk", "nothing lost or left behind"
    ),
    Row(
        "ray",
        "A Ray cluster of three nodes on this machine; `kill -9` of actors, raylets and the head while "
        "images are saved",
        "1,000 images, 20 actors, 5 raylets, 1 head (short: 40, 2, 1, 1): 0 lost, duplicate, overwritten",
    ),
    Row(
        "ray network",
        "A Ray cluster beyond a network of 50 ms each way that loses 2 % of its packets; the head, or nodes, "
        "cut off while images are saved",
        "0 lost, duplicate; workers of this machine take over, and the cluster is used again",
    ),
    Row(
        "growth",
        "Thousands of jobs; 20 minutes of mixed load (long form alone)",
        "no growth of descriptors, threads, segments; memory < 20 MB",
    ),
)

HEAD = """# What it survives, measured

<!-- This page is written by scripts/faults.py from what the tests noted. Change the script, not the page. -->

**Accepted**: the job survives `kill -9` of any process of the farm, of the program that handed it over, of
all of them at once. **Saved**: the file is whole, synced, and under its final name. Between the two a power
cut can lose a job whose pixels were in memory; the next start reports such jobs by name as lost, in the log,
in `luna-farm jobs` and in the feed. The journal is synced once a second while it grows, so those accepted in
the last second before the cut (and while that sync took) may not be named. **Durable** (`durable=True`, or
the setting) puts the pixels on the disk before the job is accepted, and closes that gap too.

## How it is done

- Pixels lie in shared memory that outlives every process. The journal has the job before the client hears
  yes; a new supervisor reads it, ends the workers of the old one, and goes on.
- A file is written without a name (or under a temporary one), synced, and then linked to its name: nothing
  is ever replaced, no half file is ever seen. Before that its worker notes which file gets which name, so
  that a file that was published just before a crash is recognised and not written twice.
- A worker that dies or hangs costs its image a second try; an image that ends three workers, or that no
  encoder takes, is set aside with its pixels (`luna-farm retry ID`). A disk that refuses costs time only: an
  image that fails alone waits alone, a folder that fails is probed by one image after the other, and all
  follow once it is back. When waiting pixels fill a quarter of the arena, more move to the state folder.
- Pixels on the disk carry their request: a journal that is damaged, cut or lost costs no durable image.
  Records are numbered, so that one that is missing, doubled or out of place shows, and reading goes on behind
  damage. What may have been saved already is set aside for `luna-farm retry`, never written twice.
- A disk that is unmounted is noticed: files, archives, further outputs and copies at mirrors wait for it,
  instead of going to the folder of that name below, also those for folders below its mount point that
  were not used before. The farm remembers the disks that it has written to until it is restarted; jobs
  remember theirs. A state folder that is removed under a running farm is made again with all open jobs.
- Everything that grows has a bound, and at the bound the caller is told `busy` at once.

## What was measured

"""

TAIL = """
Times depend on the machine and on what else it does; counts do not. **Short** and long form are one set of
tests (`tests/faults/`) with other numbers: `python3 scripts/faults.py` runs the short one, which is part of
every test run, `python3 scripts/faults.py --long` the long one. Both write this page.

Some tests need Linux and root (disks of their own, a small /dev/shm); elsewhere they are skipped, and say
so. Windows, macOS, NFS and SMB were not tested; a folder that hangs was, by FUSE.

## What it does not survive

- A power cut between accepted and saved, unless the job was durable.
- A disk that says it has written what it has not. The farm syncs once and believes the answer. It never
  repeats a sync that failed: it writes the file again from the pixels.
- `kill -9` of everything and a full removal of the state folder: what was accepted and not saved is then
  known to no process. Dead letters lie in that folder, too.
- The removal of the state folder under a running farm, for what waits there for a destination, a mirror or an
  archive: each such image is named as failed.
- A disk that is missing when the farm starts: of the output folder it is known that it was there, and a
  warning says so, but files go to the disk below. Of other folders that no open job names, nothing is known.
- The loss of the journal file: durable images are saved from their pixels, others are lost with it, and so
  are the reports of jobs that finished since the farm was idle last. Their files are there.
- A user who deletes the files of the farm in shared memory while no worker has them mapped and the disk
  of the state folder is full: both copies are gone then.
"""


def run_tests(long: bool, figures: Path, arguments: list[str]) -> int:
    """Run all fault tests, two files at a time; returns the exit code."""
    environ = {"LUNA_FARM_TEST_FIGURES": str(figures), "LUNA_FARM_TEST_LONG": "1" if long else "0"}
    environ["PYTHONDONTWRITEBYTECODE"] = ""  # thousands of processes start: see test.py
    command = [sys.executable, "-m", "pytest", "tests/faults", "-p", "no:cacheprovider"]
    command += ["-n", "2", "--dist", "loadfile", f"--timeout={TEST_TIMEOUT_S[long]}", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environ}, check=False).returncode


def machine() -> dict[str, str]:
    """Where it was measured."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
    }


def shown(measured: Mapping[str, Any]) -> str:
    """What one test measured, as a person reads it: times and counts, and what stayed at 0 in one breath."""
    parts = []
    for name, value in measured.items():
        if name == "took_ms":
            parts.append(f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms")
        elif isinstance(value, str):
            parts.append(value)
        elif value:
            parts.append(f"{name.replace('_', ' ')} {value:,}")
    zero = [name.replace("_", " ") for name, value in measured.items() if value == 0]
    return ", ".join([*parts, *([f"0 {' / '.join(zero)}"] if zero else [])])


def place_of(where: Mapping[str, str]) -> str:
    """A machine in words."""
    return f"{where['system']}, Python {where['python']}, {where['cores']} cores"


def elsewhere(figure: Mapping[str, Any], where: Mapping[str, str]) -> str:
    """Where a figure was measured, if that was not the machine of the page."""
    place = place_of(figure["where"])
    return "" if place == place_of(where) else f" ({place})"


def render(run: Mapping[str, Any]) -> str:
    """The page from the notes of a run."""
    where = run["machine"]
    form = "long" if run["long"] else "short"
    again = len(run.get("again", []))
    since = f" {again} of its {len(run['tests'])} tests were run again by themselves since." if again else ""
    place = place_of(where)
    if run.get("load", 0) > int(where["cores"]):
        place += f" shared with other work (load average up to {run['load']})"
    lines = [
        f"{form.capitalize()} form, {where['date']}, {place}, {run['seconds'] / 60:.1f} minutes.{since}\n",
        "| test | target | measured | |",
        "| --- | --- | --- | --- |",
    ]
    for row in ROWS:
        noted = [figure for figure in figures_of(run) if figure["row"] == row.key]
        cells = [
            f"{figure['what']}: {shown(figure['measured'])}{elsewhere(figure, where)}" for figure in noted
        ]
        missed = [figure["what"] for figure in noted if not figure["ok"]]
        verdict = "not measured here" if not noted else "**missed**" if missed else "met"
        measured = "<br>".join(cells).replace("|", "\\|")
        lines.append(f"| {row.test} | {row.target} | {measured} | {verdict} |")
    return HEAD + "\n".join(lines) + "\n" + TAIL


def main() -> int:
    """Run, note, render. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--long", action="store_true", help="the long form, one to two hours")
    parser.add_argument("--render", action="store_true", help="write the page from the last figures")
    parser.add_argument("--figures", type=Path, metavar="F", help="note the figures there; write no page")
    parser.add_argument("--add", type=Path, metavar="F", help="take figures of another machine, and render")
    parser.add_argument("--here", action="store_true", help="use this Python as it is, without .venv")
    args, for_pytest = parser.parse_known_args()  # such as -k storm
    file = args.figures.absolute() if args.figures else NOTES
    if args.add:
        add(file, args.add)
    elif not args.render:
        if not args.here and Path(sys.prefix) != VENV:
            return in_environment()
        code = measure(file, args.long, for_pytest)
        if code or args.figures:
            return code
    notes = json.loads(file.read_text("utf-8"))
    failed = [test for test, noted in notes["tests"].items() if noted["outcome"] == "failed"]
    if failed:
        print("The page stays as it was, for these failed:", *failed, sep="\n  ", file=sys.stderr)
        return 1
    PAGE.write_text(render(notes), encoding="utf-8")
    for figure in figures_of(notes):
        if not figure["ok"]:
            print(f"missed: {figure['row']}, {figure['what']}: {shown(figure['measured'])}", file=sys.stderr)
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


def add(file: Path, other: Path) -> None:
    """Let the figures of another run, on whatever machine, take the place of those of the same tests."""
    here, there = (json.loads(path.read_text("utf-8")) for path in (file, other))
    if here["long"] != there["long"]:
        sys.exit(f"{other} is of the {'long' if there['long'] else 'short'} form, {file} is not.")
    here["tests"].update(there["tests"])
    file.write_text(json.dumps(here, indent=1), encoding="utf-8")


def measure(file: Path, long: bool, for_pytest: list[str]) -> int:
    """Run the tests and note what came of them in `file`; returns the exit code of pytest."""
    file.parent.mkdir(exist_ok=True)
    lines = file.with_name(f"{file.name}.lines")
    lines.unlink(missing_ok=True)
    started = time.monotonic()
    code = run_tests(long, lines, for_pytest)
    tests: dict[str, Any] = {}
    for line in lines.read_text("utf-8").splitlines() if lines.exists() else []:
        noted = json.loads(line)
        test = tests.setdefault(noted.pop("test"), {"outcome": "failed", "where": machine(), "figures": []})
        if "outcome" in noted:
            test.update(noted)
        else:
            test["figures"].append(noted)
    load = round(os.getloadavg()[2]) if hasattr(os, "getloadavg") else 0
    seconds = time.monotonic() - started
    run = {"machine": machine(), "long": long, "seconds": seconds, "load": load, "tests": tests}
    if for_pytest and file.exists():
        whole = json.loads(file.read_text("utf-8"))
        if whole["long"] == long and whole["machine"] == run["machine"]:
            again = sorted({*whole.get("again", []), *(whole["tests"].keys() & tests)})
            seconds, load = seconds + whole["seconds"], max(load, whole.get("load", 0))
            together = {"tests": {**whole["tests"], **tests}, "again": again}
            run = {**whole, **together, "seconds": seconds, "load": load}
    file.write_text(json.dumps(run, indent=1), encoding="utf-8")
    return code


def figures_of(notes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All that was measured, in the order of what it is."""
    figures = [
        {"where": test.get("where", notes["machine"]), **figure}
        for test in notes["tests"].values()
        for figure in test["figures"]
    ]
    return sorted(figures, key=lambda figure: str(figure["what"]))


def in_environment() -> int:
    """Run this again with the Python of `.venv`, which is made first if need be."""
    bootstrap.check_python()
    try:
        bootstrap.prepare("dev", [TORCH])
    except StepFailed as error:
        print(error.output, file=sys.stderr)
        print(error, file=sys.stderr)
        return 1
    return subprocess.run([PYTHON, __file__, "--here", *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
