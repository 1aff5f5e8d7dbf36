"""Executes what the core decides: one method for each instruction, in the order of the list. No policy.

What may wait for a disk runs in a thread and comes back as an event; everything else is done when `execute`
returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from luna_farm.core import events, instructions
from luna_farm.core.feed_events import JobQueued
from luna_farm.engine.pool import Pool
from luna_farm.errors import DiskError, FarmError
from luna_farm.storage import arena as arenas
from luna_farm.storage import strays, writer
from luna_farm.supervisor.log_events import log_event
from luna_farm.supervisor.services import Services
from luna_farm.testing.faults import crash_point

log = logging.getLogger("luna_farm.executor")

INTERNAL = 0
"""The "connection" of the dashboard's actions; those of clients count from 1."""
DISK_THREADS = 2


@dataclass(slots=True)
class Arrivals:
    """When the first pixels of each open submit were sealed: what the hand-over time is measured from."""

    started: dict[str, float] = field(default_factory=dict)

    def note(self, job_id: str) -> None:
        """The first pixels of a job are sealed."""
        self.started[job_id] = time.perf_counter()

    def keep(self, submits: Container[str]) -> None:
        """Forget those that came to nothing."""
        if self.started:
            self.started = {job_id: at for job_id, at in self.started.items() if job_id in submits}

    def took_ms(self, job_id: str) -> float | None:
        """Milliseconds since then; None for a job that a predecessor took over."""
        started = self.started.pop(job_id, None)
        return None if started is None else (time.perf_counter() - started) * 1e3


