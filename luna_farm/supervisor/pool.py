"""The worker processes: spawned, spoken to over one private pipe each, ended, and collected.

Executes what the core decided. One pipe a worker, never a queue that they share: a queue's lock can die with
its holder. A worker is reported gone only after it was collected, so that nothing of it can still write.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any

import psutil

from luna_farm import system
from luna_farm.config_provenance import UNSIGNED, Signing
from luna_farm.core import events, frames
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.errors import FarmError
from luna_farm.storage import notes
from luna_farm.testing.faults import crash_point
from luna_farm.worker import spawned

log = logging.getLogger("luna_farm.pool")

FENCE_S = 5.0
"""How long to wait for a killed worker of a predecessor to be gone."""


class Pipe(asyncio.Protocol):
    """The supervisor's end of one worker's pipe."""

    def __init__(self, pool: Pool, worker: int) -> None:
        self._pool = pool
        self._worker = worker
        self._frames = frames.FrameBuffer()

    def data_received(self, data: bytes) -> None:
        """Turn messages into events."""
        self._frames.feed(data)
        try:
            while message := self._frames.next():
                self._pool.heard(self._worker, message)
        except FarmError as error:
            log.error("Worker %d speaks nonsense and is ended: %s", self._worker, error)
            self._pool.kill(self._worker, "it spoke nonsense")

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has ended or is about to: collect it."""
        self._pool.ended(self._worker)


