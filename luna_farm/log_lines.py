"""The lines of the log: for people, as JSON, and without any secret that was named to `hide`."""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import datetime, timezone

_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NAMES = {level: logging.getLevelName(level) for level in range(0, logging.CRITICAL + 1, 10)}
_PID = os.getpid()
_secrets: set[str] = set()
SHORTEST_SECRET = 6
"""Characters."""


def hide(secret: str) -> None:
    """Replace `secret` by *** in every line from now on. A short one is a part of ordinary words: hiding
    those would only show what it is."""
    if len(secret) >= SHORTEST_SECRET:
        _secrets.add(secret)


class JobLine(logging.LogRecord):
    """A line about a job, without all that logging finds out for a record and is never read."""

    def __init__(self, name: str, level: int, text: str, job_id: str) -> None:
        self.name, self.levelno, self.levelname = name, level, _NAMES[level]
        self.msg, self.args = text, None
        self.created, self.process = time.time(), _PID
        self.exc_info = self.exc_text = self.stack_info = None
        self.job_id = job_id


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

    _encode = json.JSONEncoder(default=str).encode

    def __init__(self) -> None:
        super().__init__()
        self._second: tuple[int, str] = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
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


def _masked(text: str) -> str:
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text


def _one_line(text: str) -> str:
    """Escape control characters: a name in a message must not be able to forge a line or move the cursor."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
