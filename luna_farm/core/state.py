"""What the farm knows: jobs, slots, workers, failing folders. Data and the questions one may ask of it.

The decisions are in `leases.py` and `intake.py` (what is taken over), `dispatch.py` (what is done) and
`recovery.py` (what a predecessor left). This module must never return instructions.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Any

from luna_farm.core import filenames
from luna_farm.core.circuits import Circuit
from luna_farm.core.costs import Costs
from luna_farm.core.filenames import collision_key
from luna_farm.core.instructions import Forget, Instruction
from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.messages import ImageResult
from luna_farm.core.pools import NEAR, Node, PoolLimits, WorkerPool
from luna_farm.core.retry import FailingFolder
from luna_farm.core.schema import Submit
from luna_farm.core.shards import Shard
from luna_farm.core.slots import Slot, Slots
from luna_farm.errors import FarmError
from luna_farm.locations import Location, is_url

LISTED_NODES = 100
LISTED_JOBS = 20
"""Unfinished jobs that the status names, the oldest first."""


@dataclass(frozen=True, slots=True)
class DestinationLimits:
    """What the core knows of a configured destination."""

    name: str
    location: Location
    uploads: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds that the core keeps, from the configuration."""

    arena_bytes: int
    max_jobs: int = 10_000
    max_images: int = 10_000
    max_pixels: int = 2**28
    kept_reports: int = 1_000
    min_workers: int = 2
    max_workers: int = 4
    idle_timeout_s: float = 300.0
    worker_deadline_s: float = 120.0
    fallback_dir: str = ""
    fallback_root: str = ""
    """FailingFolder that the fallback folder lies in and below which no link is followed; "" for itself."""
    path_bytes: int = filenames.PATH_BYTES
    spool_bytes: int = 2**32
    destinations: tuple[DestinationLimits, ...] = ()
    only_destinations: bool = False
    """Files may be sent to the configured destinations only."""
    pools: tuple[PoolLimits, ...] = ()
    """The pools, the near one first; without any there is one near pool of min_workers to max_workers."""

    def of_request(self) -> dict[str, int]:
        """The bounds that a request is judged by."""
        return {"max_images": self.max_images, "max_pixels": self.max_pixels, "arena_bytes": self.arena_bytes}


FILE_STEP_NS = 1000
"""Between the times of two files. File systems keep 100 ns or finer, but for FAT with two seconds."""
CLOCK_SET_NS = 3600 * 10**9
"""A wall clock that is more than this behind the latest time of a file was set back."""


class WorkerState(Enum):
    """Life of a worker. KILLED: a signal was sent, its end is not seen yet."""

    # By identity: the hash of Enum is Python code, and states are looked up all the time.
    __hash__ = object.__hash__

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    RETIRING = "retiring"
    KILLED = "killed"
    GONE = "gone"


W = WorkerState
WORKER_TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    W.STARTING: frozenset({W.IDLE, W.RETIRING, W.KILLED, W.GONE}),
    W.IDLE: frozenset({W.BUSY, W.RETIRING, W.GONE}),
    W.BUSY: frozenset({W.IDLE, W.KILLED, W.GONE}),
    W.RETIRING: frozenset({W.KILLED, W.GONE}),
    W.KILLED: frozenset({W.GONE}),
    W.GONE: frozenset(),
}


@dataclass(slots=True)
class Worker:
    """One worker process. `images` are those it was handed, the one it works on first."""

    number: int
    since: float
    """Monotonic time of the last change of state or of the image it works on."""
    pid: int = 0
    created: float = 0.0
    """Start time of the process as the system gives it: with the pid, its identity."""
    pool: str = NEAR
    node: str = ""
    """Where it is, "" for this machine."""
    node_pid: int = 0
    """Its process there; `pid` is then the process of this machine that writes its files."""
    ready_at: float = 0.0
    state: WorkerState = W.STARTING
    images: deque[Image] = field(default_factory=deque)
    images_saved: int = 0
    bytes_written: int = 0

    def move(self, to: WorkerState, now: float) -> None:
        """Change state along the table; anything else is a bug of the farm."""
        if to not in WORKER_TRANSITIONS[self.state]:
            raise AssertionError(f"worker {self.number} cannot go from {self.state.value} to {to.value}")
        self.state = to
        self.since = now


