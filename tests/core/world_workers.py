"""The workers of the pretended world: they make images, report them, and end at any moment."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from luna_farm.core import events
from luna_farm.core import instructions as do
from luna_farm.core.job import ImageState
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.locations import is_url

Key = tuple[str, int]
FINAL = {"saved", "discarded", "dropped", "cancelled", "lost"}
OTHER = ("held", "burying", "uploading")
NO_PIXELS = (ImageState.FILLING, ImageState.UPLOADING)
GARBAGE: Key = ("garbage", 0)


@dataclass
class Process:
    """A worker process: what it was told, what it has to report, whether it still runs."""

    pid: int
    told: deque[Any] = field(default_factory=deque)
    reports: deque[tuple[ImageTask, ImageResult]] = field(default_factory=deque)
    ready: bool = False
    dead: bool = False


@dataclass
class File:
    """A published file."""

    path: str
    state: str


class Workers:
    """The part of `World` that workers do."""

    def _read(self, task: ImageTask) -> None:
        """The pixels of a task are read: they must be there, and be those that were handed over."""
        assert task.segment in self.segments, f"{task.segment} is gone, and is to be read"
        if not task.segment.startswith("npy:"):
            for page in self._pages(task.segment, task.offset, task.nbytes):
                tag = self.memory.get(page)
                assert tag == self.tags[task.job_id, task.index], "pixels that were accepted are overwritten"

    def work(self, number: int, outcome: str) -> None:
        """A worker does the next thing that it was told."""
        process = self.processes[number]
        i = process.told.popleft()
        if isinstance(i, do.EndWorker):
            process.dead = True
        else:
            self._read(i.task)
            process.reports.append((i.task, self._made(i.task, i.options, outcome)))

    def _made(self, task: ImageTask, options: SaveOptions, outcome: str) -> ImageResult:
        key = (task.job_id, task.index)
        if outcome == "sent":
            outcome = "saved"
            if is_url(task.root) and not (task.archive or task.recovered or options.mirrors):
                return self.outside.sent(task)
        if task.archive or is_url(task.root):
            known = self.outside.found(task)
            assert known is None or task.recovered, f"{key} is spooled twice"
            return self._spooled(task, options, outcome) if known is None else known
        disk = "/" + task.path.split("/")[1]
        if disk in self.broken:
            return ImageResult("failed", code="disk", error="full")
        if key in self.files:
            assert task.recovered, f"{key} is made twice"
            if options.mirrors:
                return self.outside.spooled(task, options.mirrors, self.files[key].state)
            return self._result(self.files[key])
        if outcome in ("failed", "arena"):
            return ImageResult("failed", code="encode" if outcome == "failed" else "arena")
        if outcome == "dropped":
            return ImageResult("dropped")
        path = task.path
        while any(file.path == path for file in self.files.values()):
            path += "~"
        self.files[key] = File(path, outcome)
        if options.mirrors:
            return self.outside.spooled(task, options.mirrors, outcome)
        return replace(self._result(self.files[key]), row=path.encode())

    def _spooled(self, task: ImageTask, options: SaveOptions, outcome: str) -> ImageResult:
        if outcome in ("failed", "arena"):
            return ImageResult("failed", code="encode" if outcome == "failed" else "arena")
        if outcome == "dropped":
            return ImageResult("dropped")
        return self.outside.spooled(task, options.mirrors, outcome)

    def _result(self, file: File) -> ImageResult:
        return ImageResult(file.state, path=file.path, bytes=1)

    def report(self, number: int) -> None:
        """A result comes up the pipe."""
        task, result = self.processes[number].reports.popleft()
        self.happens(events.ImageFinished(number, task.job_id, task.index, result))

    def worker_gone(self, number: int, silent: bool = False) -> None:
        """A worker ends; what it had said before is heard before. `silent`: it had no time to say it."""
        while self.processes[number].reports and not silent:
            self.report(number)
        del self.processes[number]
        self.happens(events.WorkerGone(number, "gone"))

    def worker_ready(self, number: int) -> None:
        """A worker has started."""
        process = self.processes[number]
        process.ready = True
        self.happens(events.WorkerReady(number, process.pid, float(process.pid), {}))
