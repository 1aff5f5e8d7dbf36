"""One worker of a cluster, seen from the bridge: an actor that encodes, and two threads here.

One thread sends images ahead, the other receives their files in order, writes them and reports. The actor
writes nothing, so a worker that is given up can be reported gone at once, unless a file of it is being
written here. This module must never decide who makes which image.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from luna_farm import __version__
from luna_farm.config_provenance import Signing
from luna_farm.core.messages import ImageResult, ImageTask, Note, SaveOptions
from luna_farm.imaging import metadata
from luna_farm.imaging.depth import Pixels
from luna_farm.locations import is_url
from luna_farm.storage.allowed import Allowed
from luna_farm.storage.arena import Segments
from luna_farm.storage.notes import Notes
from luna_farm.storage.upload_spool import UploadSpool
from luna_farm.testing.faults import crash_point
from luna_farm.worker import pipeline, writing
from luna_farm.worker.attempt import attempt
from luna_farm.worker.budget import Budget
from luna_farm.worker.cluster import Cluster, ClusterError, Node, NotYet, WorkerLost, answers
from luna_farm.worker.made import Made
from luna_farm.worker.sending import Offer, Offers
from luna_farm.worker.thumbnails import ThumbnailMaker

LOOK_S = 0.5
"""How often a waiting thread looks whether its worker was given up."""
NO_PLACE_S = 15.0
"""How long a worker waits for a place, and for its process there, before that is reported; it goes on
waiting."""
NODE_S = 1.0
"""How long the raylet of a lost worker's node may take to accept a connection."""

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Desk:
    """What all workers of a bridge share."""

    cluster: Cluster
    say: Say
    budget: Budget
    fsync: bool
    signing: Signing
    uploads: UploadSpool | None
    allowed: Allowed
    catalogue: Sequence[str] | None
    thumbnails: ThumbnailMaker | None
    offers: Offers
    identity: dict[str, Any]
    """Pid and creation time of the bridge: the process that writes."""
    segments: Segments = field(default_factory=Segments)
    mapping: threading.Lock = field(default_factory=threading.Lock)

    def view(self, task: ImageTask) -> Pixels:
        """Return the pixels of a task where they lie. Raises ArenaError."""
        with self.mapping:
            return np.asarray(pipeline.view(self.segments, task))

    def sampled(self, task: ImageTask, last: bool) -> bool:
        """Whether an image needs a sample for its thumbnail: there is time, or no file to read later."""
        return self.thumbnails is not None and (last or is_url(task.root) or bool(task.archive))

    def forget(self, segment: str) -> None:
        """Let go of a segment."""
        with self.mapping:
            self.segments.forget(segment)


@dataclass(slots=True)
class Sent:
    """An image on its way: a reference to the call, or what came of it before it was called."""

    task: ImageTask
    options: SaveOptions
    call: Any = None
    failed: ImageResult | None = None
    lost: str = ""
    """Why it could not be sent."""
    offer: Offer | None = None
    """Where the actor may send it by itself."""
    put_ms: float = 0.0
    called_at: float = 0.0


