"""The supervisor: turns what happens into events, has the core decide, executes what it says. No policy of its own.

Everything runs in one thread and one event loop; what may wait for a disk runs in a thread and comes back as an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from luna_farm import system
from luna_farm.config import FEED_OFF, Config
from luna_farm.core import events, instructions, recovery
from luna_farm.core.farm import handle
from luna_farm.core.filenames import twin_key
from luna_farm.core.state import Farm, Limits
from luna_farm.errors import ArenaError, FarmError
from luna_farm.storage import arena as arenas
from luna_farm.storage import dead_letters, names
from luna_farm.storage.arena import Arena
from luna_farm.storage.arena_size import establish
from luna_farm.storage.journal import Journal
from luna_farm.storage.spool import Spool
from luna_farm.supervisor import home, pool
from luna_farm.supervisor.announce import announce
from luna_farm.supervisor.commands import Commands
from luna_farm.supervisor.feed import Feed
from luna_farm.supervisor.ledger import Ledger
from luna_farm.supervisor.listener import Listener
from luna_farm.supervisor.metrics import Metrics
from luna_farm.supervisor.notify import Notifier
from luna_farm.supervisor.status import Status
from luna_farm.testing.faults import crash_point

log = logging.getLogger("luna_farm.supervisor")

TICK_S = 0.25
DRAIN_S = 80.0
"""How long a stop may take to finish what was accepted (systemd waits 90 s); the rest is left to the journal."""
INTERNAL = 0
"""The "connection" of the feed's actions."""


