"""What the farm says of itself: human lines on a terminal, JSON lines elsewhere and in a rotating file.

Every line that belongs to a job carries its id (`extra={"job_id": ...}`). Writing happens in a thread of its
own behind a bounded queue: a terminal that was paused or a disk that hangs must never hold the farm up, and
no secret that was named to `hide` may ever appear in a line.
"""

from __future__ import annotations

import atexit
import contextlib
import json as jsonlib
import logging
import logging.handlers
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from luna_farm.config import Config

FILE_NAME = "luna-farm.log"
FILE_BYTES = 4 * 2**20
FILES_KEPT = 3
QUEUED_LINES = 10_000
REPEATS, WARNINGS_REPEATED = 100, 20
"""Lines of one kind in REPEATS_S; those beyond are counted, and the next line of that kind says how many."""
REPEATS_S = 10.0
KINDS = 256
TOGETHER = 500
"""Lines of one write to the terminal, at most."""
BATCH_S = 0.05
"""How long lines may wait for others to be written with; what a kill -9 can cost the log."""

_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_root = logging.getLogger("luna_farm")
_asyncio = logging.getLogger("asyncio")
"""What the event loop says of itself belongs into our log, not as a traceback onto standard error."""
_PID = os.getpid()
_secrets: set[str] = set()
_listener: logging.handlers.QueueListener | None = None
_queued: _Queued | None = None


def setup(config: Config, json: bool | None = None, *, stream: TextIO | None = None) -> None:
    """Start logging to luna-farm.log in the state folder and, unless it is None, to `stream`.

    `json`: True JSON lines, False human lines, None: human on a terminal. The file always gets JSON lines.
    Only the supervisor calls this: one process may rotate a file. A second call replaces what was set up.
    """
    global _listener, _queued
    close()
    hide(config.token)
    for secret in config.secrets:
        hide(secret)
    json_lines = JsonLines()
    lines = _Batches()
    handlers: list[logging.Handler] = [_StateFile(config.state_dir / FILE_NAME, json_lines, lines)]
    if stream is not None:
        live = stream.isatty()
        human = live if json is None else not json
        terminal = _Terminal(stream, lines)
        terminal.setFormatter(
            HumanLines(colour=live and "NO_COLOR" not in os.environ) if human else json_lines
        )
        handlers.append(terminal)
    _listener = _Writer(lines, *handlers)
    _listener.start()
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
    global _listener, _queued
    _queued = None
    for logger in (_root, _asyncio):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
    if _listener is not None:
        _listener.stop()
        for handler in _listener.handlers:
            handler.close()
        _listener = None


atexit.register(close)


def about_job(logger: logging.Logger, level: int, text: str, job_id: str) -> None:
    """Log a line about a job. It goes straight to the thread that writes: there are three for each image, and
    the way of the library to there costs more than the line."""
    line = JobLine(logger.name, level, text, job_id)
    if _queued is not None:
        _queued.enqueue(line)
    else:
        logger.handle(line)


def reopen() -> None:
    """Write to a new file of the old name from now on: the open one was removed."""
    for handler in _listener.handlers if _listener is not None else ():
        if isinstance(handler, _StateFile):
            handler.reopen()


def hide(secret: str) -> None:
    """Replace `secret` by *** in every line from now on."""
    if secret:
        _secrets.add(secret)