class Step(Enum):
    """What an open submit waits for; CLIENT: for the next seal."""

    __hash__ = object.__hash__

    NAMES = "names"
    SPOOL = "spool"
    JOURNAL = "journal"
    CLIENT = "client"


@dataclass(slots=True)
class OpenSubmit:
    """A submit whose images are being sealed and accepted.

    One step at a time is under way: the names, or for the parts that were sealed first the spool and the
    journal. Parts that are sealed meanwhile wait in `parts`.
    """

    job_id: str
    client: int
    reply: int
    submit: Submit
    job: Job | None = None
    """Known once the names are reserved."""
    step: Step = Step.NAMES
    members: tuple[str, ...] = ()
    """Names in the archive, for a submit that makes one."""
    archive: str = ""
    """Path of that archive below the output_dir, without number and ending."""
    parts: deque[tuple[Slot, int, tuple[int, ...], int]] = field(default_factory=deque)
    """Sealed slots with the number of their images, the flaws of each, and the time of the first one's
    file."""
    sealed: int = 0
    """Images whose parts have arrived, in order."""
    taken: int = 0
    """Images of parts that were spooled and journaled, or are on their way there."""
    taking: list[Image] = field(default_factory=list)
    """Images on their way into the journal."""
    listening: bool = True
    """The client waits for the receipt; false once it has left or aborted."""
    bundle: OpenBundle | None = None
    """The requests that it came with, in one message."""

    @property
    def complete(self) -> bool:
        """All images are sealed."""
        return self.sealed == self.submit.num_images


@dataclass(slots=True)
class OpenBundle:
    """Requests that are accepted together. One step at a time is under way for all of them."""

    client: int
    reply: int
    want: tuple[int, ...]
    opened: list[OpenSubmit] = field(default_factory=list)
    step: Step = Step.NAMES
    left: int = 0
    """Answers that the step waits for."""
    slot: Slot | None = None
    """Where all pixels are, once they are sealed."""
    flaws: tuple[int, ...] = ()
    file_time_ns: int = 0
    listening: bool = True
    error: FarmError | None = None

    @property
    def jobs(self) -> list[Job]:
        """The jobs, in the order of the requests; their names are reserved."""
        return [opened.job for opened in self.opened if opened.job is not None]


@dataclass(frozen=True, slots=True)
class Waiter:
    """A client that waits for the end of a job."""

    client: int
    reply: int
    job_id: str
    until: float


