"""The supervisor: the life of a farm, from the state folder that it takes to the last file that it leaves. No
policy.

What happens becomes an event, the core decides, the executor acts. Everything runs in one thread and one
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from luna_farm import log_lines, system
from luna_farm.catalogue import rows
from luna_farm.config import FEED_OFF, Config, in_url
from luna_farm.core import events, instructions, recovery
from luna_farm.core.counted import counted
from luna_farm.core.farm import advance, handle
from luna_farm.core.job import Image
from luna_farm.core.leases import MAX_LEASES
from luna_farm.core.state import Farm, left_places
from luna_farm.errors import ArenaError, FarmError
from luna_farm.feed.server import MAX_CONNECTIONS
from luna_farm.locations import is_url
from luna_farm.storage.arena import Segments
from luna_farm.supervisor import state_dir
from luna_farm.supervisor.arena_memory import ArenaMemory
from luna_farm.supervisor.commands import Commands
from luna_farm.supervisor.dashboard import Dashboard
from luna_farm.supervisor.disks import since_last_start
from luna_farm.supervisor.executor import Executor
from luna_farm.supervisor.finder import Finder
from luna_farm.supervisor.inheritance import Inheritance
from luna_farm.supervisor.limits import limits
from luna_farm.supervisor.listener import Listener, places_for
from luna_farm.supervisor.notify import Notifier, managed
from luna_farm.supervisor.opening import Opening, opened
from luna_farm.supervisor.services import request_defaults, services
from luna_farm.supervisor.state_guard import StateGuard
from luna_farm.supervisor.status import Status, start_command
from luna_farm.supervisor.tls import server_context

log = logging.getLogger("luna_farm.supervisor")

TICK_S = 0.25
GC_EVERY = 20_000
DRAIN_S = 80.0
"""How long a stop may take to finish what was accepted (systemd waits 90 s); the rest is left to the
journal."""

SWEPT_FOLDERS = 1000
"""Folders that are looked through for strays after a power cut."""
LAST_WORDS_S = 2.0
"""How long workers that have nothing left to make may take to tidy up and end."""
QUIET = frozenset(
    {events.LeaseRequested, events.LeasesReturned, events.Submitted, events.NamesReserved, events.Sealed}
)
"""Events that bring no image into the queue and free no worker. Others follow each of them, or a tick."""


def _only_waits(event: events.Event) -> bool:
    return isinstance(event, events.JobRequested) and event.command == "wait"


class Supervisor:
    """One farm. Made by `open`, served by `run`."""

    def __init__(self, config: Config, opening: Opening) -> None:
        self.config = config
        self.arena = opening.arena
        self.token = state_dir.write_token(config.state_dir, config.token)
        log_lines.hide(self.token)
        self.farm = Farm(limits(config, self.arena.size), self.arena.name)
        self.notes: list[str] = []
        viewers = 0 if config.feed_port == FEED_OFF else MAX_CONNECTIONS
        places, viewers, few = places_for(config.max_connections, viewers, config.max_workers)
        for note in (*opening.notes, few):
            if note:
                self.note(note)
        self.dashboard = Dashboard(config, self._ask, self.status, self.token, viewers)
        self.finder = Finder(str(config.state_dir / rows.NAME) if config.catalogue else None)
        listener = Listener(
            Commands(self, request_defaults(config), self.farm.limits.of_request()),
            self.token,
            places,
            self.now,
            items=max(MAX_LEASES, config.max_images),
            shared=bool(config.token and config.allowed_dirs),
        )
        self.services = services(config, self.farm, opening, listener, self.handle_event, self.note)
        self.guard = StateGuard(config.state_dir, opening.lock, self.services, self.token, self.note)
        self._status = Status(self.farm, self.services.folders, config.output_dir, self.now, self.notes)
        self._memory = ArenaMemory(self.arena, self.farm.slots, self.now)
        self._executor = Executor(self.services, self.handle_event)
        self._events: deque[events.Event] = deque()
        self._handling = False
        self._inherited: list[instructions.Instruction] = []
        self._stopping = asyncio.Event()
        self._hurry = False
        self._notifier = Notifier()

    @classmethod
    @contextlib.contextmanager
    def open(cls, config: Config) -> Iterator[Supervisor]:
        """Take the state folder and what a predecessor left in it: its workers are ended, its jobs taken up
        again.

        Raises AlreadyRunning, DiskError, ArenaError.
        """
        with opened(config) as opening:
            try:
                supervisor = cls(config, opening)
                supervisor.recover(opening.recovered, opening.whole)
            except BaseException:
                opening.arena.unlink()  # nothing is in it, and it would stay until the next start
                raise
            yield supervisor

    def recover(self, recovered: recovery.RecoveredState, whole: bool = True) -> None:
        """Take the jobs of a predecessor up again, and begin the journal anew with them.

        Unless the journal is `whole`, pixels that no record names may belong to a job whose record is gone.
        """
        self._inherited = Inheritance(self.services, self.config.state_dir, self.note).take_up(
            recovered, whole, self.now()
        )

    @property
    def segments(self) -> Segments:
        """The segments that this process has mapped."""
        return self.services.segments

    # --- events and instructions

    def now(self) -> float:
        """Monotonic seconds: the only clock that decides about life and death."""
        return time.monotonic()

    def handle_event(self, *happened: events.Event) -> None:
        """Have the core handle one or more events and execute what it decides; events that arise meanwhile
        follow in order."""
        self._events.extend(happened)
        if self._handling:
            return
        self._handling = True
        try:
            moved, farm, execute = False, self.farm, self._executor.execute
            while self._events:
                current = self._events.popleft()
                if type(current) is events.Sealed:
                    self._executor.arrived(current)
                elif not moved and type(current) not in QUIET:
                    moved = not _only_waits(current)
                execute(handle(farm, current, time.monotonic()))
            if moved:
                execute(advance(farm, time.monotonic()))
        finally:
            self._handling = False
        if moved:  # else nothing was said to a worker
            services = self.services
            for pool in services.pools.values():
                pool.flush()
            services.uploads.flush()
            services.journal_writer.compact_if_due(services.snapshot)

    def status(self) -> dict[str, Any]:
        """The status of the whole farm."""
        services = self.services
        catalogue_problem = services.catalogue.problem if services.catalogue is not None else ""
        problems = services.journal_writer.error, self._memory.problem, catalogue_problem
        return self._status.get(*problems)

    def note(self, text: str) -> None:
        """Put something that a person should know into the log and the status."""
        log.warning(text)
        self.notes.append(text)

    async def _ask(self, event: Callable[[int], events.Event]) -> dict[str, Any]:
        """Have the core handle an event of this process, made with the number of its reply."""
        return await self._executor.answer(lambda reply: self.handle_event(event(reply)))

    # --- life

    async def run(self) -> None:
        """Serve until `stop`. Raises OSError when the port is taken."""
        config = self.config
        try:
            tls = server_context(config.tls_cert, config.tls_key)
            await self.services.listener.start(config.host, config.port, tls)
            await self.dashboard.start(self.services.metrics, tls)
            self.services.feed = self.dashboard.feed
            if self.dashboard.problem:
                self.note(self.dashboard.problem)
            self._introduce()
            self._executor.execute(self._inherited)
            if self.services.catalogue is not None:
                self.services.catalogue.check(recovery.catalogue_rows(self.farm.jobs.values()))
            await self._serve()
        finally:
            await self._close()

    def _introduce(self) -> None:
        """Say where we listen: in the state folder, in the status, in the log."""
        state_dir.forget_left(self.config.state_dir)
        before = state_dir.read_endpoint(self.config.state_dir)
        if before.get("boot_id") not in (None, system.boot_id()):
            self._sweep_strays()
        disk, missing = since_last_start(str(self.config.output_dir), before)
        if missing:
            self.note(missing)
        config, feed, port = self.config, self.services.feed, self.services.listener.port
        feed_port = feed.port if feed else None
        endpoint = {"host": config.host, "port": port, "feed_port": feed_port, "pid": os.getpid()}
        self.guard.endpoint = {**endpoint, "managed": managed(), "boot_id": system.boot_id(), **disk}
        state_dir.write_endpoint(config.state_dir, self.guard.endpoint)
        limits = {**self.farm.limits.of_request(), "max_jobs": config.max_jobs}
        folders = {"state_dir": str(config.state_dir), "output_dir": str(config.output_dir)}
        facts = {"limits": limits, "catalogue": config.catalogue, "start_command": start_command(config)}
        tls = {"tls": config.tls_cert is not None}
        self._status.facts = {**endpoint, **tls, **folders, **facts}
        host = in_url(config.host)
        log.info("Luna Farm listens on %s:%d (pid %d)", host, port, os.getpid())
        if feed:
            log.info("Dashboard: %s://%s:%d/", "https" if config.tls_cert else "http", host, feed.port)

    def _sweep_strays(self) -> None:
        """Look for what a power cut left in the folders of all jobs that are known."""
        tasks = [image.task for job in self.farm.jobs.values() for image in job.images]
        paths = {path for task in tasks if not is_url(task.root) for path in task.temp_paths}
        folders = list(dict.fromkeys(map(os.path.dirname, sorted(paths))))[:SWEPT_FOLDERS]
        self._executor.sweep_strays(folders, set(self.farm.open_jobs))

    async def _serve(self) -> None:
        """The clock of the farm, until nothing is left to do after a stop was asked for."""
        # What is there now stays for good. Kept reports have no cycles: looking through all of them for some
        # would cost a hand-over ten milliseconds now and then.
        gc.freeze()
        gc.set_threshold(GC_EVERY)
        told_ready, drain_until, jobs = False, 0.0, -1
        while True:
            self.handle_event(events.Tick())
            self.services.listener.sweep()
            self._memory.tick()
            self.services.journal_writer.catch_up()
            self._executor.arrivals.keep(self.farm.submits)
            accepted, jobs = self.farm.totals["jobs"] - jobs, self.farm.totals["jobs"]
            if not (self.farm.depth or accepted):  # until then the journal says what became of them
                self.services.keep_reports()
            self.services.uploads.watch()
            self._executor.remove_spooled()
            self._executor.sync_journal()
            self.guard.tick()
            if self.services.catalogue is not None:
                self.services.catalogue.flush()
            if self.farm.ready and not told_ready:
                told_ready = True
                system.release_memory()
                self._notifier.send("READY=1")
            if self._notifier.watchdog_s:
                self._notifier.send("WATCHDOG=1")
            if self.farm.draining:
                drain_until = drain_until or self.now() + DRAIN_S
                if self._hurry or self.farm.drained or self.now() > drain_until:
                    return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_S)
            if self.farm.draining:
                await asyncio.sleep(0.02)

    def stop(self, now: bool = False) -> None:
        """Begin to stop: first finish what was accepted. `now`: leave the rest to the journal; to ask again
        without it changes nothing."""
        self._hurry = self._hurry or now
        if not self.farm.draining:
            left = sum(1 for _ in self.farm.unfinished())
            log.info("Stopping%s", f" after {counted(left, 'image')}" if left and not now else "")
            self.handle_event(events.DrainRequested(now))
        self._stopping.set()

    async def _close(self) -> None:
        """Stop in this order: intake, workers, what still writes, clients, feed, memory, journal."""
        services = self.services
        self._notifier.send("STOPPING=1")
        await services.listener.stop_intake()
        patience_s = 0.0 if self._hurry else LAST_WORDS_S
        await asyncio.gather(*(pool.close(patience_s) for pool in services.pools.values()))
        await self._executor.close()
        self.finder.close()
        if self.services.catalogue is not None:
            await self.services.catalogue.close()
        await services.listener.close()
        if services.feed:
            await services.feed.close()
        left = list(self.farm.unfinished())
        if left:
            log.warning("Left to the journal and the next start: %s", counted(len(left), "image"))
            self._note_left(left)
        services.segments.close()  # first: Windows removes no file that this process has mapped
        if not any(image.task.segment == self.arena.name for image in left):
            try:
                self.arena.unlink()
            except ArenaError as error:  # Windows, while a client still maps it: the next start removes it
                log.info("%s", error)
        services.journal_writer.close()
        services.reports.close()
        self.guard.stopped()
        self._notifier.close()

    def _note_left(self, left: list[Image]) -> None:
        """Write down what this farm leaves to the next start, for `stop` and `status`."""
        jobs = list(dict.fromkeys(image.task.job_id for image in left))
        folders = sorted({place for image in left for place in left_places(image)})
        try:
            state_dir.write_left(self.config.state_dir, len(left), jobs, folders)
        except FarmError as error:  # the journal has it all the same
            log.error("What is left cannot be noted: %s", error)
