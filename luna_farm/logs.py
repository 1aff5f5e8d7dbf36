"""What the farm says of itself: human lines on a terminal, JSON lines elsewhere and in a rotating file.

Every line that belongs to a job carries its id (`extra={"job_id": ...}`). Writing happens in a thread of its
own behind a bounded queue: a terminal that was paused or a disk that hangs must never hold the farm up, and
no secret that was named to `hide` may ever appear in a line (see there for very short ones).
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import time
from collections.abc import Callable
from typing import TextIO

from luna_farm.config import Config
from luna_farm.log_lines import HumanLines, JobLine, JsonLines, hide
from luna_farm.log_writer import Lines, StateFile, Target, Terminal, Writer

FILE_NAME = "luna-farm.log"
FILE_BYTES = 4 * 2**20
FILES_KEPT = 3
REPEATS, WARNINGS_REPEATED = 100, 20
"""Lines of one kind in REPEATS_S; those beyond are counted, and the next line of that kind says how many."""
REPEATS_S = 10.0
KINDS = 256

_root = logging.getLogger("luna_farm")
_asyncio = logging.getLogger("asyncio")
"""What the event loop says of itself belongs into our log, not as a traceback onto standard error."""
_writer: Writer | None = None
_queued: _Queued | None = None


def setup(config: Config, json: bool | None = None, *, stream: TextIO | None = None) -> None:
    """Start logging to luna-farm.log in the state folder and, unless it is None, to `stream`.

    `json`: True JSON lines, False human lines, None: human on a terminal. The file always gets JSON lines.
    Only the supervisor calls this: one process may rotate a file. A second call replaces what was set up.
    """
    global _writer, _queued
    close()
    hide(config.token)
    for secret in config.secrets:
        hide(secret)
    json_lines = JsonLines()
    lines = Lines()
    targets: list[Target] = [StateFile(config.state_dir / FILE_NAME, json_lines, FILE_BYTES, FILES_KEPT)]
    if stream is not None:
        live = stream.isatty()
        human = live if json is None else not json
        coloured = live and "NO_COLOR" not in os.environ
        targets.append(Terminal(stream, HumanLines(colour=coloured) if human else json_lines))
    _writer = Writer(lines, *targets)
    _root.setLevel(config.log_level.upper())
    _queued = _Queued(lines)
    _queued.addFilter(_Repeats())
    for logger in (_root, _asyncio):
        logger.addHandler(_queued)
        logger.propagate = False
    # What no line shows need not be found out for each: stack frame, thread and task of the caller.
    logging._srcfile = ""
    logging.logThreads = logging.logMultiprocessing = False
    # Standard error may be gone (`luna-farm start | head`); a farm does not fail, or shout, because of that.
    logging.raiseExceptions = False


def close() -> None:
    """Write what is still queued and stop the thread. Safe to call twice."""
    global _writer, _queued
    _queued = None
    for logger in (_root, _asyncio):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
    if _writer is not None:
        _writer.stop()
        _writer = None


atexit.register(close)


def about_job(logger: logging.Logger, level: int, text: str, job_id: str) -> None:
    """Log a line about a job. It goes straight to the thread that writes: there are three for each image, and
    the way of the library to there costs more than the line."""
    line = JobLine(logger.name, level, text, job_id)
    if _queued is not None:
        _queued.emit(line)
    else:
        logger.handle(line)


def reopen() -> None:
    """Write to a new file of the old name from now on: the open one was removed."""
    for target in _writer.targets if _writer is not None else ():
        if isinstance(target, StateFile):
            target.reopen()


class _Repeats(logging.Filter):
    """Leaves out what is said over and over: a fault that repeats itself a thousand times a second must not
    fill the disk. Lines about jobs always pass: there are as many as there are images."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written; add how many of its kind were left out before it."""
        if isinstance(record, JobLine):
            return True
        kind, now = (record.name, record.levelno, str(record.msg)), self._now()
        since, count = self._seen.get(kind, (now, 0))
        allowed = REPEATS if record.levelno < logging.WARNING else WARNINGS_REPEATED
        if now - since < REPEATS_S:
            if kind not in self._seen and len(self._seen) >= KINDS:
                self._seen.clear()
            self._seen[kind] = (since, count + 1)
            return count < allowed
        self._seen[kind] = (now, 1)
        if count > allowed:
            record.msg = f"{record.getMessage()} ({count - allowed} more lines like this were left out)"
            record.args = None
        return True


class _Queued(logging.Handler):
    """Hands records to the writing thread; when that is far behind, drops lines and says how many."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record into the queue, never waiting."""
        try:
            if self._dropped:
                gap = logging.LogRecord(
                    _root.name, logging.WARNING, "", 0, "%d log lines were dropped", (self._dropped,), None
                )
                self._lines.put_nowait(gap)
                self._dropped = 0
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1
