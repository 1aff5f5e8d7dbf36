"""What people see: consoles, numbers with units, progress. It must never print a secret or a traceback."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console(*, stderr: bool = False, live: bool = False) -> Console:
    """Return a console: colours on a terminal, plain text elsewhere, names never read as markup. `live`: for
    what is drawn again in its place."""
    from rich.console import Console

    file = sys.stderr if stderr else sys.stdout
    if file.isatty() or "COLUMNS" in os.environ:
        shown = Console(stderr=stderr, highlight=False, markup=False, soft_wrap=False)
        if (
            shown.width < NARROW and not live
        ):  # the terminal wraps whole lines; cells would be cut, ids among them
            shown.width = NARROW
        return shown
    # In a pipe or a file a line is as long as it is: a path that is cut in two cannot be found again.
    whole: Any = _Trimmed(file)
    return Console(file=whole, width=_UNBOUNDED, highlight=False, markup=False, soft_wrap=False)


_UNBOUNDED = 100_000
NARROW = 80
"""Columns that tables have at least."""


class _Trimmed:
    """A text file without the spaces by which tables fill their last column."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write a whole number of lines."""
        return self._file.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def progress(title: str, total: int | None) -> tuple[Progress, Any]:
    """Return a progress display on standard error and its one task; use it as a context manager."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Progress(
        *columns, console=console(stderr=True, live=True), transient=True, disable=not sys.stderr.isatty()
    )
    return shown, shown.add_task(title, total=total)


def print_json(value: Any) -> None:
    """Print a value for scripts."""
    print(json.dumps(value, indent=2, default=str))


def size(number: float) -> str:
    """Return bytes as people read them: 1.5 MB."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.0f} {units[0]}" if units[0] == "B" or number >= 100 else f"{number:.1f} {units[0]}"


def moment(seconds: float) -> str:
    """Return seconds since 1970 as date and time of this machine's zone, to the minute."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """Return a time span as people read it: 12 s, 3 min, 5.2 h, 12 d."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2f} ms"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} d"
