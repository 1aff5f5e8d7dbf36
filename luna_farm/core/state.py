"""What the farm knows: jobs, slots, workers, failing folders. Data and the questions one may ask of it.

The decisions are in `leases.py` and `intake.py` (what is taken over), `dispatch.py` (what is done) and
`recovery.py` (what a predecessor left). This module must never return instructions.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from luna_farm.core.circuits import Circuit
from luna_farm.core.costs import Costs
from luna_farm.core.filenames import collision_key
from luna_farm.core.instructions import Forget, Instruction
from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.limits import Limits
from luna_farm.core.messages import ImageResult
from luna_farm.core.open_submits import OpenBundle, OpenSubmit, Step
from luna_farm.core.pools import NEAR, Node, PoolLimits, WorkerPool
from luna_farm.core.retry import FailingFolder
from luna_farm.core.shards import Shard
from luna_farm.core.slots import Slots
from luna_farm.core.workers import ALIVE, Worker, WorkerState
from luna_farm.locations import is_url

FILE_STEP_NS = 1000
"""Between the times of two files. File systems keep 100 ns or finer, but for FAT with two seconds."""
CLOCK_SET_NS = 3600 * 10**9
"""A wall clock that is more than this behind the latest time of a file was set back."""


@dataclass(slots=True, unsafe_hash=True)
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
        self.unkept: dict[str, None] = {}
        """Those of them whose reports are not written yet, in this order: the journal knows them until it is
        compacted."""
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
    def held(self) -> int:
        """Images that cannot be written now."""
        return sum([image.state is ImageState.HELD for image in self.unfinished()])

    @property
    def depth(self) -> int:
        """Images accepted and not yet finished that nothing but their turn holds up."""
        return len(self.waiting) + sum(len(worker.images) for worker in self.workers.values())

    def alive(self, pool: str = "") -> list[Worker]:
        """Workers that will go on taking images, of one pool or of all."""
        return [w for w in self.workers.values() if w.state in ALIVE and (not pool or w.pool == pool)]

    @property
    def ready(self) -> bool:
        """Takes jobs and has workers for them."""
        return not self.draining and any(
            w.state in (WorkerState.IDLE, WorkerState.BUSY) for w in self.workers.values()
        )

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
        running = [image for worker in self.workers.values() for image in worker.images]
        used = self.spool_used_bytes + sum([image.task.nbytes for image in running])
        if used >= self.limits.spool_bytes:  # rarely: only then it is looked at which of them need the spool
            used -= sum([image.task.nbytes for image in running if not self.needs_spool(image)])
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
        self.totals["bytes_written"] += result.bytes
        if result.files:
            self.totals["bytes_written"] += sum(file["bytes"] for file in result.files if file["number"])

    def failing_folder(self, image: Image) -> FailingFolder | None:
        """Return the folder of an image if it cannot be written now."""
        return self.folders.get(folder_of(image)) if self.folders else None

    def queue(self, image: Image, now: float) -> None:
        """Put an image with pixels and a name at the end of the queue."""
        image.queued_at = now
        self.waiting.append(image)

    def keep_pixels(self, image: Image) -> None:
        """Count an image as a user of the file or old arena that holds its pixels."""
        for segment in _outside(image):
            self.segment_users[segment] += 1

    def uncount_failed(self, count: int) -> None:
        """Images that had failed are tried again or given up. Those of a predecessor were never counted."""
        self.totals["images_failed"] = max(0, self.totals["images_failed"] - count)

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


def folder_of(image: Image) -> str:
    """The folder that an image is written to: what fails together."""
    path = image.task.path
    return path[: max(path.rfind("/"), path.rfind("\\"), 1)]


def left_places(image: Image) -> list[str]:
    """Folders and URLs that an unfinished image is not at yet."""
    return [at.root for at in image.uploads if at.state.value != "saved"] or [folder_of(image)]


def _outside(image: Image) -> list[str]:
    """Segments of an image that are not slots of this supervisor's arena. While its client may still copy,
    they are not the image's."""
    if image.task.mark:
        return []
    if image.slot is None:
        return [s for s in (image.task.segment, image.spool) if s]
    return [image.spool] if image.spool else []