class HumanLines(logging.Formatter):
    """`[Image Save] Job a1b2c3d4: Saved to out/a.png`, and `[Luna Farm] ...` for what belongs to no job."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        job = getattr(record, "job_id", "")
        text = _masked(record.getMessage()).removeprefix(f"Job {job}: ")
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname}: {text}"
        if record.exc_info and record.levelno >= logging.ERROR:
            text += "\n" + _masked(self.formatException(record.exc_info))
        line = f"[Image Save] Job {job}: {text}" if job else f"[Luna Farm] {text}"
        line = _one_line(line) if not record.exc_info else line
        colour = _COLOURS.get(record.levelno, "") if self._colour else ""
        return f"\033[{colour}m{line}\033[0m" if colour else line


class JsonLines(logging.Formatter):
    """One JSON object a line: timestamp (ISO 8601, UTC), level, logger, pid, message and the extras."""

    _encode = jsonlib.JSONEncoder(default=str).encode

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[logging.LogRecord | None, str] = (None, "")
        self._second: tuple[int, str] = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline; a record for both terminal and file is worded once."""
        if self._last[0] is not record:
            self._last = (record, self._line(record))
        return self._last[1]

    def _line(self, record: logging.LogRecord) -> str:
        if type(record) is JobLine:  # in a quarter of the time: there are three for each image
            about = self._encode(record.msg), self._encode(record.job_id)
            return _masked(
                f'{{"timestamp": "{self._when(record.created)}", "level": "{record.levelname.lower()}",'
                f' "logger": "{record.name}", "pid": {record.process}, "message": {about[0]},'
                f' "job_id": {about[1]}}}'
            )
        entry = {
            "timestamp": self._when(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
        }
        entry["message"] = record.getMessage()
        entry.update(
            (key, vars(record)[key]) for key in vars(record).keys() - _STANDARD if vars(record)[key] != ""
        )
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _masked(self._encode(entry))

    def _when(self, created: float) -> str:
        second, milliseconds = divmod(int(created * 1000), 1000)
        if second != self._second[0]:
            moment = datetime.fromtimestamp(second, timezone.utc)
            self._second = (second, moment.strftime("%Y-%m-%dT%H:%M:%S"))
        return f"{self._second[1]}.{milliseconds:03d}+00:00"


class _Batches:
    """A bounded queue whose reader is woken once a batch: waking a thread for every line cost a busy farm a
    fifth of its processor."""

    def __init__(self) -> None:
        self._lines: deque[Any] = deque()
        self._awake = threading.Event()

    def put_nowait(self, line: Any) -> None:
        """Put a line; raises queue.Full. The `None` by which the listener is ended always fits."""
        if line is not None and len(self._lines) >= QUEUED_LINES:
            raise queue.Full
        self._lines.append(line)
        if not self._awake.is_set():
            self._awake.set()

    def get(self, block: bool = True) -> Any:
        """Return the next line; sleeps until there is one, and then until there may be more."""
        while not self._lines:
            self._awake.clear()
            if not self._lines:
                self._awake.wait()
                time.sleep(BATCH_S)
        return self._lines.popleft()

    @property
    def empty(self) -> bool:
        """Nothing more is to be written now."""
        return not self._lines


class JobLine(logging.LogRecord):
    """A line about a job, without all that logging finds out for a record and is never read."""

    def __init__(self, name: str, level: int, text: str, job_id: str) -> None:
        self.name, self.levelno, self.levelname = name, level, logging.getLevelName(level)
        self.msg, self.args = text, None
        self.created, self.process = time.time(), _PID
        self.exc_info = self.exc_text = self.stack_info = None
        self.job_id = job_id


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


class _Writer(logging.handlers.QueueListener):
    """The thread that writes. Whatever a line does to it, the next one is written."""

    def handle(self, record: logging.LogRecord) -> None:
        """Write one line."""
        with contextlib.suppress(Exception):
            super().handle(record)


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # takes no [...] before Python 3.11


class _Terminal(_StreamHandler):
    """Standard error, written once a batch: it would write each line by itself, and give the interpreter up
    for that each time."""

    def __init__(self, stream: TextIO, lines: _Batches) -> None:
        super().__init__(stream)
        self._lines = lines
        self._collected: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line, and write what was collected unless more is to come at once."""
        self._collected.append(self.format(record))
        if self._lines.empty or len(self._collected) >= TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._collected:
            text = "\n".join((*self._collected, ""))
            self._collected.clear()
            self.stream.write(text)
        super().flush()

    def close(self) -> None:
        """Write what was collected, and let go of the stream, which stays open."""
        with contextlib.suppress(OSError, ValueError):  # it is gone
            self.flush()
        super().close()


class _Queued(logging.handlers.QueueHandler):
    """Hands records to the writing thread; when that is far behind, drops lines and says how many."""

    queue: Any
    _dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Take the record as it is: it stays in this process, so nothing of it need be flattened."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put the record into the queue, never waiting."""
        try:
            if self._dropped:
                gap = logging.LogRecord(
                    _root.name, logging.WARNING, "", 0, "%d log lines were dropped", (self._dropped,), None
                )
                self.queue.put_nowait(gap)
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1


class _StateFile(logging.handlers.RotatingFileHandler):
    """The rotating file, readable by its owner only: paths and prompts are private."""

    def __init__(self, path: Path, formatter: logging.Formatter, lines: _Batches) -> None:
        self._lines = lines
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bytes = path.stat().st_size if path.exists() else 0
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8", delay=True)
        self.setFormatter(formatter)

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802  the name is that of the base class
        """Count bytes instead of asking the disk before each line; JSON lines are ASCII."""
        self._bytes += len(self.format(record)) + 1
        if self._bytes <= self.maxBytes:
            return False
        self._bytes = 0
        return True

    def flush(self) -> None:
        """Write what was collected, unless more is to come at once."""
        if self._lines.empty:
            super().flush()

    def reopen(self) -> None:
        """Let go of the open file; the next line opens one of the old name."""
        with self.lock or contextlib.nullcontext():
            if self.stream is not None and not os.path.exists(self.baseFilename):
                self.stream.close()
                self.stream, self._bytes = None, 0

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)

        return open(self.baseFilename, "a", encoding="utf-8", opener=private)


def _masked(text: str) -> str:
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text


def _one_line(text: str) -> str:
    """Escape control characters: a name in a message must not be able to forge a line or move the cursor."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
