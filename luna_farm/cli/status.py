"""`luna-farm status`: what each process of the farm does and costs, once or watched in place.

It must cost next to nothing while it watches: one question a second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from luna_farm.cli import options, terminal
from luna_farm.config import Config
from luna_farm.errors import FarmUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from luna_farm_client import FarmClient

_EXAMPLES = """
luna-farm status                            processes, queue, memory, disks
luna-farm status --watch                    the same in place, with the last minute as curves
luna-farm status --json | jq .queue.images  for scripts
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "status", "show what the farm does and what it costs", _EXAMPLES)
    parser.add_argument("--watch", action="store_true", help="refresh in place until Ctrl-C")
    parser.add_argument(
        "--json", action="store_true", help="everything, as JSON (with --watch one line a second)"
    )
    parser.add_argument(
        "--interval", type=options.number(0.1, 3600), default=1.0, metavar="SECONDS", help="of --watch"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Show the status once or until Ctrl-C. Returns the exit code."""
    with _connected(config) as farm:
        if args.watch:
            try:
                how = {
                    "as_json": args.json,
                    "console": terminal.console(live=True),
                    "arguments": args.arguments,
                }
                watch(farm, _every(args.interval), **how)
            except KeyboardInterrupt:
                return 0
        elif args.json:
            terminal.print_json(farm.status())
        else:
            from luna_farm.cli.view import status_view

            terminal.console().print(status_view(farm.status(), arguments=args.arguments))
    return 0


def _connected(config: Config) -> FarmClient:
    """Return a client of the farm. Raises FarmUnavailable, with what the last farm left to the next."""
    from luna_farm.cli.farm import connect
    from luna_farm.supervisor.state_dir import read_left

    try:
        return connect(config)
    except FarmUnavailable as error:
        left = read_left(config.state_dir)
        raise FarmUnavailable(f"{error}{left and ' ' + left}", error.host, error.port) from error


def watch(
    farm: FarmClient,
    ticks: Iterable[float],
    *,
    as_json: bool,
    console: Console,
    arguments: Sequence[str] = (),
) -> None:
    """Show the status at each tick (monotonic seconds); look for a farm that is away again."""
    from rich.live import Live
    from rich.text import Text

    from luna_farm.cli.view import Trend, status_view

    if as_json:
        for _ in ticks:
            _print_line(farm.status())
        return
    trend = Trend()
    with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
        for now in ticks:
            try:
                status = farm.status()
            except FarmUnavailable as error:
                text = (
                    f"{options.for_this_farm(str(error), arguments)} Looking again every second; Ctrl-C ends."
                )
                live.update(Text(text, style="red"), refresh=True)
                continue
            trend.add(status, now)
            live.update(status_view(status, trend, arguments), refresh=True)


def _print_line(status: dict[str, Any]) -> None:
    import json

    print(json.dumps(status, default=str), flush=True)


def _every(interval_s: float) -> Iterator[float]:
    """Yield the monotonic time, now and then once per interval, without drifting."""
    due = time.monotonic()
    while True:
        yield time.monotonic()
        due = max(due + interval_s, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)
