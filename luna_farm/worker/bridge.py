"""The bridge: a process that is the driver of a Ray cluster, and stands for all workers there.

It speaks the pipe of a worker, with the number of a worker in each message. A process of its own, because
Ray brings threads and 150 MB, and ends the process that it runs in when its head or its node is gone.
When the pipe ends the supervisor is dead: the bridge finishes the files that are being written and ends, and
with it its actors. It must never decide anything about jobs.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from luna_farm import system
from luna_farm.config_provenance import Signing
from luna_farm.config_ray import RayCluster
from luna_farm.core import frames
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.storage.allowed import Allowed
from luna_farm.storage.thumbnails import Thumbnails
from luna_farm.storage.upload_spool import UploadSpool
from luna_farm.worker.budget import Budget
from luna_farm.worker.cluster import Cluster, ClusterError, Node, answers, split
from luna_farm.worker.remote import Desk, Remote
from luna_farm.worker.sending import Offers
from luna_farm.worker.thumbnails import QUIET_S, ThumbnailMaker

AGAIN_S = 2.0
"""How often it is looked whether the cluster is there."""
STORE_SHARE = 0.4
"""Of Ray's object store on this machine that pixels on their way may take; files on their way back take
some, too."""
CONNECT_S = 30.0
"""How long connecting may take."""
HEAD_S = 10.0
"""How long the head may take to answer."""
NODE_S = 10.0
"""How long a node may not be reached."""
LOOK_S = 1.0
WRITE_S = 10.0
"""How long a file of a worker that is to be killed may take to be written."""
END_S = 3.0
READ_BYTES = 256 * 1024


def serve(
    pipe: socket.socket,
    given: RayCluster,
    fsync: bool,
    notes: str,
    signing: Signing,
    uploads: str,
    allowed: Allowed,
    catalogue: Sequence[str] | None,
    thumbnails: tuple[str, int],
) -> None:
    """Serve until the supervisor says stop or its end of the pipe closes; `notes` is the folder for those of
    the workers, the rest is what `worker.main.serve` gets."""
    cluster = Cluster(given, secrets.token_hex(8))
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (
        1,
        2,
    ):  # what Ray writes there is in its own logs as well, and none of it is a line of ours
        os.dup2(quiet, stream)
    path, max_bytes = thumbnails
    bridge = Bridge(pipe, cluster, notes)
    bridge.desk = Desk(
        cluster,
        bridge.say,
        Budget(given.bytes_in_flight),
        fsync,
        signing,
        UploadSpool(uploads) if uploads else None,
        allowed,
        catalogue,
        ThumbnailMaker(Thumbnails(path, max_bytes)) if max_bytes else None,
        Offers(given),
        {"pid": os.getpid(), "created": system.process_started(os.getpid())},
    )
    try:
        bridge.run()
    except Exception as error:
        bridge.lost(f"The bridge to the Ray cluster failed: {type(error).__name__}: {error}")


class Bridge:
    """The bridge: its pipe, the cluster, the workers by number."""

    desk: Desk
    """What its workers share."""

    def __init__(self, pipe: socket.socket, cluster: Cluster, notes: str) -> None:
        self._pipe = pipe
        self._cluster = cluster
        self._notes = notes
        self._frames = frames.FrameBuffer()
        self._saying = threading.Lock()
        self._workers: dict[int, Remote] = {}
        self._early: list[int] = []
        """Workers that were requested before there was a cluster."""
        self._looked_at = time.monotonic()
        """When the head has answered last."""
        self._over = threading.Event()

    def run(self) -> None:
        """Connect, then do what comes; ends with the process."""
        try:
            self._run()
        finally:
            self._over.set()

    def _run(self) -> None:
        if not self._reached():
            return
        self._connect()
        for work in (self._look, self._watch, self._watch_nodes, self._make_thumbnails):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        for number in self._early:
            self._spawn(number)
        while message := self._next():
            if message["t"] == "stop":
                break
            self._handle(message)
        self._end()

    def _reached(self) -> bool:
        """Wait until there is a cluster to connect to; False if that is not wanted any more. Until then
        workers wait, and those that are to end have ended."""
        while why := self._cluster.absent():
            self.say({"t": "failed", "why": why})
            until = time.monotonic() + AGAIN_S
            while (left_s := until - time.monotonic()) > 0:
                message = self._next(left_s)
                if message is None or message["t"] == "stop":
                    return False
                self._handle_early(message)
        return True

    def _handle_early(self, message: dict[str, Any]) -> None:
        kind, number = message["t"], message.get("worker", 0)
        if kind == "spawn":
            self._early.append(number)
        elif number in self._early:
            self._early.remove(number)
            about = {"why": message.get("why", ""), "blameless": True, "unfit": False}
            self.say({"t": "gone", "worker": number, **about})

    def _connect(self) -> None:
        failed: list[str] = []

        def connect() -> None:
            try:
                self._cluster.connect()
            except ClusterError as error:
                failed.append(str(error))
            except BaseException as error:
                failed.append(f"The Ray cluster cannot be used: {type(error).__name__}: {error}")

        thread = threading.Thread(target=connect, name="connect", daemon=True)
        thread.start()
        thread.join(CONNECT_S)
        if thread.is_alive():
            failed.append(f"The Ray cluster at {self._cluster.address} did not answer in {CONNECT_S:.0f} s.")
        if failed:
            self.lost(failed[0])
        # A store that is full writes to disk what is in it, and an image then takes a second and more.
        self.desk.budget.limit = min(self.desk.budget.limit, int(self._cluster.store_bytes * STORE_SHARE))
        self._looked_at = time.monotonic()

    def _spawn(self, number: int) -> None:
        self._workers = {n: worker for n, worker in self._workers.items() if not worker.is_gone}
        self._workers[number] = Remote(self.desk, number, os.path.join(self._notes, str(number)))

    def _handle(self, message: dict[str, Any]) -> None:
        kind = message["t"]
        if kind == "forget":
            self.desk.forget(message["segment"])
            return
        number = message["worker"]
        if kind == "spawn":
            self._spawn(number)
            return
        worker = self._workers.get(number)
        if worker is None:
            return  # it is gone, and the message that says so is on its way
        if kind == "image":
            task = ImageTask.from_values(message["task"])
            options = SaveOptions.from_values(message["options"])
            worker.dispatch(task, options, message["last"])
        elif kind == "retire":
            worker.retire(message["why"])
        else:
            worker.kill(message["why"])

    def _next(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Return the next message; None at the end of the pipe. With a timeout an empty one may come."""
        while True:
            message = self._frames.next()
            if message is not None:
                return message
            if timeout_s is not None and not select.select([self._pipe], [], [], timeout_s)[0]:
                return {"t": ""}
            try:
                data = self._pipe.recv(READ_BYTES)
            except OSError:
                return None
            if not data:
                return None
            self._frames.feed(data)

    def say(self, message: dict[str, Any]) -> None:
        try:
            with self._saying:
                self._pipe.sendall(frames.encode(message))
        except OSError:
            return  # the next read finds the pipe closed

    def _look(self) -> None:
        """Ask the head for its nodes again and again; this thread hangs with it."""
        while not self._over.wait(LOOK_S):
            self._cluster.look()
            self._looked_at = time.monotonic()

    def _watch(self) -> None:
        """End this process when the head is dead or a file hangs: the supervisor does something about it."""
        head = split(self._cluster.address)
        while not self._over.wait(LOOK_S):
            silent_s = time.monotonic() - self._looked_at - LOOK_S
            if silent_s > HEAD_S or (silent_s > LOOK_S and not answers(*head, LOOK_S)):
                self.lost(f"The head of the Ray cluster at {self._cluster.address} does not answer any more.")
            late = time.monotonic() - WRITE_S
            if any(worker.killed_at and worker.killed_at < late for worker in list(self._workers.values())):
                os._exit(1)

    def _watch_nodes(self) -> None:
        """Give up the workers of a node that cannot be reached: Ray itself takes a minute to say so."""
        heard: dict[Node, float] = {}
        while not self._over.wait(LOOK_S):
            workers = [worker for worker in list(self._workers.values()) if not worker.is_gone]
            nodes = {worker.node for worker in workers if worker.node is not None}
            heard = {node: heard.get(node, time.monotonic()) for node in nodes}
            for node in nodes:
                if answers(node.address, node.port, LOOK_S):
                    heard[node] = time.monotonic()
                elif time.monotonic() - heard[node] > NODE_S:
                    for worker in workers:
                        if worker.node == node:
                            worker.lost(f"Its node {node.address} does not answer any more.")

    def _make_thumbnails(self) -> None:
        """Make thumbnails one by one while no image is on its way: reading files takes as much processor as
        a worker, and all of them wait for this process."""
        maker = self.desk.thumbnails
        while maker is not None and not self._over.wait(QUIET_S):
            while maker.waits and not self.desk.budget.used:
                maker.make_one()

    def lost(self, why: str) -> None:
        """The cluster cannot be used: report that and end. Files that are half written have left no name."""
        self.say({"t": "lost", "why": why})
        os._exit(0)

    def _end(self) -> None:
        """End all workers, wait for the files that are being written, and end. The cluster sees the end of
        the process; `ray.shutdown` would hang with a dead head."""
        for worker in self._workers.values():
            worker.retire("the farm stops")
        end = time.monotonic() + END_S
        for worker in self._workers.values():
            worker.join(max(0.0, end - time.monotonic()))
        os._exit(0)
