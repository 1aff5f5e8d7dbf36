"""Named crash points: places where a test lets a process die, stop or meet a disk error, exactly there.

They are shipped and stand in the real code, because a crash test against a copy proves nothing. While the
environment variable below is not set, `crash_point` is an empty function and nothing else happens. This
module must never import anything of the project, and must never be armed by anything but the environment at
start.

`LUNA_FARM_CRASH`        "point[:nth[:how]]", several with commas. nth: at which passing of the point in this
                         process (default 1), or `*` for every one. how: `kill` (default: SIGKILL, nothing is
                         cleaned up), `stop` (SIGSTOP: hangs until SIGCONT), `raise:NAME` (OSError of that
                         errno name, such as raise:ENOSPC).
`LUNA_FARM_CRASH_ONCE`   a folder: each point fires at most once over all processes that share it, and leaves
                         a file of its name holding the pid. Tests prove by these files that a point fired.
`LUNA_FARM_CRASH_WHILE`  a file: points fire only while it exists (a disk that is full now and free later).

On Windows there is no SIGKILL or SIGSTOP: `kill` and `stop` both end the process by TerminateProcess.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping

POINTS = (
    "writer.created",
    "writer.half_written",
    "writer.written",
    "writer.synced",
    "writer.noted",
    "writer.claimed",
    "writer.named",
    "writer.folder_synced",
    "worker.received",
    "worker.encoded",
    "worker.reported",
    "ray.sent",
    "ray.sending",
    "ray.stored",
    "ray.received",
    "supervisor.leased",
    "supervisor.submitted",
    "supervisor.journaled",
    "supervisor.acknowledged",
    "supervisor.dispatched",
    "supervisor.result_received",
    "supervisor.result_journaled",
    "journal.half_record",
    "journal.compacting",
    "spool.half_written",
    "spool.written",
    "upload.half_spooled",
    "upload.spooled",
    "upload.sending",
    "upload.stored",
    "archive.image_written",
    "archive.ended",
    "archive.linked",
    "archive.spooling",
    "archive.adding",
    "archive.synced",
    "dead_letter.pixels_written",
    "catalogue.written",
)
"""Every crash point there is, in the order an image meets them."""


if sys.platform == "win32":
    _KILL = _STOP = signal.SIGTERM
else:
    _KILL, _STOP = signal.SIGKILL, signal.SIGSTOP


class Faults:
    """What one process does at which passing of which point."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the three variables; raises ValueError for an unknown point, count or way to die."""
        self._plan: dict[str, tuple[int, str]] = {}
        self._passed: dict[str, int] = {}
        self._once = environ.get("LUNA_FARM_CRASH_ONCE", "")
        self._while = environ.get("LUNA_FARM_CRASH_WHILE", "")
        for text in filter(None, environ.get("LUNA_FARM_CRASH", "").split(",")):
            point, nth, how = (*text.strip().split(":", 2), "", "")[:3]
            if point not in POINTS:
                known = ", ".join(POINTS)
                raise ValueError(f"LUNA_FARM_CRASH: {point!r} is no crash point; there are: {known}.")
            if point in self._plan:
                raise ValueError(f"LUNA_FARM_CRASH: {point!r} is there twice; allowed: each point once.")
            _check_how(how or "kill", text)
            self._plan[point] = (_count(nth or "1", text), how or "kill")

    def __bool__(self) -> bool:
        return bool(self._plan)

    def due(self, name: str) -> str:
        """Count one passing of `name` and return how the process is to fail there, or "" to go on."""
        if name not in self._plan:
            return ""
        nth, how = self._plan[name]
        if self._while and not os.path.exists(self._while):
            return ""
        self._passed[name] = self._passed.get(name, 0) + 1
        if nth not in (0, self._passed[name]) or not self._first_of_all(name):
            return ""
        return how

    def _first_of_all(self, name: str) -> bool:
        if not self._once:
            return True
        try:
            fd = os.open(os.path.join(self._once, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        os.write(fd, str(os.getpid()).encode("ascii"))
        os.close(fd)
        return True

    def at(self, name: str) -> None:
        """Pass the point `name`: die, stop, raise OSError, or, most of the time, return."""
        how = self.due(name)
        if how:
            _fail(how)

    def half_write(self, name: str, fd: int, data: bytes | memoryview) -> None:
        """Pass the point `name`, in front of a write of `data` to `fd`: when it fires, half of the data is
        written first, as by a process that dies, or a disk that fills up, in the middle of a write."""
        how = self.due(name)
        if how:
            os.write(fd, data[: len(data) // 2])
            _fail(how)


def _count(nth: str, text: str) -> int:
    if nth == "*":
        return 0
    if not nth.isdigit() or int(nth) < 1:
        raise ValueError(f"LUNA_FARM_CRASH: {text!r} has the count {nth!r}; allowed: 1, 2, ... or *.")
    return int(nth)


def _check_how(how: str, text: str) -> None:
    kind, _, name = how.partition(":")
    if kind in ("kill", "stop") and not name:
        return
    if kind != "raise" or not isinstance(getattr(errno, name, None), int):
        raise ValueError(f"LUNA_FARM_CRASH: {text!r} ends in {how!r}; allowed: kill, stop, raise:ERRNO_NAME.")


def _fail(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), _KILL)
    elif how == "stop":
        os.kill(os.getpid(), _STOP)
    else:
        number: int = getattr(errno, how.partition(":")[2])
        raise OSError(number, f"{os.strerror(number)} (simulated)")


def _nothing(name: str) -> None:
    """Stand in for `Faults.at` while no fault is planned."""


def _nothing_written(name: str, fd: int, data: bytes | memoryview) -> None:
    """Stand in for `Faults.half_write` while no fault is planned."""


_faults = Faults(os.environ)

crash_point: Callable[[str], None] = _faults.at if _faults else _nothing
"""`crash_point("writer.named")`: fails here if the environment says so. Chosen once, at import: off costs 30
ns."""

half_write: Callable[[str, int, bytes | memoryview], None] = (
    _faults.half_write if _faults else _nothing_written
)
"""`half_write("journal.half_record", fd, data)`: the same in front of a write, leaving half of `data` in the
file."""