class Executor:
    """Carries out instructions on `services`; `handle_event` takes the events that come of them."""

    def __init__(self, services: Services, handle_event: Callable[[events.Event], None]) -> None:
        self._services = services
        self._handle_event = handle_event
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
        self._background: set[asyncio.Task[None]] = set()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.arrivals = Arrivals()
        self._spooled: list[str] = []
        """Files of the upload spool that may go once the journal is on the disk."""
        self._forgotten: list[str] = []
        """Spooled pixels that may go then."""
        self._table: dict[type, Callable[[Any], None]] = {
            instructions.Reply: self._reply,
            instructions.ReserveNames: services.folders.reserve,
            instructions.CreateSegment: self._create_segment,
            instructions.SpoolPixels: self._spool_pixels,
            instructions.MovePixels: self._move_pixels,
            instructions.Append: self._append,
            instructions.Dispatch: self._dispatch,
            instructions.RemoveTemps: self._remove_temps,
            instructions.Spawn: lambda i: services.pools[i.pool].spawn(i.worker),
            instructions.EndWorker: self._end_worker,
            instructions.Bury: self._bury,
            instructions.Forget: self._forget,
            instructions.StartUpload: services.uploads.start,
            instructions.AddMember: services.uploads.add_member,
            instructions.PublishShard: self._publish_shard,
            instructions.RemoveSpooled: lambda i: self._spooled.append(i.spool),
            instructions.Catalogue: self._catalogue,
            instructions.CatalogueFailed: self._catalogue,
            instructions.Uncatalogue: self._catalogue,
            instructions.Publish: self._publish,
        }

    def arrived(self, event: events.Sealed) -> None:
        """Note when acceptance begins: with the pixels that are sealed first."""
        opened = self._services.farm.submitting.get(event.client)
        if opened is not None and not opened.sealed:
            self.arrivals.note(opened.job_id)

    def execute(self, decided: Iterable[instructions.Instruction]) -> None:
        """Carry out instructions, in their order."""
        table = self._table
        for instruction in decided:
            table[type(instruction)](instruction)

    async def answer(self, ask: Callable[[int], None]) -> dict[str, Any]:
        """Call `ask` with the number of a request of our own, and return the answer to it."""
        reply = max(self._answers, default=0) + 1
        self._answers[reply] = asyncio.get_running_loop().create_future()
        future = self._answers[reply]
        ask(reply)
        return await future

    def remove_spooled(self) -> None:
        """Have the spooled files of images that are saved removed. First the journal is synced, once for all
        of them: a power cut must not keep the removal and take the record.

        The uploader does it, because to remove a file takes a tenth of the processor time of an image here.
        """
        if self._forgotten:
            again, self._forgotten = self._forgotten, []
            for segment in again:
                self._forget(instructions.Forget(segment))
        uploads = self._services.uploads
        self._spooled += uploads.take_left()
        if self._spooled and self._services.journal_writer.synced():
            gone, self._spooled = self._spooled, []
            if not uploads.remove(gone):
                self._aside(lambda: self._services.upload_spool.remove_all(gone))

    async def close(self) -> None:
        """End the uploader, and wait for what still writes."""
        await self._services.uploads.close()
        self.remove_spooled()
        while self._background:
            await asyncio.wait(set(self._background))
        self._disk.shutdown()

    def _reply(self, i: instructions.Reply) -> None:
        if i.client == INTERNAL:
            self._answers.pop(i.reply).set_result(i.message)
            return
        connection = self._services.listener.connections.get(i.client)
        if connection:
            connection.send({**i.message, "id": i.reply})
        crash_point("supervisor.acknowledged")

    def _append(self, i: instructions.Append) -> None:
        if not i.job_id:
            self._services.journal_writer.append(i.records)
            return
        error = self._services.journal_writer.accept(i.records, sync=i.sync)
        self._handle_event(events.Journaled(i.job_id, error))

    def _publish_shard(self, i: instructions.PublishShard) -> None:
        if self._services.journal_writer.synced():
            self._services.uploads.publish(i)
            return
        # What is in the shard is not on the disk: after a power cut its members would be added once more.
        error = f"{i.shard.path} waits for the journal: {self._services.journal_writer.error}"
        self._handle_event(events.ShardPublished(i.shard.shard_id, error=error))

    def _end_worker(self, i: instructions.EndWorker) -> None:
        if i.force:
            self._pool(i.worker).kill(i.worker, i.why)
        else:
            self._pool(i.worker).retire(i.worker, i.why)

    def _pool(self, worker: int) -> Pool:
        services = self._services
        return services.pools[services.farm.workers[worker].pool]

    def _dispatch(self, i: instructions.Dispatch) -> None:
        feed = self._services.feed
        task = replace(i.task, thumbnail=True) if feed and feed.wants_thumbnail() else i.task
        farm = self._services.farm
        self._pool(i.worker).dispatch(i.worker, task, i.options, last=not farm.waiting)
        crash_point("supervisor.dispatched")

    def _catalogue(
        self, i: instructions.Catalogue | instructions.CatalogueFailed | instructions.Uncatalogue
    ) -> None:
        if self._services.catalogue is not None:
            self._services.catalogue.add(i)

    def _publish(self, i: instructions.Publish) -> None:
        event = i.event.to_map()
        if isinstance(i.event, JobQueued):
            event["handover_ms"] = self.arrivals.took_ms(i.event.job_id)
        log_event(event)
        if self._services.feed:
            self._services.feed.publish(event)
        else:
            self._services.metrics.observe(event)

    # --- what may wait for a disk: in a thread, and back as an event

    def _aside(self, work: Callable[[], events.Event | None]) -> None:
        async def run() -> None:
            event = await asyncio.get_running_loop().run_in_executor(self._disk, work)
            if event is not None:
                self._handle_event(event)

        task = asyncio.get_running_loop().create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _spool_pixels(self, i: instructions.SpoolPixels) -> None:
        services = self._services

        def work() -> events.Event:
            files: list[str] = []
            try:
                for place, request in zip(i.places, i.requests, strict=True):
                    index, view = request["task"]["index"], services.segments.view(*place)
                    files.append(services.spool.write(i.job_id, index, view, request))
            except Exception as error:  # whatever it is, the job gets an answer and its slots are free again
                for segment in files:
                    services.spool.remove(segment)
                return events.PixelsSpooled(i.job_id, error=_as_disk_error("spool pixels", error))
            return events.PixelsSpooled(i.job_id, tuple(files))

        self._aside(work)

    def _move_pixels(self, i: instructions.MovePixels) -> None:
        services, task = self._services, i.task

        def work() -> events.Event:
            try:
                view = services.segments.view(task.segment, task.offset, task.nbytes)
                segment = services.spool.write(task.job_id, task.index, view, i.request)
            except Exception as error:  # whatever it is, the image stays where it is
                failed = _as_disk_error("move pixels to the disk", error)
                return events.PixelsMoved(task.job_id, task.index, error=failed)
            return events.PixelsMoved(task.job_id, task.index, segment)

        self._aside(work)

    def _create_segment(self, i: instructions.CreateSegment) -> None:
        services = self._services

        def work() -> events.Event:
            try:
                arena = services.large.create(i.size)
            except Exception as error:
                failed = _as_disk_error("create a segment", error)
                return events.SegmentCreated(i.client, i.reply, i.size, error=failed)
            services.segments.add(arena)
            return events.SegmentCreated(i.client, i.reply, i.size, arena.name)

        self._aside(work)

    def _bury(self, i: instructions.Bury) -> None:
        services, task = self._services, i.task

        def work() -> events.Event:
            if task.segment.startswith("npy:"):  # it failed again, and lies there already
                return events.Buried(task.job_id, task.index, task.segment, 0)
            try:
                pixels = services.segments.view(task.segment, task.offset, task.nbytes)
                letter = services.letters.put(i.options.to_map(), task.to_map(), pixels, i.reason)
            except Exception as error:  # whatever it is, the image is not forgotten
                log.error("Image %d of job %s cannot be set aside: %s", task.index, task.job_id, error)
                known = (
                    error if isinstance(error, FarmError) else FarmError(f"{type(error).__name__}: {error}")
                )
                return events.Buried(task.job_id, task.index, error=known)
            log.warning("Pixels of image %d of job %s: %s (%s)", task.index, task.job_id, letter, i.reason)
            return events.Buried(task.job_id, task.index, f"npy:{PurePath(letter).with_suffix('.npy')}", 0)

        self._aside(work)

    def _remove_temps(self, i: instructions.RemoveTemps) -> None:
        def work() -> None:
            for temp in i.temps:
                with contextlib.suppress(FarmError):  # its folder is away
                    writer.remove_temp(temp, i.root, self._services.folders.allowed)

        self._aside(work)

    def sweep_strays(self, folders: Iterable[str], open_jobs: Container[str]) -> None:
        """Remove temporary files that a power cut left in these folders, in a thread."""

        def work() -> None:
            for folder in folders:
                for path in strays.sweep(folder, open_jobs):
                    log.info("%s was left by a power cut and was removed", path)

        self._aside(work)

    def sync_journal(self) -> None:
        """Put the journal on the disk, in a thread, if it has grown since and that is due."""
        sync = self._services.journal_writer.sync_if_due()
        if sync is not None:
            self._aside(sync)

    def _forget(self, i: instructions.Forget) -> None:
        services, segment = self._services, i.segment
        for pool in services.pools.values():
            pool.forget(segment)
        services.segments.forget(segment)
        if services.spool.holds(segment) and not services.journal_writer.synced():
            # A power cut could keep the removal and take the record of the file.
            self._forgotten.append(segment)
            return

        def work() -> None:
            with contextlib.suppress(FarmError, OSError):  # what stays is swept at the next start
                if segment.startswith("npy:"):
                    services.letters.remove(PurePath(segment[4:]).stem)
                else:
                    arenas.remove(segment)

        self._aside(work)


def _as_disk_error(action: str, error: Exception) -> FarmError:
    """Return the error of something that went wrong with a disk; one of another kind is a bug, and logged."""
    if isinstance(error, FarmError):
        return error
    if not isinstance(error, OSError):
        log.error("Cannot %s: %s: %s", action, type(error).__name__, error)
    return DiskError(f"Cannot {action}: {error}.")