class Pool:
    """All worker processes of this supervisor. `handle_event` takes the events."""

    def __init__(
        self,
        handle_event: Callable[[events.Event], None],
        fsync: bool,
        notes: str | os.PathLike[str],
        signing: Signing = UNSIGNED,
        uploads: str = "",
    ) -> None:
        """`notes` is the folder for the notes of workers."""
        self._notes = os.fspath(notes)
        self._handle_event = handle_event
        self._fsync = fsync
        self._signing = signing
        self._uploads = uploads
        """Folder of the upload spool."""
        self._context = multiprocessing.get_context("spawn")
        _without_tracker()
        self._processes: dict[int, SpawnProcess] = {}
        self._pipes: dict[int, asyncio.Transport] = {}
        self._collecting: set[asyncio.Task[None]] = set()
        self._why: dict[int, str] = {}
        self._unsent: dict[int, list[bytes]] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._processes)

    def spawn(self, worker: int) -> None:
        """Start a process; it reports ready by itself."""
        if self._closing:
            return
        task = asyncio.get_running_loop().create_task(self._spawn(worker))
        self._collecting.add(task)
        task.add_done_callback(self._collecting.discard)

    async def _spawn(self, worker: int) -> None:
        try:
            process, ours = self._started(worker)
        except OSError as error:
            log.error("A worker could not be started: %s", error)
            await asyncio.sleep(1.0)  # out of processes or file descriptors: not again at once
            self._handle_event(events.WorkerGone(worker, f"could not be started: {error}"))
            return
        self._processes[worker] = process
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: Pipe(self, worker), sock=ours)
        self._pipes[worker] = transport

    def _started(self, worker: int) -> tuple[SpawnProcess, socket.socket]:
        """Start a process; return it and our end of its pipe. Raises OSError and leaves nothing open then."""
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs, signals_blocked():
                process = self._context.Process(
                    target=spawned.start,
                    args=(theirs, self._fsync, self._notes_of(worker), self._signing, self._uploads),
                    name=f"luna-farm worker {worker}",
                    daemon=True,
                )
                process.start()
            ours.setblocking(False)
            undo.pop_all()
        return process, ours

    def dispatch(self, worker: int, task: ImageTask, options: SaveOptions) -> None:
        """Hand an image to a worker."""
        self._tell(worker, {"t": "image", "task": task.to_map(), "options": options.to_map()})

    def retire(self, worker: int, why: str) -> None:
        """Ask a worker to end."""
        self._why[worker] = why
        self._tell(worker, {"t": "stop"})

    def forget(self, segment: str) -> None:
        """Have all workers let go of a segment."""
        for worker in self._pipes:
            self._tell(worker, {"t": "forget", "segment": segment})

    def kill(self, worker: int, why: str) -> None:
        """End a worker by force (SIGKILL; TerminateProcess on Windows)."""
        self._why[worker] = why
        process = self._processes.get(worker)
        if process is not None:
            process.kill()

    def _tell(self, worker: int, message: dict[str, Any]) -> None:
        if worker in self._pipes:
            self._unsent.setdefault(worker, []).append(frames.encode(message))

    def flush(self) -> None:
        """Send what was said since the last flush, all of it to one worker in one write: each wakes it up."""
        for worker, messages in self._unsent.items():
            pipe = self._pipes.get(worker)
            if pipe is not None and not pipe.is_closing():
                pipe.write(messages[0] if len(messages) == 1 else b"".join(messages))
        self._unsent.clear()

    def heard(self, worker: int, message: dict[str, Any]) -> None:
        """Turn a message of a worker into an event."""
        kind = message["t"]
        if kind == "result":
            result = ImageResult.from_map(message["result"])
            crash_point("supervisor.result_received")
            self._handle_event(events.ImageFinished(worker, message["job_id"], message["index"], result))
        elif kind == "ready":
            self._handle_event(
                events.WorkerReady(worker, message["pid"], message["created"], message["encoders"])
            )

    def ended(self, worker: int) -> None:
        """The pipe of a worker is closed: wait for its end in a thread, then report it."""
        self._pipes.pop(worker, None)
        task = asyncio.get_running_loop().create_task(self._collect(worker))
        self._collecting.add(task)
        task.add_done_callback(self._collecting.discard)

    async def _collect(self, worker: int) -> None:
        process = self._processes[worker]
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, process.join, 2.0)
        if process.exitcode is None:  # closed its pipe and lives: not a worker any more
            process.kill()
            await loop.run_in_executor(None, process.join)
        code = process.exitcode
        process.close()
        del self._processes[worker]
        why = self._why.pop(worker, "") or exit_reason(code)
        left = notes.read(self._notes_of(worker))
        self._handle_event(events.WorkerGone(worker, why, tuple(left)))
        if not self._closing:  # else the next start reads them
            notes.remove(self._notes_of(worker))

    def _notes_of(self, worker: int) -> str:
        return os.path.join(self._notes, str(worker))

    async def close(self, patience_s: float) -> None:
        """End all that are left and wait until they are collected.

        They have `patience_s` to finish what was sent to them before.
        """
        self._closing = True
        for worker in list(self._pipes):
            self.retire(worker, "the farm stops")
        self.flush()
        if patience_s:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_collected(), patience_s)
        for worker in list(self._processes):
            self.kill(worker, "the farm stops")
        await self._all_collected()

    async def _all_collected(self) -> None:
        while self._processes or self._collecting:
            if self._collecting:
                await asyncio.wait(set(self._collecting))
            else:
                await asyncio.sleep(
                    0.002
                )  # dead or about to be, and the loop has not seen the end of its pipe yet


def _without_tracker() -> None:
    """Keep multiprocessing from starting its resource tracker beside the first worker: a process of 6 MB that
    unlinks what was registered with it, and nothing of ours ever is (see `storage/mapping.py`). It takes any
    descriptor that can be written to for that of a tracker that runs."""
    tracker: Any = getattr(resource_tracker, "_resource_tracker", None)
    if sys.platform != "win32" and getattr(tracker, "_fd", 0) is None:
        tracker._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"ended by signal {-code}"
    return f"ended with exit code {code}"


@contextmanager
def signals_blocked() -> Iterator[None]:
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


def fence(workers: list[tuple[int, float]]) -> int:
    """Kill the workers of a dead supervisor and wait until they are gone; returns how many there were.

    They would leave by themselves once their file is written; a hung one would not, and could write later. A
    pid counts only together with the time at which its process started.
    """
    left = [(pid, started) for pid, started in workers if system.process_started(pid) == started]
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