class Supervisor:
    """One farm: made by `open`, served by `run`. Holds the state folder's lock for as long as it lives."""

    def __init__(self, config: Config, lock: system.StateLock, arena: Arena, notes: list[str]) -> None:
        self.config = config
        self.arena = arena
        self.token = home.write_token(config.state_dir, config.token)
        self.farm = Farm(_limits(config, arena.size), arena.name)
        self.pool = pool.Pool(self.happened, config.fsync)
        self.metrics = Metrics()
        self.spool = Spool(config.state_dir / "spool")
        self.letters = dead_letters.DeadLetters(config.state_dir / "dead")
        self.stopping = asyncio.Event()
        self._lock = lock
        self._notes = notes
        self._notifier = Notifier()
        self._segments = arenas.Segments()
        self._disk = ThreadPoolExecutor(2, thread_name_prefix="disk")
        self._background: set[asyncio.Task[None]] = set()
        self._events: deque[events.Event] = deque()
        self._handling = False
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._arrived: dict[str, float] = {}
        self._hurry = False
        self._feed: Feed | None = None
        defaults = {"output_dir": str(config.output_dir), "on_reject": config.on_reject, "durable": config.durable}
        commands = Commands(self, defaults, config.allowed_dirs)
        self.listener = Listener(commands, self.token, _connections(config), self.now)
        self._execute: dict[type, Callable[[Any], None]] = {
            instructions.Reply: self._reply,
            instructions.ReserveNames: self._reserve,
            instructions.SpoolPixels: self._spool_pixels,
            instructions.AppendJob: self._append_job,
            instructions.Append: lambda i: self.ledger.append(i),
            instructions.Dispatch: self._dispatch,
            instructions.Settle: lambda i: self.ledger.settle(i),
            instructions.Spawn: lambda i: self.pool.spawn(i.worker),
            instructions.Retire: lambda i: self.pool.retire(i.worker),
            instructions.Kill: lambda i: self.pool.kill(i.worker, i.why),
            instructions.Bury: self._bury,
            instructions.Forget: self._forget,
            instructions.Publish: lambda i: self.publish(i.event),
        }

    # --- events and instructions

    def now(self) -> float:
        """Monotonic seconds: the only clock that decides about life and death."""
        return time.monotonic()

    def happened(self, event: events.Event) -> None:
        """Have the core handle an event and execute what it decides; events that arise meanwhile follow in order."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                event = self._events.popleft()
                if type(event) is events.Submitted:
                    self._arrived[event.job_id] = time.perf_counter()
                for instruction in handle(self.farm, event, self.now()):
                    self._execute[type(instruction)](instruction)
        finally:
            self._handling = False
        self.ledger.compact_if_due(lambda: recovery.snapshot(self.farm))

    def publish(self, event: dict[str, Any]) -> None:
        """Tell feed, metrics and log."""
        if event["event"] == "save_job_queued":
            arrived = self._arrived.pop(event["job_id"], None)
            if arrived is not None:
                event["handover_ms"] = (time.perf_counter() - arrived) * 1e3
        announce(event)
        if self._feed:
            self._feed.publish(event)
        else:
            self.metrics.observe(event)

    def _reply(self, i: instructions.Reply) -> None:
        if i.client == INTERNAL:
            future = self._answers.pop(i.reply, None)
            if future and not future.done():
                future.set_result(i.message)
            return
        connection = self.listener.connections.get(i.client)
        if connection:
            connection.send({**i.message, "id": i.reply})
        crash_point("supervisor.acknowledged")

    def _reserve(self, i: instructions.ReserveNames) -> None:
        reserved: list[str] = []
        try:
            for relative in i.relatives:
                reserved.append(names.reserve(i.output_dir, relative, self.farm.taken))
                self.farm.taken.add(twin_key(reserved[-1]))
        except FarmError as error:
            self.farm.taken.difference_update(map(twin_key, reserved))
            self.happened(events.NamesRefused(i.job_id, error))
            return
        self.happened(events.NamesReserved(i.job_id, tuple(reserved), i.warnings))

    def _append_job(self, i: instructions.AppendJob) -> None:
        error = self.ledger.append_job(i.record, sync=i.record["options"]["durable"])
        self.happened(events.JournalFailed(i.job_id, error) if error else events.JobJournaled(i.job_id))

    def _dispatch(self, i: instructions.Dispatch) -> None:
        wanted = self._feed is not None and self._feed.wants_thumbnail()
        self.pool.dispatch(i.worker, replace(i.task, thumbnail=True) if wanted else i.task, i.options)
        crash_point("supervisor.dispatched")

    def settle_now(self, i: instructions.Settle) -> None:
        """Have a worker remove a temporary link."""
        self.pool.settle(i.worker, i.job_id, i.index, i.temp, i.root)
        crash_point("supervisor.settled")

    # --- what may wait for a disk: in a thread, and back as an event

    def _aside(self, work: Callable[[], events.Event | None]) -> None:
        async def run() -> None:
            event = await asyncio.get_running_loop().run_in_executor(self._disk, work)
            if event is not None:
                self.happened(event)

        task = asyncio.get_running_loop().create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _spool_pixels(self, i: instructions.SpoolPixels) -> None:
        def work() -> events.Event:
            try:
                places = enumerate(i.places)
                files = [self.spool.write(i.job_id, n, self._view(*place)) for n, place in places]
            except FarmError as error:
                return events.SpoolFailed(i.job_id, error)
            return events.Spooled(i.job_id, tuple(files))

        self._aside(work)

    def _view(self, segment: str, offset: int, size: int) -> memoryview:
        if segment == self.arena.name:
            return self.arena.view(offset, size)
        return self._segments.view(segment, offset, size)

    def _bury(self, i: instructions.Bury) -> None:
        def work() -> events.Event:
            task = i.task
            try:
                if task.segment.startswith("npy:"):  # it failed again, and lies there already
                    return events.Buried(task.job_id, task.index, task.segment, 0)
                pixels = self._view(task.segment, task.offset, task.nbytes)
                path = self.letters.put(i.options.to_map(), task.to_map(), pixels, i.reason)
                return events.Buried(task.job_id, task.index, f"npy:{PurePath(path).with_suffix('.npy')}", 0)
            except FarmError as error:
                log.error("Image %d of job %s cannot be set aside: %s", task.index, task.job_id, error)
                return events.BuryFailed(task.job_id, task.index, str(error))

        self._aside(work)

    def _forget(self, i: instructions.Forget) -> None:
        def work() -> None:
            with contextlib.suppress(FarmError, OSError):
                if i.segment.startswith("npy:"):
                    self.letters.remove(PurePath(i.segment[4:]).stem)
                else:
                    arenas.remove(i.segment)

        self.pool.forget(i.segment)
        self._segments.forget(i.segment)
        self._aside(work)

    # --- life

    @classmethod
    @contextlib.contextmanager
    def open(cls, config: Config) -> Iterator[Supervisor]:
        """Take the state folder and what a predecessor left in it. Raises AlreadyRunning, DiskError, ArenaError."""
        lock = home.prepare(config.state_dir)
        try:
            journal, replay = Journal.open(config.state_dir / home.JOURNAL)
            remains = recovery.read(replay.records)
            fenced = pool.fence(remains.workers)
            arena, notes = establish(config.arena_bytes, config.state_dir, keep=remains.segments_in_use())
            if replay.cut_bytes:
                notes.append(f"{replay.cut_bytes} bytes at the end of the journal were no record; kept: {replay.kept_aside}")
            if fenced:
                notes.append(f"{fenced} workers of the farm that ran before were still alive and were ended.")
            supervisor = cls(config, lock, arena, notes)
            supervisor.ledger = Ledger(journal, config.journal_bytes, supervisor.settle_now)
            supervisor.recover(remains)
            yield supervisor
        finally:
            lock.release()

    def recover(self, remains: recovery.Remains) -> None:
        """Take the jobs of a predecessor up again, and remove its arenas that nothing needs any more."""
        for note in self._notes:
            log.warning(note)
        self._inherited = recovery.restore(self.farm, remains, self._readable, self.now())
        self.spool.sweep(self.farm.segment_users)
        records = recovery.snapshot(self.farm)
        for record in records:
            self.ledger.append(instructions.Append(record))
        open_images = sum(1 for _ in self.farm.unfinished())
        if open_images:
            log.warning("%d images of the farm that ran before are taken up again", open_images)

    def _readable(self, segment: str) -> bool:
        if segment.startswith("npy:"):
            return os.path.exists(segment[4:])
        try:
            header = self._segments.arena(segment).header
        except ArenaError:
            return False
        # Of a memory file of another boot nobody knows which pages reached the disk; a spooled one is synced.
        return segment.startswith(f"file:{self.spool.folder}") or header.boot_id == system.boot_id()

    async def run(self) -> None:
        """Serve until `stop`. Raises OSError when a port is taken."""
        config = self.config
        tls = _tls(config)
        await self.listener.start(config.host, config.port, tls)
        status = Status(self.farm, {}, config.output_dir, self.now)
        self._status = status
        if config.feed_port != FEED_OFF:
            await self._start_feed(tls)
        feed_port = self._feed.port if self._feed else None
        endpoint = {"host": config.host, "port": self.listener.port, "feed_port": feed_port, "pid": os.getpid()}
        home.write_endpoint(config.state_dir, endpoint)
        status.facts = {
            **endpoint,
            "state_dir": str(config.state_dir),
            "limits": {**self.farm.limits.of_request(), "max_jobs": config.max_jobs},
        }
        log.info("Luna Farm listens on %s:%d (pid %d)", config.host, self.listener.port, os.getpid())
        if self._feed:
            log.info("Dashboard: http://%s:%d/", config.host, self._feed.port)
        for instruction in self._inherited:
            self._execute[type(instruction)](instruction)
        try:
            await self._serve()
        finally:
            await self._close()

    async def _start_feed(self, tls: ssl.SSLContext | None) -> None:
        config = self.config
        feed = Feed(
            config.feed_port,
            config.host,
            self.status,
            self._action,
            self.token,
            self.metrics,
            tls=tls,
        )
        try:
            await feed.start()
        except OSError as error:
            note = f"The feed port {config.feed_port} cannot be used ({error.strerror}): no dashboard, no metrics."
            self._status.notes.append(note)
            log.error(note)
            return
        self._feed = feed

    async def _serve(self) -> None:
        """The clock of the farm, until nothing is left to do after a stop was asked for."""
        told_ready, drain_until = False, 0.0
        while True:
            self.happened(events.Tick())
            self.listener.sweep()
            self.ledger.catch_up()
            if self.farm.ready and not told_ready:
                told_ready = True
                self._notifier.send("READY=1")
            if self._notifier.watchdog_s:
                self._notifier.send("WATCHDOG=1")
            if self.farm.draining:
                drain_until = drain_until or self.now() + DRAIN_S
                if self._hurry or self.farm.drained or self.now() > drain_until:
                    return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), TICK_S)
                if self.farm.draining:
                    await asyncio.sleep(0.02)

    def stop(self, now: bool = False) -> None:
        """Begin to stop: first finish what was accepted; `now`, or a second time: leave the rest to the journal."""
        self._hurry = now or self.farm.draining
        if not self.farm.draining:
            left = sum(1 for _ in self.farm.unfinished())
            log.info("Stopping%s", f": {left} images are finished first" if left and not now else "")
            self.happened(events.DrainAsked())
        self.stopping.set()

    async def _close(self) -> None:
        """Stop in this order: intake, workers, what still writes, feed, memory, journal, lock."""
        self._notifier.send("STOPPING=1")
        await self.listener.stop_intake()
        await self.pool.close()
        while self._background:
            await asyncio.wait(set(self._background))
        await self.listener.close()
        if self._feed:
            await self._feed.close()
        self._disk.shutdown()
        left = list(self.farm.unfinished())
        if left:
            log.warning("%d images are left to the journal; the next start finishes them", len(left))
        in_arena = any(image.slot is not None and not image.spool for image in left)
        self._segments.close()
        self.arena.close()
        if not in_arena:
            self.arena.unlink()
        self.ledger.close()
        self._notifier.close()

    def status(self) -> dict[str, Any]:
        """The status of the whole farm."""
        return self._status.get()

    async def _action(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out an action of the dashboard, as if a client had asked for it."""
        kinds = {"retry": events.RetryAsked, "cancel": events.CancelAsked}
        reply = max(self._answers, default=0) + 1
        self._answers[reply] = asyncio.get_running_loop().create_future()
        future = self._answers[reply]
        self.happened(kinds[name](INTERNAL, reply, str(arguments.get("job_id", ""))))
        return await future


def _limits(config: Config, arena_bytes: int) -> Limits:
    return Limits(
        arena_bytes=min(arena_bytes, config.max_queue_bytes),
        max_jobs=config.max_jobs,
        max_images=config.max_images,
        max_pixels=config.max_pixels,
        kept_reports=config.kept_reports,
        min_workers=config.min_workers,
        max_workers=config.max_workers,
        idle_timeout_s=config.idle_timeout_s,
        worker_deadline_s=config.worker_deadline_s,
        fallback_dir=str(config.fallback_dir) if config.fallback_dir else "",
    )


def _connections(config: Config) -> int:
    """Connections to allow: what is configured, and what the limit of open files leaves."""
    reserve = 24 + 2 * config.max_workers
    return max(4, min(config.max_connections, system.open_file_limit()[0] - reserve))


def _tls(config: Config) -> ssl.SSLContext | None:
    if not config.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_cert, config.tls_key)
    return context
