"""`luna-farm logs`: the log file of a farm as people read it.

It must never write to that file, and needs no farm that runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from luna_farm.cli import options
from luna_farm.config import Config
from luna_farm.errors import FarmError

_EXAMPLES = """
luna-farm logs                      the last 50 lines
luna-farm logs --follow             and each new one, until Ctrl-C
luna-farm logs --level warning      only what went wrong
luna-farm logs --job a1b2c3d4       what belongs to one job
luna-farm logs --json               the lines as they are, for scripts
"""
LEVELS = ("debug", "info", "warning", "error")
POLL_S = 0.2


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "logs", "show the log of the farm", _EXAMPLES)
    parser.add_argument(
        "--lines", type=options.whole(0, 10**6), default=50, metavar="N", help="how many of the last lines"
    )
    parser.add_argument("--follow", action="store_true", help="show new lines until Ctrl-C")
    parser.add_argument("--level", choices=LEVELS, default="debug", help="the least important that is shown")
    parser.add_argument("--job", metavar="ID", help="only lines of this job")
    parser.add_argument("--json", action="store_true", help="the lines as JSON, as they are in the file")


def run(args: argparse.Namespace, config: Config) -> int:
    """Show the log. Returns the exit code; raises FarmError where there is none."""
    from luna_farm import logs
    from luna_farm.supervisor.state_dir import unreadable

    path = config.state_dir / logs.FILE_NAME
    files = [path.with_name(f"{path.name}.{n}") for n in range(logs.FILES_KEPT, 0, -1)] + [path]
    if why := unreadable(config.state_dir):
        raise FarmError(why)
    files = [file for file in files if file.is_file()]
    if not files:
        raise FarmError(f"There is no log in {config.state_dir}: no farm ever ran on this state folder.")
    show = _shower(args)
    last: deque[str] = deque(maxlen=args.lines)
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            last.extend(shown for line in lines if (shown := show(line)) is not None)
    for line in last:
        print(line)
    if args.follow:
        sys.stdout.flush()
        try:
            for line in new_lines(path, lambda: time.sleep(POLL_S)):
                if (shown := show(line)) is not None:
                    print(shown, flush=True)
        except KeyboardInterrupt:
            return 0
    return 0


def new_lines(path: Path, pause: Callable[[], None]) -> Iterator[str]:
    """Yield each line that is added to a file, also when it is rotated; `pause` is called while there is
    none."""
    with contextlib.ExitStack() as files:
        file = files.enter_context(path.open(encoding="utf-8", errors="replace"))
        file.seek(0, os.SEEK_END)
        part = ""
        while True:
            part += file.readline()
            if part.endswith("\n"):
                yield part
                part = ""
            elif _is_rotated(path, file.fileno()):
                files.close()
                file = files.enter_context(path.open(encoding="utf-8", errors="replace"))
            else:
                pause()


def _is_rotated(path: Path, fd: int) -> bool:
    """Whether another file has the name now, and this one was read to its end."""
    try:
        ours = os.fstat(fd)
        return path.stat().st_ino != ours.st_ino and os.lseek(fd, 0, os.SEEK_CUR) >= ours.st_size
    except FileNotFoundError:  # just being rotated
        return False


def _shower(args: argparse.Namespace) -> Callable[[str], str | None]:
    """Return what makes a line of the file one that is shown, None for one that is not."""
    from luna_farm import log_lines

    human = log_lines.HumanLines(colour=sys.stdout.isatty())
    least = LEVELS.index(args.level)

    def show(line: str) -> str | None:
        try:
            entry = json.loads(line)
            level = str(entry["level"])
            message = str(entry["message"])
        except (ValueError, KeyError, TypeError):
            return None
        job = str(entry.get("job_id") or "")
        if (LEVELS.index(level) if level in LEVELS else len(LEVELS)) < least or args.job not in (None, job):
            return None
        if args.json:
            return line.rstrip("\n")
        number = logging.getLevelName(level.upper())
        said = log_lines.JobLine("", number if isinstance(number, int) else logging.INFO, message, job)
        return f"{str(entry.get('timestamp', ''))[:19].replace('T', ' ')} {human.format(said)}"

    return show
