"""`luna-farm doctor`: look at all that a farm stands on and say what to do about what is wrong.

It gathers facts, hands them to the checks and shows the findings; it must never change anything, and
never disturb a farm that runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from luna_farm import system
from luna_farm.cli import options, terminal
from luna_farm.cli.findings import EXTRA, FINE, NOTE, PROBLEM, Finding, worst
from luna_farm.config import Config

if TYPE_CHECKING:
    from rich.table import Table

_EXAMPLES = """
luna-farm doctor                            what is wrong, and what to do
luna-farm doctor --json | jq '.findings[]'  for scripts; exit code 1 if there is a problem
"""
_MARKS = {FINE: ("✓", "green"), EXTRA: ("-", "dim"), NOTE: ("!", "yellow"), PROBLEM: ("✗", "red")}
_SUMMARY = {
    FINE: "Everything is as it should be.",
    NOTE: "The farm works here; the notes say what could be better.",
    PROBLEM: "There is something to do before the farm can be relied on.",
}


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(
        subparsers, "doctor", "look for what is wrong on this machine, and say what to do", _EXAMPLES
    )
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    options.add_settings(parser.add_argument_group("settings"), ("output_dir", "feed_port", "arena_bytes"))


def run(args: argparse.Namespace, config: Config) -> int:
    """Run all checks and show their findings. Returns 1 if one is a problem, else 0."""
    findings = [
        replace(finding, advice=options.for_this_farm(finding.advice, args.arguments))
        for finding in examine(config)
    ]
    level = worst(findings)
    if args.json:
        terminal.print_json({"level": level, "findings": [asdict(finding) for finding in findings]})
    else:
        console = terminal.console()
        console.print(table(findings))
        console.print(_SUMMARY[level], style=_MARKS[level][1])
    return int(level == PROBLEM)


def examine(config: Config) -> Iterator[Finding]:
    """Yield the finding of each check, for the farm that `config` describes."""
    from luna_farm.cli import (
        checks_encoders,
        checks_farm,
        checks_machine,
        checks_provenance,
        checks_storage,
    )
    from luna_farm.storage.state_lock import lock_holder
    from luna_farm.supervisor import state_dir

    farm_pid = lock_holder(config.state_dir / state_dir.LOCK)
    of_farm, status = checks_farm.look(config, farm_pid, checks_storage.SCARCE_BYTES)
    yield from of_farm
    yield checks_machine.memory(
        system.machine_memory_bytes(), system.memory_limit(), checks_machine.LEAST_MEMORY
    )
    yield checks_machine.shared_memory(
        system.shm_bytes(),
        system.memory_bytes(),
        config.arena_bytes,
        checks_machine.try_shared_memory(),
        running=farm_pid is not None,
    )
    yield checks_machine.open_files(system.open_file_limit()[1], config.max_connections)
    for what, name in (("job listener", "port"), ("status feed", "feed_port")):
        # Where the farm listens, which may have been started with other settings than these.
        number = getattr(config, name) if name in config.given else status.get(name) or getattr(config, name)
        refused = checks_machine.try_port(config.host, number)
        holder = checks_machine.find_holder(number) if refused else None
        yield checks_machine.port(what, config.host, number, refused, holder, farm_pid)
    used = status.get("output_dir") if "output_dir" not in config.given else None
    places = {
        "output dir": Path(used) if used else config.output_dir,
        "fallback dir": config.fallback_dir,
        "state dir": config.state_dir,
    }
    for name, path in places.items():
        if path is not None:
            place = checks_storage.look(path)
            yield from checks_storage.folder(name, place)
            yield from checks_storage.state_kind(place) if name == "state dir" else ()
    finding = checks_storage.look_at_permissions(config.state_dir)
    if finding is not None:
        yield finding
    if not state_dir.unreadable(config.state_dir):
        yield from checks_storage.look_aside(config.state_dir)
    yield checks_machine.logout()
    yield checks_machine.clock(time.time(), checks_machine.newest_note(config.state_dir))
    yield from checks_encoders.encoders(checks_encoders.look())
    yield from checks_provenance.marks(config)


def table(findings: list[Finding]) -> Table:
    """Return findings as a table: a mark, what was checked, what was found, and below it what to do."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True, style="bold")
    shown.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.level]
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style=style)
        shown.add_row(Text(mark, style=style), Text(finding.check), text)
    return shown
