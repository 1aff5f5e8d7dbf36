"""A spawned process, spoken to over one private pipe, ended, and collected.

One pipe a process, never a queue that they share: a queue's lock can die with its holder. A process is
reported as ended only after it was collected, so that nothing of it can still write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any

import psutil

from luna_farm import system
from luna_farm.core import frames
from luna_farm.errors import FarmError

log = logging.getLogger("luna_farm.engine")

FENCE_S = 5.0
"""How long to wait for a killed process of a predecessor to be gone."""
START_AGAIN_S = 1.0
"""Pause after a process could not be started: out of processes or file descriptors is not over at once."""
CLOSED_S = 2.0
"""How long a process that has closed its pipe may take to end."""

Message = dict[str, Any]


class Child(asyncio.Protocol):
    """One process and our end of its pipe: started when it is made, within a running loop.

    `target(pipe, *args)` is what it becomes. `received` takes its messages. `ended` is called once, after the
    process was collected or could not be started, with the reason.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., None],
        args: Sequence[Any],
        received: Callable[[Message], None],
        ended: Callable[[str], None],
        *,
        start_at: float = 0.0,
    ) -> None:
        """`start_at`: monotonic time before which it is not started."""
        self._name, self._target, self._args = name, target, args
        self._received, self._ended = received, ended
        self._frames = frames.FrameBuffer()
        self._unsent: list[bytes] = []
        self._process: SpawnProcess | None = None
        self._pipe: asyncio.Transport | None = None
        self._why = ""
        self._life = asyncio.get_running_loop().create_task(self._live(start_at))
        self._closed = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is started and after its end."""
        return (self._process.pid or 0) if self._process else 0

    def send(self, message: Message) -> None:
        """Have a message sent by the next `flush`; one that is still starting gets it once it runs."""
        self._unsent.append(frames.encode(message))

    def flush(self) -> None:
        """Send what was said since the last flush in one write: each wakes the process up."""
        if self._unsent and self._pipe is not None and not self._pipe.is_closing():
            self._pipe.write(self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent))
            self._unsent.clear()

    def kill(self, why: str = "") -> None:
        """End it by force (SIGKILL; TerminateProcess on Windows); `why` becomes the reason of its end."""
        self._why = why or self._why
        if self._process is not None:
            self._process.kill()

    def retire(self, why: str) -> None:
        """Ask it to end."""
        self._why = why
        self.send({"t": "stop"})

    async def wait(self) -> None:
        """Return once it was collected and `ended` was called."""
        await asyncio.wait({self._life})

    async def _live(self, start_at: float) -> None:
        await asyncio.sleep(max(0.0, start_at - time.monotonic()))
        loop = asyncio.get_running_loop()
        try:
            process, ours = self._started()
        except OSError as error:
            log.error("The %s could not be started: %s", self._name, error)
            await asyncio.sleep(START_AGAIN_S)
            self._ended(f"could not be started: {error}")
            return
        self._process = process
        if self._why:  # killed before there was anything to kill
            process.kill()
        self._pipe, _ = await loop.create_connection(lambda: self, sock=ours)
        self.flush()
        await self._closed.wait()
        self._pipe = None
        await loop.run_in_executor(None, process.join, CLOSED_S)
        if process.exitcode is None:  # closed its pipe and lives: of no use any more
            process.kill()
            await loop.run_in_executor(None, process.join)
        code = process.exitcode
        process.close()
        self._process = None
        self._ended(self._why or exit_reason(code))

    def _started(self) -> tuple[SpawnProcess, socket.socket]:
        """Start the process; return it and our end of its pipe. Raises OSError and leaves nothing open
        then."""
        _without_tracker()
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs, _signals_blocked():
                process = multiprocessing.get_context("spawn").Process(
                    target=self._target,
                    args=(theirs, *self._args),
                    name=f"luna-farm {self._name}",
                    daemon=True,
                )
                process.start()
            ours.setblocking(False)
            undo.pop_all()
        return process, ours

    def data_received(self, data: bytes) -> None:
        """Hand messages on; a process that sends none is ended."""
        self._frames.feed(data)
        try:
            while message := self._frames.next():
                self._received(message)
        except FarmError as error:
            log.error("The %s sends what is no message and is ended: %s", self._name, error)
            self.kill("it sent what is no message")

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended or is about to: collect it."""
        self._closed.set()


def _without_tracker() -> None:
    """Keep multiprocessing from starting its resource tracker beside the first worker: a process of 6 MB that
    unlinks what was registered with it, and nothing of ours ever is (see `storage/mapping.py`). It takes any
    descriptor that can be written to for that of a tracker that runs."""
    tracker: Any = getattr(resource_tracker, "_resource_tracker", None)
    if sys.platform != "win32" and getattr(tracker, "_fd", 0) is None:
        tracker._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def exit_reason(code: int | None) -> str:
    """Return what an exit code says, for people."""
    if code is not None and code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"ended by signal {-code}"
    return f"ended with exit code {code}"


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keep Ctrl-C away from a process that is being started; it inherits the mask. Windows has no masks, and
    there CREATE_NEW_PROCESS_GROUP is not needed either: the worker ignores SIGINT as its first act."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fence(processes: list[tuple[int, float]]) -> int:
    """Kill the processes of a dead supervisor and wait until they are gone; returns how many there were.

    They would leave by themselves once their file is written; a hung one would not, and could write later. A
    pid counts only together with the time at which its process started.
    """
    left = [(pid, started) for pid, started in processes if system.process_started(pid) == started]
    for pid, _ in left:
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            log.warning("Process %d belongs to another user and cannot be an old worker.", pid)
    alive = left
    deadline = time.monotonic() + FENCE_S
    while alive and time.monotonic() < deadline:
        alive = [(pid, started) for pid, started in alive if system.process_started(pid) == started]
        time.sleep(
            0.001 if alive else 0.0
        )  # nothing else goes on yet: no client is served before this is over
    for pid, _ in alive:
        log.error(
            "Old worker %d cannot be ended (a dead network folder?); its image may be written twice.", pid
        )
    return len(left)