class Remote:
    """A worker by its number; `notes` is the file for its notes."""

    def __init__(self, desk: Desk, number: int, notes: str) -> None:
        self._desk = desk
        self.number = number
        self._notes_path = notes
        self._actor: Any = None
        self._at: Node | None = None
        self._sender = ThreadPoolExecutor(1, f"send {number}")
        self._sent: queue.SimpleQueue[Sent | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._writing = False
        self._given_up = False
        """Nothing of it counts any more: it was reported gone."""
        self._why = ""
        """Why it was asked to end."""
        self.killed_at = 0.0
        """When it was to be killed while a file was being written; 0.0 for not."""
        self._ended_at = 0.0
        """When its last call ended: the next one cannot have begun before."""
        self._thread = threading.Thread(target=self._run, name=f"receive {number}", daemon=True)
        self._thread.start()

    def dispatch(self, task: ImageTask, options: SaveOptions, last: bool) -> None:
        """Send an image to it; after the `last` one nothing else waits."""
        self._submit(self._send, task, options, last)

    def retire(self, why: str) -> None:
        """Have it end after what it was sent."""
        self._why = why
        self._submit(self._sent.put, None)

    def _submit(self, work: Callable[..., object], *args: Any) -> None:
        with self._lock:
            if not self._given_up:  # else the message that it is gone is on its way
                self._sender.submit(work, *args)

    def kill(self, why: str) -> None:
        """End it: at once, or after the file that is being written."""
        with self._lock:
            self._why = why
            if self._writing:
                self.killed_at = self.killed_at or time.monotonic()
        if not self.killed_at:
            self._gone(why)
        if self._actor is not None:
            self._desk.cluster.kill(self._actor)

    def lost(self, why: str) -> None:
        """Give it up: it cannot be reached. A file of it that has come is written first."""
        with self._lock:
            if self._writing:
                return
        self._gone(why, blameless=True)
        self._desk.cluster.kill(self._actor)

    @property
    def node(self) -> Node | None:
        """Where it is, once it is ready."""
        return self._at

    @property
    def is_gone(self) -> bool:
        """Whether its end was reported."""
        return self._given_up

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    # --- the receiving thread

    def _run(self) -> None:
        try:
            if not self._started():
                return
            self._notes = Notes(self._notes_path)
            while not self._given_up and (sent := self._sent.get()) is not None:
                self._receive(sent)
                if self.killed_at:
                    break  # it was killed while its file was written
            self._gone(self._why)
        except (WorkerLost, ClusterError) as error:
            node = self._at
            there = node is None or answers(node.address, node.port, NODE_S)
            self._gone(
                str(error) if there else f"Its node {node and node.address} does not answer any more.",
                blameless=not there,
                unfit=isinstance(error, ClusterError),
            )
        except Exception as error:  # a bug, or an error of Ray that is none of its own classes
            self._gone(f"{type(error).__name__}: {error}")
        finally:
            if self._actor is not None:
                self._desk.cluster.kill(self._actor)

    def _started(self) -> bool:
        """Wait until it has a place and is ready; False if it is not needed any more."""
        cluster = self._desk.cluster
        self._actor = cluster.start(self.number, self._desk.signing)
        asked = cluster.hello(self._actor)
        report_at = time.monotonic() + NO_PLACE_S
        while True:
            try:
                hello = cluster.fetch(asked, LOOK_S)
                break
            except NotYet:
                if self._why:
                    self._gone(self._why)
                    return False
                why = cluster.too_small()
                if not why and time.monotonic() > report_at:
                    report_at += NO_PLACE_S
                    why = cluster.full()
                if why:
                    self._desk.say({"t": "waits", "worker": self.number, "why": why})
        self._at = cluster.node(hello["node"])
        address = self._at.address
        if hello["version"] != __version__:
            raise ClusterError(
                f"The node {address} of the Ray cluster has luna-farm {hello['version']}, and this farm is "
                f"{__version__}; install the same version there."
            )
        about = {"encoders": hello["encoders"], "node": address, "node_pid": hello["pid"]}
        self._desk.say({"t": "ready", "worker": self.number, **self._desk.identity, **about})
        return True

    def _receive(self, sent: Sent) -> None:
        """Wait for a file, write it, report."""
        made: Made | ImageResult
        bodies: list[Any] = []
        if sent.lost:
            raise WorkerLost(sent.lost)
        if sent.failed is not None:
            made, ms = sent.failed, {}
        else:
            begun = max(sent.called_at, self._ended_at)
            while not self._over(sent):
                if self._given_up:
                    return
            self._ended_at = ended = time.perf_counter()
            made, bodies, refused = self._desk.cluster.fetch(sent.call)
            crash_point("ray.received")
            self._forget(sent)
            if sent.offer and self._at and isinstance(made, Made):
                self._tell(self._desk.offers.came(self._at.address, sent.offer, refused))
            worked = sum((made.ms or {}).values())
            ms = {
                "put": sent.put_ms,
                "call": max(0.0, (ended - begun) * 1e3 - worked),
                "result": (time.perf_counter() - ended) * 1e3,
            }
        with self._lock:
            if self._given_up:
                return
            self._writing = True
        result = made if isinstance(made, ImageResult) else self._written(made, bodies)
        if result.ms is not None:
            result = replace(result, ms={**result.ms, **ms})
        key = {"job_id": sent.task.job_id, "index": sent.task.index}
        self._desk.say({"t": "result", "worker": self.number, **key, "result": result.values()})
        with self._lock:
            self._writing = False

    def _tell(self, news: str) -> None:
        if news:
            self._desk.say({"t": "news", "text": news})

    def _over(self, sent: Sent) -> bool:
        try:
            self._desk.cluster.wait(sent.call, LOOK_S)
        except NotYet:
            return False
        return True

    def _written(self, made: Made, bodies: list[Any]) -> ImageResult:
        desk = self._desk

        def note(note: Note) -> None:
            self._notes.write(note, sync=desk.fsync and made.options.durable)

        def work() -> ImageResult:
            if made.stored:
                return writing.sent(made, desk.catalogue)
            for file, body in zip(made.files, bodies, strict=True):
                file.encoded.buffers = [memoryview(body)]
            return writing.written(
                pipeline.signed(made, desk.signing),
                desk.uploads,
                fsync=desk.fsync,
                note=note,
                allowed=desk.allowed,
                catalogue=desk.catalogue,
            )

        result = attempt(made.task, work)
        if desk.thumbnails is not None and result.state != "failed":
            at = made.task.job_id, made.task.index
            desk.thumbnails.add(*at, made.sample, result.path, result.bytes)
        return result

    def _forget(self, sent: Sent) -> None:
        """Let Ray forget a call that was answered, and the bytes of its pixels be taken again."""
        sent.call = None
        self._desk.budget.give(self.number, sent.task.nbytes)

    def _gone(self, why: str, *, blameless: bool = False, unfit: bool = False) -> None:
        """Report its end, once."""
        with self._lock:
            if self._given_up:
                return
            self._given_up = True
            self.killed_at = 0.0
        self._desk.budget.leave(self.number)
        self._sender.shutdown(wait=False, cancel_futures=True)
        about = {"why": why or "ended", "blameless": blameless, "unfit": unfit}
        self._desk.say({"t": "gone", "worker": self.number, **about})

    # --- the sending thread

    def _send(self, task: ImageTask, options: SaveOptions, last: bool) -> None:
        """Collect what is read on this machine, call the actor with a copy of the pixels."""
        crash_point("worker.received")
        desk, sent = self._desk, Sent(task, options)
        prepared = attempt(task, lambda: (desk.view(task), metadata.embed(options, task)))
        if isinstance(prepared, ImageResult):
            sent.failed = prepared
        else:
            try:
                self._call(sent, *prepared, self._desk.sampled(task, last))
            except Exception as error:  # of Ray: the store is full, the connection is lost
                sent.lost = f"{type(error).__name__}: {error}"
        self._sent.put(sent)

    def _call(self, sent: Sent, pixels: Pixels, embedded: metadata.Embedded, sampled: bool) -> None:
        cluster, task = self._desk.cluster, sent.task
        if not self._desk.budget.take(self.number, task.nbytes):
            return  # the worker is gone, and nothing waits for this
        started = time.perf_counter()
        if self._at is not None:  # it is before it gets an image
            sent.offer = self._desk.offers.of(self._at.address, task, sent.options)
        given = (pixels, task, sent.options, embedded, sampled, sent.offer)
        sent.call = cluster.encode(self._actor, self._at, *given)
        sent.called_at = time.perf_counter()
        sent.put_ms = (sent.called_at - started) * 1e3
        crash_point("ray.sent")
