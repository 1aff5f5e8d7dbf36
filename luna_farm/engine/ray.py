"""The workers of a Ray cluster: one process here, the bridge, stands for all of them.

The bridge is started with the first worker, and again with the next one after it has ended. This module must
never import ray.
"""

from __future__ import annotations

import asyncio
import logging

from luna_farm.config_ray import RayCluster
from luna_farm.core import events
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.engine.child import Child, Message
from luna_farm.engine.pool import HandleEvent, WorkerSettings, finished, gone, image_message
from luna_farm.worker import spawned

log = logging.getLogger("luna_farm.engine")

NAME = "ray"
"""Of this pool in the core and the configuration."""
CLOSE_S = 5.0
"""How long a bridge may take to end beyond what its workers are given."""


class RayPool:
    """All workers of this supervisor in a cluster, a `Pool`."""

    def __init__(self, handle_event: HandleEvent, settings: WorkerSettings, cluster: RayCluster) -> None:
        self._handle_event = handle_event
        self._settings = settings
        self._cluster = cluster
        self._bridge: Child | None = None
        self._workers: set[int] = set()
        self._ready: set[int] = set()
        self._lost = ""
        """What the bridge said before it ended: why the cluster cannot be used."""
        self._closing = False

    @property
    def pid(self) -> int:
        """Process id of the bridge, 0 while there is none."""
        return self._bridge.pid if self._bridge else 0

    def spawn(self, worker: int) -> None:
        """Request a worker of the cluster; it reports ready by itself."""
        if self._closing:
            return
        self._workers.add(worker)
        if self._bridge is None:
            self._lost = ""
            args = (self._cluster, *self._settings.of_worker(None))
            self._bridge = Child("bridge to Ray", spawned.start_bridge, args, self._received, self._ended)
        self._send({"t": "spawn", "worker": worker})

    def dispatch(self, worker: int, task: ImageTask, options: SaveOptions, *, last: bool) -> None:
        """Hand an image to a worker."""
        if worker in self._workers:
            self._send({**image_message(task, options, last=last), "worker": worker})

    def retire(self, worker: int, why: str) -> None:
        """Ask a worker to end."""
        if worker in self._workers:
            self._send({"t": "retire", "worker": worker, "why": why})

    def kill(self, worker: int, why: str) -> None:
        """End a worker by force."""
        if worker in self._workers:
            self._send({"t": "kill", "worker": worker, "why": why})
            self.flush()

    def forget(self, segment: str) -> None:
        """Have the bridge let go of a segment."""
        self._send({"t": "forget", "segment": segment})

    def flush(self) -> None:
        """Send what was said since the last flush."""
        if self._bridge is not None:
            self._bridge.flush()

    async def close(self, patience_s: float) -> None:
        """End all workers and the bridge, and wait until it is collected."""
        self._closing = True
        bridge = self._bridge
        if bridge is None:
            return
        if patience_s:
            bridge.retire("the farm stops")
            bridge.flush()
            await asyncio.wait({asyncio.ensure_future(bridge.wait())}, timeout=patience_s + CLOSE_S)
        bridge.kill("the farm stops")
        await bridge.wait()

    def _send(self, message: Message) -> None:
        if self._bridge is not None:
            self._bridge.send(message)

    def _received(self, message: Message) -> None:
        kind, worker = message["t"], message.get("worker", 0)
        if kind == "lost":
            self._lost = message["why"]
        elif kind == "news":
            log.warning("%s", message["text"])
        elif kind == "failed":
            self._failed(message["why"])
        elif worker not in self._workers:
            return
        elif kind == "result":
            self._handle_event(finished(worker, message))
        elif kind == "ready":
            self._ready.add(worker)
            about = (message["pid"], message["created"], message["encoders"])
            self._handle_event(
                events.WorkerReady(worker, *about, node=message["node"], node_pid=message["node_pid"])
            )
        elif kind == "waits":
            self._failed(message["why"])
        else:
            if message["unfit"]:
                self._failed(message["why"])
            self._gone(worker, message["why"], message["blameless"])

    def _failed(self, why: str) -> None:
        """Report that no worker can be had, unless there is one."""
        if not self._ready:
            self._handle_event(events.PoolFailed(NAME, why))

    def _gone(self, worker: int, why: str, blameless: bool) -> None:
        self._workers.discard(worker)
        self._ready.discard(worker)
        gone(worker, why, self._settings, self._handle_event, stays=not self._closing, blameless=blameless)

    def _ended(self, why: str) -> None:
        """The bridge was collected: nothing of its workers can write any more."""
        self._bridge = None
        self._ready.clear()
        if not self._closing:
            self._failed(self._lost or f"The bridge to the Ray cluster has {why}.")
        for worker in sorted(self._workers):
            self._gone(worker, self._lost or why, bool(self._lost))
