"""The workers of this machine: one spawned process each."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from luna_farm.core import events
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.engine.child import Child, Message
from luna_farm.engine.pool import HandleEvent, WorkerSettings, finished, gone, image_message
from luna_farm.worker import spawned


class LocalPool:
    """All worker processes of this supervisor, a `Pool`."""

    def __init__(self, handle_event: HandleEvent, settings: WorkerSettings) -> None:
        self._handle_event = handle_event
        self._settings = settings
        self._workers: dict[int, Child] = {}
        self._told: set[Child] = set()
        """Those with something to send at the next flush."""
        self._closing = False

    def spawn(self, worker: int) -> None:
        """Start a process; it reports ready by itself."""
        if self._closing:
            return
        settings = self._settings
        self._workers[worker] = Child(
            f"worker {worker}",
            spawned.start,
            settings.of_worker(worker),
            partial(self._received, worker),
            partial(self._ended, worker),
        )

    def dispatch(self, worker: int, task: ImageTask, options: SaveOptions, *, last: bool) -> None:
        """Hand an image to a worker."""
        self._send(worker, image_message(task, options, last=last))

    def retire(self, worker: int, why: str) -> None:
        """Ask a worker to end."""
        child = self._workers.get(worker)
        if child is not None:
            child.retire(why)
            self._told.add(child)

    def kill(self, worker: int, why: str) -> None:
        """End a worker by force."""
        child = self._workers.get(worker)
        if child is not None:
            child.kill(why)

    def forget(self, segment: str) -> None:
        """Have all workers let go of a segment."""
        for worker in self._workers:
            self._send(worker, {"t": "forget", "segment": segment})

    def _send(self, worker: int, message: Message) -> None:
        child = self._workers.get(worker)
        if child is not None:  # else it is gone, and the event that says so is on its way
            child.send(message)
            self._told.add(child)

    def flush(self) -> None:
        """Send what was said since the last flush, all of it to one worker in one write."""
        for worker in self._told:
            worker.flush()
        self._told.clear()

    async def close(self, patience_s: float) -> None:
        """End all that are left and wait until they are collected."""
        self._closing = True
        workers = list(self._workers.values())
        for worker in workers:
            worker.retire("the farm stops")
            worker.flush()
        waits = [asyncio.ensure_future(worker.wait()) for worker in workers]
        if waits and patience_s:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait(waits, timeout=patience_s)
        for worker in workers:
            worker.kill("the farm stops")
        await asyncio.gather(*waits)

    def _received(self, worker: int, message: Message) -> None:
        kind = message["t"]
        if kind == "result":
            self._handle_event(finished(worker, message))
        elif kind == "ready":
            pid, created = message["pid"], message["created"]
            self._handle_event(events.WorkerReady(worker, pid, created, message["encoders"]))

    def _ended(self, worker: int, why: str) -> None:
        del self._workers[worker]
        gone(worker, why, self._settings, self._handle_event, stays=not self._closing)
