"""Checks of the farm itself for `luna-farm doctor`: what keeps it from saving, and what could not be saved.

Each judges facts that are handed to it and returns findings; `look` at the end gathers them from the farm
that runs, or from what the last one left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from luna_farm.cli.findings import FINE, NOTE, PROBLEM, Finding
from luna_farm.cli.terminal import duration, size
from luna_farm.core.counted import counted

if TYPE_CHECKING:
    from luna_farm.config import Config

NAME = "farm"
LISTED = 5
"""Failing folders that are named."""
ANSWER_S = 2.0
STARTED_S = 10.0
"""By then a farm has workers, unless something keeps them from starting."""


def running(status: Mapping[str, Any], scarce_bytes: int) -> Iterator[Finding]:
    """Judge the status of a farm that runs. `scarce_bytes`: free space that is too little."""
    found = [*_failing(status), *_full(status, scarce_bytes), *_standing_still(status), *_unsaved(status)]
    found += [Finding(NAME, NOTE, str(note)) for note in status.get("notes", ())]
    if not found:
        queue = status["queue"]["images"]
        doing = f"saves {counted(queue, 'image')}" if queue else "has saved what it accepted"
        found.append(Finding(NAME, FINE, f"Process {status['pid']} {doing}."))
    yield from found


def _failing(status: Mapping[str, Any]) -> Iterator[Finding]:
    kinds = (("folders", "path"), ("destinations", "destination"))
    rows = [
        (row[key], row) for kind, key in kinds for row in status.get(kind, ()) if row["state"] == "failing"
    ]
    for name, row in rows[:LISTED]:
        text = f"{name} fails for {duration(float(row['since_s']))}: {row['error']}"
        yield Finding(NAME, PROBLEM, text, "Its images wait in the farm, and are saved once that is mended.")
    if len(rows) > LISTED:
        yield Finding(NAME, PROBLEM, f"{len(rows) - LISTED} more folders and destinations fail.")


def _full(status: Mapping[str, Any], scarce_bytes: int) -> Iterator[Finding]:
    for row in status.get("folders", ()):
        full = row.get("total_bytes") and row["free_bytes"] < scarce_bytes
        if full and row["state"] == "ok":
            text = f"{row['path']}, where the farm saves: only {size(row['free_bytes'])} are free."
            yield Finding(NAME, PROBLEM, text, "Free some space there.")


def _standing_still(status: Mapping[str, Any]) -> Iterator[Finding]:
    waiting = counted(status["queue"]["images"], "image")
    if status.get("paused"):
        yield Finding(NAME, NOTE, f"It is paused, with {waiting} waiting.", "`luna-farm resume` goes on.")
    elif status.get("draining"):
        yield Finding(NAME, NOTE, f"It is stopping, with {waiting} left, and takes nothing new.")
    elif not status.get("ready", True) and status["uptime_s"] >= STARTED_S:
        text = f"No worker is ready, with {waiting} waiting."
        yield Finding(NAME, PROBLEM, text, "`luna-farm logs --level warning` says why.")


def _unsaved(status: Mapping[str, Any]) -> Iterator[Finding]:
    jobs = status.get("incomplete_jobs", ())
    if jobs:
        missing = sum(row["images"] for row in jobs)
        listed = ", ".join(row["job_id"] for row in jobs[-LISTED:])
        text = (
            f"{counted(missing, 'image')} of {counted(len(jobs), 'job')} never came, or were lost, and cannot"
            f" be tried again: {listed}{', ...' if len(jobs) > LISTED else ''}."
        )
        advice = "Save them again from their source; `luna-farm dismiss ID` takes a job off this list."
        yield Finding(NAME, NOTE, text, advice)


def silent(pid: int, why: str) -> Finding:
    """A process holds the state folder and does not answer."""
    return Finding(NAME, PROBLEM, f"Process {pid} does not answer: {why}", "`luna-farm logs` may say why.")


def ended(left: str, crashed_pid: int | None) -> list[Finding]:
    """Judge what the last farm left. `left`: what it said when it stopped; `crashed_pid`: it never did."""
    if left:
        return [Finding(NAME, NOTE, f"None runs. {left}")]
    if crashed_pid is None:
        return []
    text = f"None runs. The last one, process {crashed_pid}, crashed or was killed."
    advice = "`luna-farm start` takes up what it had accepted; `luna-farm logs` may say why it ended."
    return [Finding(NAME, NOTE, text, advice)]


# --- gathering


def look(config: Config, farm_pid: int | None, scarce_bytes: int) -> tuple[list[Finding], Mapping[str, Any]]:
    """Ask the farm of the state folder, process `farm_pid`, or look at what the last one left. Returns
    findings, and the status of the farm, {} without an answer."""
    from luna_farm.cli.farm import connect
    from luna_farm.errors import FarmError
    from luna_farm.supervisor.state_dir import read_endpoint, read_left

    if farm_pid is None:
        last = read_endpoint(config.state_dir)
        crashed = int(last["pid"]) if last.get("pid") and not last.get("stopped") else None
        return ended(read_left(config.state_dir), crashed), {}
    try:
        with connect(config, ANSWER_S) as farm:
            status = farm.status()
    except FarmError as error:
        return [silent(farm_pid, str(error))], {}
    return list(running(status, scarce_bytes)), status
