"""The uploader process: started when the first file has to be sent, given what to send, started again when it
ends.

Executes what the core decided (`core/uploads.py`). Like a worker it has one private pipe, and it is reported
gone only after it was collected. This module must never import a library of a service.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from typing import Any

from luna_farm.config_destinations import Destination
from luna_farm.core import events, frames
from luna_farm.core.instructions import StartUpload
from luna_farm.errors import FarmError
from luna_farm.supervisor.pool import exit_reason, signals_blocked
from luna_farm.worker import spawned

log = logging.getLogger("luna_farm.uploads")

START_AGAIN_S = 0.5
"""Pause before the uploader is started again after it has ended by itself."""
SLACK_S = 120.0
"""How long an upload may be late, beyond all limits of its requests, before the uploader is ended."""
BYTES_PER_S = 20_000.0


class Pipe(asyncio.Protocol):
    """The supervisor's end of the uploader's pipe."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._frames = frames.FrameBuffer()

    def data_received(self, data: bytes) -> None:
        """Turn messages into events."""
        self._frames.feed(data)
        try:
            while message := self._frames.next():
                self._uploads.received(message)
        except FarmError as error:
            log.error("The uploader sends what is no message and is ended: %s", error)
            self._uploads.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """The uploader has ended or is about to: collect it."""
        self._uploads.ended()


class Uploads:
    """The uploader of this supervisor. `handle_event` takes the events."""

    def __init__(
        self, handle_event: Callable[[events.Event], None], destinations: Sequence[Destination]
    ) -> None:
        self._handle_event = handle_event
        self._destinations = tuple(destinations)
        self._context = multiprocessing.get_context("spawn")
        self._process: SpawnProcess | None = None
        self._pipe: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._running: dict[int, tuple[StartUpload, float]] = {}
        """Number of the upload -> what it is, when it is overdue."""
        self._last = 0
        self._start_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def pid(self) -> int:
        """Process id of the uploader, 0 while there is none."""
        return (self._process.pid or 0) if self._process else 0

    def start(self, i: StartUpload) -> None:
        """Have a file sent; the answer is an event."""
        self._last += 1
        limit_s = SLACK_S + i.timeout_s + i.bytes / BYTES_PER_S
        self._running[self._last] = (i, time.monotonic() + limit_s)
        message = {"t": "upload", "id": self._last, "path": i.spool, "root": i.root, "name": i.name}
        self._unsent.append(frames.encode({**message, "again": i.again}))
        if self._process is None and self._task is None and not self._closing:
            self._task = asyncio.get_running_loop().create_task(self._spawn())

    def flush(self) -> None:
        """Send what was said since the last flush."""
        if self._unsent and self._pipe is not None and not self._pipe.is_closing():
            self._pipe.write(b"".join(self._unsent))
            self._unsent.clear()

    def watch(self) -> None:
        """End an uploader that is long past every limit: a library hangs in it."""
        now = time.monotonic()
        late = [i for i, overdue in self._running.values() if now > overdue]
        if late and self._pipe is not None:
            log.error("The uploader is ended: %s/%s is overdue.", late[0].root, late[0].name)
            self.kill()

    def kill(self) -> None:
        """End the uploader by force."""
        if self._process is not None:
            self._process.kill()

    def received(self, message: dict[str, Any]) -> None:
        """Turn a message of the uploader into an event."""
        if message["t"] == "ready":
            self._handle_event(events.UploaderReady(message["pid"], message["created"]))
            return
        i, _ = self._running.pop(message["id"])
        self._handle_event(
            events.UploadFinished(
                i.job_id,
                i.index,
                i.number,
                name=message.get("name", ""),
                bytes=message.get("bytes", 0),
                error=message.get("error", ""),
                decision=message.get("decision", ""),
                wait_s=message.get("wait_s", 0.0),
            )
        )

    def ended(self) -> None:
        """The pipe is closed: wait for the end of the process, then report what it had in hand."""
        self._pipe = None
        self._task = asyncio.get_running_loop().create_task(self._collect())

    async def _spawn(self) -> None:
        await asyncio.sleep(max(0.0, self._start_at - time.monotonic()))
        self._start_at = time.monotonic() + START_AGAIN_S
        ours, theirs = socket.socketpair()
        process = self._context.Process(
            target=spawned.start_uploader,
            args=(theirs, self._destinations),
            name="luna-farm uploader",
            daemon=True,
        )
        try:
            with signals_blocked():
                process.start()
        except OSError as error:
            ours.close()
            log.error("The uploader could not be started: %s", error)
            self._task = None
            self._interrupted()
            return
        finally:
            theirs.close()
        self._process = process
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        self._pipe, _ = await loop.create_connection(lambda: Pipe(self), sock=ours)
        self._task = None
        self.flush()

    async def _collect(self) -> None:
        process = self._process
        assert process is not None, "a pipe has a process"
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, process.join, 2.0)
        if process.exitcode is None:
            process.kill()
            await loop.run_in_executor(None, process.join)
        if not self._closing:
            log.warning("The uploader has ended (%s); it is started again.", exit_reason(process.exitcode))
        process.close()
        self._process, self._task = None, None
        self._interrupted()

    def _interrupted(self) -> None:
        running, self._running = self._running, {}
        self._unsent.clear()
        for i, _ in running.values():
            self._handle_event(events.UploadFinished(i.job_id, i.index, i.number, decision="interrupted"))

    async def close(self) -> None:
        """End the uploader and wait until it is collected. What it has in hand is sent by the next farm."""
        self._closing = True
        while self._task is not None or self._process is not None:
            self.kill()
            if self._task is not None:
                await asyncio.wait({self._task})
            else:
                await asyncio.sleep(0.002)  # killed, and the loop has not seen the end of its pipe yet
