"""`luna-farm pause` and `resume`: let accepted images wait, and save them again.

It must never stop what a worker has begun: half a file is worth nothing.
"""

from __future__ import annotations

import argparse
import dataclasses

from luna_farm.cli import options, terminal
from luna_farm.config import Config
from luna_farm.core.counted import counted

_PAUSE = """
luna-farm pause     images are still accepted, until the farm's memory is full; none is begun
luna-farm resume    save them
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the two commands."""
    pause = "let accepted images wait; what is being saved is finished"
    for name, text in (("pause", pause), ("resume", "save accepted images again after a pause")):
        parser = options.command(subparsers, name, text, _PAUSE)
        parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, config: Config) -> int:
    """Pause or resume. Returns the exit code."""
    from luna_farm.cli.farm import connect

    with connect(config) as farm:
        report = farm.pause() if args.command == "pause" else farm.resume()
    waiting = counted(report.waiting, "image")
    if args.json:
        terminal.print_json(dataclasses.asdict(report))
    elif report.paused:
        text = (
            f"The farm is paused with {waiting} waiting and {report.running} being finished."
            " `luna-farm resume` goes on; so does a restart."
        )
        print(options.for_this_farm(text, args.arguments))
    else:
        print(f"The farm saves, with {waiting} waiting and {report.running} being saved.")
    return 0
