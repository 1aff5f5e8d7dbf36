"""The thread that writes the log. It takes many lines at a time, words each once, and writes them at once to
the terminal and to the rotating file.

A terminal that was paused or a disk that hangs must never hold the farm up, and a line that cannot be written
must cost only itself.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Protocol, TextIO

QUEUED_LINES = 10_000
TOGETHER = 500
"""Lines of one write, at most."""
BATCH_S = 0.05
"""How long lines may wait for others to be written with; what a kill -9 can cost the log."""


class Lines:
    """A bounded queue whose reader is woken once a batch: waking a thread for every line cost a busy farm a
    fifth of its processor."""

    def __init__(self) -> None:
        self._lines: deque[logging.LogRecord] = deque()
        self._asleep = False
        self._awake = threading.Event()
        self._closed = False

    def put_nowait(self, line: logging.LogRecord) -> None:
        """Put a line; raises queue.Full."""
        if len(self._lines) >= QUEUED_LINES:
            raise queue.Full
        self._lines.append(line)
        if self._asleep:  # set before the reader looks for the last time: it misses no line
            self._asleep = False
            self._awake.set()

    def take(self) -> list[logging.LogRecord]:
        """Return the next lines; sleeps until there is one, and then until there may be more. [] once the
        queue is closed and empty."""
        while not self._lines and not self._closed:
            self._awake.clear()
            self._asleep = True
            if not self._lines and not self._closed:
                self._awake.wait()
                time.sleep(0.0 if self._closed else BATCH_S)
        return [self._lines.popleft() for _ in range(min(len(self._lines), TOGETHER))]

    def close(self) -> None:
        """Let the reader end once it has taken what is there."""
        self._closed = True
        self._awake.set()


class Target(Protocol):
    """Where lines go."""

    formatter: logging.Formatter

    def write(self, lines: Sequence[str]) -> None:
        """Write lines, which have no newlines at their ends."""

    def close(self) -> None:
        """Let go of what was open."""


class Writer:
    """The thread and its targets. Lines for two targets with one formatter are worded once."""

    def __init__(self, lines: Lines, *targets: Target) -> None:
        self._lines = lines
        self.targets = targets
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued, end the thread, close the targets."""
        self._lines.close()
        self._thread.join()
        for target in self.targets:
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
                target.close()

    def _run(self) -> None:
        while records := self._lines.take():
            texts: dict[logging.Formatter, list[str]] = {}
            for target in self.targets:
                if target.formatter not in texts:
                    texts[target.formatter] = _worded(target.formatter, records)
                with contextlib.suppress(Exception):  # whatever it is, the next lines are written
                    target.write(texts[target.formatter])


def _worded(formatter: logging.Formatter, records: list[logging.LogRecord]) -> list[str]:
    texts = []
    for record in records:
        try:
            texts.append(formatter.format(record))
        except Exception:  # noqa: S112  there is nowhere to say so
            continue
    return texts


class Terminal:
    """Standard error, or another stream. It stays open."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        self.formatter = formatter
        self._stream = stream

    def write(self, lines: Sequence[str]) -> None:
        """Write lines at once: each write gives the interpreter up."""
        self._stream.write("\n".join((*lines, "")))
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


class StateFile(logging.handlers.RotatingFileHandler):
    """The rotating file, readable by its owner only: paths and prompts are private."""

    formatter: logging.Formatter

    def __init__(self, path: Path, formatter: logging.Formatter, most_bytes: int, kept: int) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bytes = path.stat().st_size if path.exists() else 0
        super().__init__(path, maxBytes=most_bytes, backupCount=kept, encoding="utf-8", delay=True)
        self.formatter = formatter

    def write(self, lines: Sequence[str]) -> None:
        """Write lines, with a new file wherever one is full."""
        with self.lock or contextlib.nullcontext():
            begun = 0
            for number, line in enumerate(lines):
                self._bytes += len(line) + 1  # JSON lines are ASCII
                if self._bytes > self.maxBytes:
                    self._put(lines[begun:number])
                    begun, self._bytes = number, len(line) + 1
                    self.doRollover()
            self._put(lines[begun:])

    def _put(self, lines: Sequence[str]) -> None:
        if lines:
            self.stream = self.stream or self._open()
            self.stream.write("\n".join((*lines, "")))
            self.stream.flush()

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
