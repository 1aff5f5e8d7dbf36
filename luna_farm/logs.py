"""What the farm says of itself: human lines on a terminal, JSON lines elsewhere and in a rotating file.

Every line that belongs to a job carries its id (`extra={"job_id": ...}`). Writing happens in a thread of its
own behind a bounded queue: a terminal that was paused or a disk that hangs must never hold the farm up, and
no secret that was named to `hide` may ever appear in a line.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import logging.handlers
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from luna_farm.config import Config
from luna_farm.log_lines import HumanLines, JobLine, JsonLines, hide

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

_root = logging.getLogger("luna_farm")
_asyncio = logging.getLogger("asyncio")
"""What the event loop says of itself belongs into our log, not as a traceback onto standard error."""
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