class Farm:
    """The state of the whole farm. `segment` is the arena of this supervisor; those of a predecessor are only
    read."""

    def __init__(self, limits: Limits, segment: str) -> None:
        self.limits = limits
        self.segment = segment
        self.slots = Slots(limits.arena_bytes)
        self.jobs: dict[str, Job] = {}
        self.open_jobs: dict[str, Job] = {}
        """Those whose end was not told yet; a retry opens a job again."""
        self.requests: dict[str, str] = {}
        self.submits: dict[str, OpenSubmit] = {}
        """Job id -> the submit that is being accepted."""
        self.submitting: dict[int, OpenSubmit] = {}
        """Client -> its one open submit."""
        self.bundles: dict[int, OpenBundle] = {}
        """Client -> the requests that it hands over together."""
        self.creating: dict[tuple[int, int], int] = {}
        """(client, reply) -> bytes of a segment that is being created for it."""
        self.file_time_ns = 0
        """The latest time that a file was given."""
        self.waiting: deque[Image] = deque()
        self.workers: dict[int, Worker] = {}
        self.folders: dict[str, FailingFolder] = {}
        self.holding = False
        """Some image may be held."""
        self.moving: set[tuple[str, int]] = set()
        """Images whose pixels are being copied to the disk."""
        self.move_at = 0.0
        self.pressed = False
        """A lease was refused for want of room since pixels were moved last."""
        self.inherited: frozenset[str] = frozenset()
        """Arenas of predecessors that hold pixels of open images."""
        self.taken: set[str] = set()
        self.waiters: list[Waiter] = []
        self.segment_users: Counter[str] = Counter()
        self.encoders: dict[str, str] = {}
        self.finished_order: dict[str, int] = {}
        """Jobs whose reports are kept, the one that ended first first, with the number of their images."""
        self.kept_images = 0
        """The sum of these."""
        self.totals = dict.fromkeys(
            ("jobs", "images_saved", "images_discarded", "images_failed", "bytes_written"), 0
        )
        self.draining = False
        self.paused = False
        """No image is begun and no upload is started; of this process only, a restart goes on."""
        self.last_worker = 0
        pools = limits.pools or (PoolLimits(NEAR, limits.min_workers, limits.max_workers),)
        self.pools = {pool.name: WorkerPool(pool) for pool in pools}
        self.nodes: dict[str, Node] = {}
        self.costs = Costs()
        self.last_tick = 0.0
        self.bury_at: dict[tuple[str, int], float] = {}
        self.circuits: dict[str, Circuit] = {}
        self.spool_used_bytes = 0
        """Encoded files in the spool of uploads."""
        self.spool_queue: deque[Image] = deque()
        """Images that wait for room in that spool."""
        self.uploader: tuple[int, float] | None = None
        """Pid and creation time of the uploader process, for the fence of a successor."""
        self.shards: dict[str, Shard] = {}
        """Archives that are being written or sent, by id."""
        self.open_shards: dict[str, str] = {}
        """What requests share that go to one archive -> id of its open shard."""
        self.series: dict[str, str] = {}
        """Name of archives, without number -> path of the last one."""
        self.last_shard = 0

    def file_times(self, time_ns: int, count: int) -> int:
        """Return the time of the first of `count` files that follow one another by a microsecond, all later
        than those of earlier images: so files sort by time as their images came in, whichever is written
        first. 0 where the time is not known. A clock that was set back counts from there."""
        if not time_ns:
            return 0
        late = self.file_time_ns - time_ns
        first = self.file_time_ns if 0 <= late < CLOCK_SET_NS else time_ns
        self.file_time_ns = first + count * FILE_STEP_NS
        return first

    def image(self, job_id: str, index: int) -> Image | None:
        """Return the image, or None when the job is no longer kept."""
        job = self.jobs.get(job_id)
        return job.images[index] if job else None

    def unfinished(self) -> Iterator[Image]:
        """All images that are accepted and not finished."""
        return (image for job in self.open_jobs.values() for image in job.images if not image.finished)

    @property
    def depth(self) -> int:
        """Images accepted and not yet finished that nothing but their turn holds up."""
        return len(self.waiting) + sum(len(worker.images) for worker in self.workers.values())

    def alive(self, pool: str = "") -> list[Worker]:
        """Workers that will go on taking images, of one pool or of all."""
        living = (w for w in self.workers.values() if w.state in (W.STARTING, W.IDLE, W.BUSY))
        return [w for w in living if not pool or w.pool == pool]

    @property
    def ready(self) -> bool:
        """Takes jobs and has workers for them."""
        return not self.draining and any(w.state in (W.IDLE, W.BUSY) for w in self.workers.values())

    @property
    def drained(self) -> bool:
        """Draining, and nothing is left that could be finished now (what a failing disk holds up stays in the
        journal)."""
        return (
            self.draining
            # A client may take for ever to seal the rest, and was promised nothing for it.
            and all(submit.step is Step.CLIENT for submit in self.submits.values())
            and all(
                i.state in (ImageState.HELD, ImageState.FILLING, ImageState.UPLOADING)
                or i.key in self.bury_at
                or i in self.spool_queue
                for i in self.unfinished()
            )
            and not any(circuit.busy for circuit in self.circuits.values())
            and not any(shard.busy for shard in self.shards.values())
        )

    def spool_full(self) -> bool:
        """Whether the spool of uploads has no room for another image. An empty one has room for any."""
        running = sum(i.task.nbytes for w in self.workers.values() for i in w.images if self.needs_spool(i))
        used = self.spool_used_bytes + running
        return used > 0 and used >= self.limits.spool_bytes

    def needs_spool(self, image: Image) -> bool:
        """Whether an image goes further than a local folder, or into an archive."""
        return (
            bool(image.task.archive)
            or is_url(image.task.root)
            or bool(self.jobs[image.task.job_id].options.mirrors)
        )

    def count_saved(self, result: ImageResult) -> None:
        """Count an image that is saved, or rejected."""
        self.totals["images_saved"] += result.state == "saved"
        self.totals["images_discarded"] += result.state != "saved"
        others = sum(file["bytes"] for file in result.files if file["number"])
        self.totals["bytes_written"] += result.bytes + others

    def queue(self, image: Image, now: float) -> None:
        """Put an image with pixels and a name at the end of the queue."""
        image.queued_at = now
        self.waiting.append(image)

    def keep_pixels(self, image: Image) -> None:
        """Count an image as a user of the file or old arena that holds its pixels."""
        for segment in _outside(image):
            self.segment_users[segment] += 1

    def release_pixels(self, image: Image) -> list[Instruction]:
        """An image needs its pixels no more: free the slot, forget files that are not needed."""
        if image.slot is not None:
            self.slots.done_with(image.slot)
        unused: list[Instruction] = []
        for segment in _outside(image):
            self.segment_users[segment] -= 1
            if self.segment_users[segment] <= 0:
                del self.segment_users[segment]
                unused.append(Forget(segment))
        image.slot = None
        image.spool = ""
        return unused

    def free_name(self, image: Image) -> None:
        """The reserved name is a file now, or will never be one. Names of archives are not reserved."""
        if not image.task.archive:
            self.taken.difference_update(map(collision_key, image.task.paths))

    def take_name(self, image: Image) -> None:
        """Reserve the names of an image, until they are free again."""
        if not image.task.archive:
            self.taken.update(map(collision_key, image.task.paths))

    def status(self) -> dict[str, Any]:
        """What the core knows of `status`; the supervisor adds what the system knows."""
        return {
            "queue": {
                "jobs": len(self.open_jobs),
                "images": self.depth + sum(1 for i in self.unfinished() if i.state is ImageState.HELD),
                "bytes": self.slots.used_bytes - self.slots.leased_bytes,
            },
            "arena": {
                "bytes": self.slots.size,
                "reserved_bytes": self.slots.reserved,
                "used_bytes": self.slots.used_bytes,
            },
            "totals": dict(self.totals),
            "upload_spool": {"bytes": self.limits.spool_bytes, "used_bytes": self.spool_used_bytes},
            "uploader": {"pid": self.uploader[0] if self.uploader else 0},
            "destinations": [circuit.status(self.last_tick) for circuit in self.circuits.values()],
            "archives": [shard.status() for shard in self.shards.values()],
            "engines": [pool.status(self.last_tick) for pool in self.pools.values()],
            "nodes": self._nodes(),
            "ready": self.ready,
            "draining": self.draining,
            "paused": self.paused,
            "encoders": dict(self.encoders),
            "open_jobs": [
                {
                    "job_id": job.job_id,
                    "state": job.state,
                    "num_images": job.num_images,
                    "unfinished": sum(not image.finished for image in job.images),
                }
                for job in islice(self.open_jobs.values(), LISTED_JOBS)
            ],
            "dead_letters": [
                {
                    "job_id": job.job_id,
                    "index": i.task.index,
                    "path": i.task.path,
                    "error": i.result.error,
                    "code": i.result.code,
                }
                for job in self.jobs.values()
                for i in job.images
                if i.state is ImageState.FAILED
            ],
        }

    def _nodes(self) -> list[dict[str, Any]]:
        """What each node has done, and who works there; nodes without workers of late are the last ones."""
        rows = []
        for name, node in self.nodes.items():
            here = [w for w in self.workers.values() if w.node == name and w.ready_at]
            busy = sum(w.state is W.BUSY for w in here)
            rows.append({**node.status(name, self.last_tick), "workers": len(here), "busy": busy})
        return sorted(rows, key=lambda row: (not row["workers"], row["node"]))[:LISTED_NODES]


def folder_of(image: Image) -> str:
    """The folder that an image is written to: what fails together."""
    path = image.task.path
    return path[: max(path.rfind("/"), path.rfind("\\"), 1)]


def _outside(image: Image) -> list[str]:
    """Segments of an image that are not slots of this supervisor's arena."""
    own = image.slot is not None
    return [s for s in ("" if own else image.task.segment, image.spool) if s]
