"""A farm on a stage: the pure core, and a shell that does at once what it decides and writes everything down.

Names are always free, the journal is a list, spools and dead letters are names only. What a test lists in
`hold` is not done but kept in `held`, so that it can be done later, or fail.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from luna_farm.core import completion, events, instructions, recovery, status
from luna_farm.core.batches import Batch
from luna_farm.core.farm import advance, handle
from luna_farm.core.limits import Limits
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.core.schema import Part, Submit
from luna_farm.core.state import Farm

MIB = 1 << 20
CLIENT = 7
LIMITS = Limits(arena_bytes=4 * MIB, min_workers=1, max_workers=2, max_jobs=8, kept_reports=4)


def batch(**fields: Any) -> Batch:
    """One image of 32 x 32 x 3 under the affix RAW."""
    given = {
        "affix": "RAW",
        "format": "png",
        "subdir": False,
        "batch": 1,
        "height": 32,
        "width": 32,
        "channels": 3,
    }
    return Batch(**{**given, **fields})


def options(**fields: Any) -> SaveOptions:
    """What a submit asks for."""
    return SaveOptions(
        **{"output_dir": "/out", "filename": "a", "timestamp": "2026-01-02T03:04:05", **fields}
    )


def code(answer: dict[str, Any] | None) -> str:
    """The code of a refusal."""
    assert answer is not None
    return str(answer["code"])


@dataclass
class Disk:
    """What a restart finds: are the pixels still there, and which images were published all the same."""

    pixels: bool = True
    made: dict[tuple[str, int], ImageResult] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    """Files of the upload spool that are not there."""

    def readable(self, segment: str) -> bool:
        return self.pixels

    def there(self, path: str) -> bool:
        return path in self.files

    def spooled(self, path: str) -> bool:
        return path not in self.gone

    def published(self, task: ImageTask) -> ImageResult | None:
        return self.made.get((task.job_id, task.index))


class Stage:
    """A farm, its clock, and all it decided."""

    def __init__(self, limits: Limits = LIMITS, **changes: Any) -> None:
        self.farm = Farm(replace(limits, **changes), "shm:arena")
        self.now = 100.0
        self.journal: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.replies: dict[int, list[dict[str, Any]]] = {}
        self.published: list[dict[str, Any]] = []
        self.dispatched: deque[instructions.Dispatch] = deque()
        self.uploads: deque[instructions.StartUpload] = deque()
        self.members: deque[instructions.AddMember] = deque()
        self.publishing: deque[instructions.PublishShard] = deque()
        self.removed: list[str] = []
        self.catalogue: list[Any] = []
        self.hold: set[type] = set()
        self.disks: tuple[str, ...] = ()
        """Mount points of disks beside that of the system."""
        self.held: deque[Any] = deque()
        self.numbers = 0
        self._asked = 0

    def happens(self, event: events.Event) -> list[instructions.Instruction]:
        """Have the core handle an event and what follows of it; returns all that it decided, in order."""
        queue: deque[events.Event] = deque([event])
        done: list[instructions.Instruction] = []
        while queue:
            self._carry_out_all(handle(self.farm, queue.popleft(), self.now), done, queue)
            if not queue:
                self._carry_out_all(advance(self.farm, self.now), done, queue)
        return done

    def _carry_out_all(
        self,
        instructions: list[instructions.Instruction],
        done: list[instructions.Instruction],
        queue: deque[events.Event],
    ) -> None:
        for instruction in instructions:
            done.append(instruction)
            follows = self._carry_out(instruction)
            if follows is not None:
                queue.append(follows)

    def _carry_out(self, i: Any) -> events.Event | None:
        if type(i) in self.hold:
            self.held.append(i)
            return None
        if isinstance(i, instructions.Reply):
            self.replies.setdefault(i.reply, []).append(i.message)
        elif isinstance(i, instructions.ReserveNames):
            paths = self.names(i)
            return events.NamesReserved(i.job_id, paths, i.warnings, **self._mounts(i, paths))
        elif isinstance(i, instructions.SpoolPixels):
            files = tuple(f"file:/spool/{i.job_id}-{request['task']['index']}" for request in i.requests)
            return events.PixelsSpooled(i.job_id, files)
        elif isinstance(i, instructions.MovePixels):
            return events.PixelsMoved(*_key(i.task), f"file:/spool/{i.task.job_id}-{i.task.index}")
        elif isinstance(i, instructions.CreateSegment):
            return events.SegmentCreated(i.client, i.reply, i.size, f"file:/large/{i.reply}")
        elif isinstance(i, instructions.Append):
            self.journal += i.records
            return events.Journaled(i.job_id) if i.job_id else None
        elif isinstance(i, instructions.Dispatch):
            self.dispatched.append(i)
        elif isinstance(i, instructions.Bury):
            return events.Buried(*_key(i.task), f"npy:/dead/{i.task.job_id}-{i.task.index}.npy", 0)
        elif isinstance(i, instructions.StartUpload):
            self.uploads.append(i)
        elif isinstance(i, instructions.AddMember):
            self.members.append(i)
        elif isinstance(i, instructions.PublishShard):
            self.publishing.append(i)
        elif isinstance(i, instructions.RemoveSpooled):
            self.removed.append(i.spool)
        elif isinstance(i, instructions.Catalogue | instructions.CatalogueFailed | instructions.Uncatalogue):
            self.catalogue.append(i)
        elif isinstance(i, instructions.Publish):
            self.published.append(i.event.to_map())
        return None

    def _mounts(self, i: instructions.ReserveNames, paths: tuple[str, ...]) -> dict[str, Any]:
        if not self.disks:
            return {}
        at = (f"{i.output_dir}/{i.archive}",) if i.archive else paths
        points = [[disk for disk in self.disks if path.startswith(disk)] for path in (*at, *i.mirrors)]
        found = [max(disks, key=len, default="") for disks in points]
        mirrors = dict(zip(i.mirrors, found[len(at) :], strict=True))
        return {"mounts": tuple(found[: len(at)]), "mirror_mounts": {k: v for k, v in mirrors.items() if v}}

    def names(self, i: instructions.ReserveNames) -> tuple[str, ...]:
        """Free paths, each with a number of its own."""
        paths = []
        for relative in i.relatives:
            self.numbers += 1
            if "%counter%" in relative:
                paths.append(f"{i.output_dir}/{relative.replace('%counter%', f'{self.numbers:05d}')}")
                continue
            stem, _, extension = relative.rpartition(".")
            paths.append(f"{i.output_dir}/{stem}_{self.numbers:05d}.{extension}")
        return tuple(paths)

    def reply(self) -> int:
        """A number for the next request."""
        self._asked += 1
        return self._asked

    def answer(self, reply: int) -> dict[str, Any]:
        """The one answer to a request."""
        (message,) = self.replies[reply]
        return message

    def lease(self, *sizes: int, client: int = CLIENT) -> dict[str, Any]:
        """Ask for leases and return the answer."""
        reply = self.reply()
        self.happens(events.LeaseRequested(client, reply, sizes))
        return self.answer(reply)

    def submit(
        self,
        job_id: str,
        *batches: Batch,
        client: int = CLIENT,
        request_id: str = "",
        want: tuple[int, ...] = (),
        **fields: Any,
    ) -> int:
        """Lease what the batches need, submit them, seal them all, and return the number of the request."""
        batches = batches or (batch(),)
        leases = self.lease(*(b.batch * b.image_bytes for b in batches), client=client)["leases"]
        reply = self.open(job_id, *batches, client=client, request_id=request_id, want=want, **fields)
        self.seal(
            reply, *zip((x["lease"] for x in leases), (b.batch for b in batches), strict=True), client=client
        )
        return reply

    def open(
        self,
        job_id: str,
        *batches: Batch,
        client: int = CLIENT,
        request_id: str = "",
        want: tuple[int, ...] = (),
        **fields: Any,
    ) -> int:
        """Submit batches without sealing anything; returns the number of the request."""
        submit = Submit(request_id or f"request-{job_id}", options(**fields), batches or (batch(),), want)
        reply = self.reply()
        self.happens(events.Submitted(client, reply, submit, job_id))
        return reply

    def seal(
        self, reply: int, *parts: tuple[int, int], client: int = CLIENT, time_ns: int = 0
    ) -> list[instructions.Instruction]:
        """Seal (lease, images) of an open submit."""
        return self.happens(events.Sealed(client, reply, tuple(Part(*part) for part in parts), time_ns))

    def ask(
        self, command: events.JobCommand, job_id: str, until: float = 0.0, index: int | None = None
    ) -> dict[str, Any] | None:
        """Wait for, cancel, retry or dismiss a job; returns the answer, None when there is none yet."""
        reply = self.reply()
        self.happens(events.JobRequested(CLIENT, reply, command, job_id, until, index))
        return self.replies.get(reply, [None])[0]

    def pause(self, paused: bool = True) -> dict[str, Any]:
        """Pause or resume the pool; returns the answer."""
        reply = self.reply()
        self.happens(events.PauseRequested(CLIENT, reply, paused))
        return self.answer(reply)

    def worker(self, number: int = 1) -> None:
        """A worker is ready."""
        self.happens(events.WorkerReady(number, 1000 + number, 50.0 + number, {"png": "kernel"}))

    def workers(self) -> None:
        """All workers that were started are ready."""
        self.happens(events.Tick())
        for number, worker in list(self.farm.workers.items()):
            if worker.state.value == "starting":
                self.worker(number)

    def finish(self, **result: Any) -> list[instructions.Instruction]:
        """The image dispatched first is finished: saved, or with the result given."""
        d = self.dispatched.popleft()
        made = {"state": "saved", "path": d.task.path, "bytes": 10, **result}
        return self.happens(events.ImageFinished(d.worker, d.task.job_id, d.task.index, ImageResult(**made)))

    def tick(self, after_s: float = 0.25) -> list[instructions.Instruction]:
        """Time passes."""
        self.now += after_s
        return self.happens(events.Tick())

    def status(self) -> dict[str, Any]:
        """What the core tells of itself."""
        return status.status(self.farm)

    def states(self, job_id: str) -> list[str]:
        """Where the images of a job are."""
        return [image.state.value for image in self.farm.jobs[job_id].images]

    def told(self, name: str) -> list[dict[str, Any]]:
        """The events of one kind that the feed heard."""
        return [event for event in self.published if event["event"] == name]

    def keep_reports(self) -> None:
        """Write the reports that are due."""
        self.reports += completion.take_reports(self.farm)

    def compact(self) -> None:
        """Write the journal anew."""
        self.keep_reports()
        self.journal = recovery.snapshot(self.farm)

    def restarted(self, probe: Disk | None = None, **changes: Any) -> Stage:
        """A stage whose farm takes over what the journal of this one holds, after this one died."""
        after = Stage(self.farm.limits, **changes)
        after.farm.segment = "shm:another"
        after.now = self.now
        after.numbers = self.numbers
        recovered = recovery.read(self.journal, self.reports)
        after.farm.inherited = frozenset(recovered.segments_in_use()) & {"shm:arena", "shm:another"}
        done = recovery.restore(after.farm, recovered, probe or Disk(), after.now)
        after.reports = list(self.reports)
        after.compact()
        for instruction in done:
            after._carry_out(instruction)
        return after


def _key(task: ImageTask) -> tuple[str, int]:
    return task.job_id, task.index
