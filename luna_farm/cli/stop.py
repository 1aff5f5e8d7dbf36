"""`luna-farm stop`: let the farm finish what it accepted and end, or end now.

It must never lose an accepted job: what is not finished stays in the journal for the next start.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from luna_farm.cli import options, terminal
from luna_farm.config import Config
from luna_farm.core.counted import counted
from luna_farm.errors import FarmError

if TYPE_CHECKING:
    from luna_farm_client import FarmClient

POLL_S = 0.05

_EXAMPLES = """
luna-farm stop          finish everything that was accepted, then end
luna-farm stop --now    end at once; the journal keeps the rest for the next start
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "stop", "stop the farm", _EXAMPLES)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--drain", action="store_true", help="finish what was accepted first (the default)")
    how.add_argument("--now", action="store_true", help="end at once and leave the rest to the next start")
    parser.add_argument(
        "--timeout",
        type=options.SECONDS,
        default=90.0,
        metavar="SECONDS",
        help="how long to wait for the end",
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Stop the farm and wait until its process is gone. Returns the exit code."""
    from luna_farm.cli.farm import connect
    from luna_farm.supervisor.state_dir import read_left

    # The second one only feeds the display: it gives up soon once the farm has closed its port.
    with connect(config) as farm, connect(config, timeout_s=0.3) as watched:
        status = farm.status()
        images = int(status["queue"]["images"])
        pid = farm.shutdown(now=args.now)
        shown, task = terminal.progress("Finishing", images or None)
        left = images
        try:
            with shown:
                for left in _left(watched, pid, args.timeout):
                    shown.update(task, completed=images - left)
        except KeyboardInterrupt:
            told = (
                f"Not waiting any more: the farm (process {pid}) goes on stopping, with"
                f" {counted(left, 'image')} to write. `luna-farm stop --now` leaves them to its next start."
            )
            print(options.for_this_farm(told, args.arguments), file=sys.stderr)
            return 130
    rest = read_left(Path(status.get("state_dir", config.state_dir)))
    told = f"The farm (process {pid}) has stopped.{rest and ' ' + rest}"
    print(options.for_this_farm(told, args.arguments))
    return 0


def _left(farm: FarmClient, pid: int, timeout_s: float) -> Iterator[int]:
    """Yield how many images are unfinished until the process is gone. Raises FarmError at the timeout."""
    until = time.monotonic() + timeout_s
    images = 0
    answers, here = True, _is_alive(pid)  # not here: the farm is on another host or in a container
    while _is_alive(pid) if here else answers:
        try:
            images = int(farm.status()["queue"]["images"]) if answers else 0
            yield images
        except FarmError:  # it closed its port and is tidying up
            answers = False
        if time.monotonic() > until:
            rest = (
                f"with {images} {'image' if images == 1 else 'images'} to write" if images else "tidying up"
            )
            raise FarmError(
                f"The farm (process {pid}) goes on stopping after {timeout_s:g} s, {rest}. Wait for it with"
                " `luna-farm stop`, or leave the rest to its next start with `luna-farm stop --now`."
            )
        time.sleep(POLL_S)


def _is_alive(pid: int) -> bool:
    """Return whether the process runs. One that ended but was not collected (no init there) does not."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
