"""Random lives of a farm: whatever happens in whatever order, it keeps its word (`world.py` says which)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from world import World
from world_uploads import KINDS

from luna_farm.core import events, instructions
from luna_farm.core.job import UNSAVED
from luna_farm.core.leases import QUARANTINE_S
from luna_farm.core.limits import Limits
from luna_farm.core.messages import ImageResult
from luna_farm.core.slots import ALIGN
from luna_farm.errors import DiskError, InvalidRequest

CLIENTS = st.integers(1, 2)
ANY = st.integers(0, 1_000)
IMAGES = st.lists(st.integers(1, 2), min_size=1, max_size=3)
"""Images of each batch of a submit."""
KIND = st.sampled_from(("folder", *KINDS))
INDEX = st.sampled_from((None, None, 0, 1, 2, 9))
REQUESTS = st.lists(st.tuples(IMAGES, ANY, st.booleans(), KIND), min_size=1, max_size=3)
UPLOADS = st.sampled_from(("stored", "stored", "stored", "retry", "hold", "fail"))
OUTCOMES = st.sampled_from(("saved", "saved", "sent", "discarded", "dropped", "failed", "failed", "arena"))
LIMITS = Limits(
    arena_bytes=12 * ALIGN,
    max_jobs=6,
    kept_reports=2,
    spool_bytes=45,
    min_workers=1,
    max_workers=3,
    idle_timeout_s=4.0,
    worker_deadline_s=3.0,
)


class FarmLife(RuleBasedStateMachine):
    """One life of a farm and of those that follow it."""

    world: World

    @initialize(fallback=st.booleans())
    def begin(self, fallback: bool) -> None:
        self.world = World(replace(LIMITS, fallback_dir="/spare" if fallback else ""))
        self.world.happens(events.Tick())
        self.requests = 0

    # --- clients

    @rule(client=CLIENTS, images=IMAGES, durable=st.booleans(), kind=KIND)
    def submit(self, client: int, images: list[int], durable: bool, kind: str) -> None:
        """A client that leases what it needs, fills and seals it, and whose job is accepted at once."""
        self.world.ask(client, events.LeaseRequested, tuple(n * ALIGN for n in images))
        self.open(client, images, durable, 0, 1, kind)
        self.seal(client, 8)
        self.carry_out_all()

    @rule(client=CLIENTS, images=IMAGES, durable=st.booleans(), again=ANY, want=st.integers(0, 1), kind=KIND)
    def open(self, client: int, images: list[int], durable: bool, again: int, want: int, kind: str) -> None:
        """A submit, which may be one that was sent before, with as many images or not."""
        self.world.open(client, images, self._request(again), durable, want, kind)

    def _request(self, again: int) -> str:
        known = 1 + again // 2 % self.requests if again % 2 and self.requests else 0
        self.requests += not known
        return f"request-{known or self.requests}"

    @rule(client=CLIENTS, requests=REQUESTS, want=st.integers(0, 1), at_once=st.booleans())
    def open_many(self, client: int, requests: list[Any], want: int, at_once: bool) -> None:
        """Several requests in one message; some may have been sent before."""
        named = [(images, self._request(again), durable, kind) for images, again, durable, kind in requests]
        if len({request_id for _, request_id, _, _ in named}) < len(named):
            return  # the schema refuses it
        self.world.open_many(client, named, want)
        if at_once:
            self.seal_many(client, 0)
            self.carry_out_all()

    @precondition(lambda self: self.world.bundled)
    @rule(client=CLIENTS, more=st.sampled_from((0, 0, 0, 0, 1, -1)))
    def seal_many(self, client: int, more: int) -> None:
        """The pixels of all of these requests are sealed, in one lease."""
        if client not in self.world.bundled:
            return
        need = 3072 * sum(submit.num_images for submit in self.world.bundled[client][1])
        large = [x for x in self.world.leases.get(client, {}).values() if x["size"] >= need]
        if not large:
            self.world.ask(client, events.LeaseRequested, (need,))
            large = [x for x in self.world.leases.get(client, {}).values() if x["size"] >= need]
        if large:
            self.world.seal_many(client, large[-1], more)

    @precondition(lambda self: self.world.bundled)
    @rule(pick=ANY)
    def abort_many(self, pick: int) -> None:
        clients = sorted(self.world.bundled)
        self.world.abort_many(clients[pick % len(clients)])

    @rule(client=CLIENTS, images=st.integers(1, 3), again=ANY, want=st.integers(0, 1))
    def open_early(self, client: int, images: int, again: int, want: int) -> None:
        """A submit that is sent before its images are copied."""
        self.world.open_early(client, images, self._request(again), want)

    @precondition(lambda self: self.world.copying)
    @rule(pick=ANY, seen=st.booleans())
    def copied(self, pick: int, seen: bool) -> None:
        """A client has copied its images, or looks for its answer again; the farm sees that now or later."""
        clients = sorted(self.world.copying)
        client = clients[pick % len(clients)]
        if self.world.copying[client].done:
            self.world.look_for_answer(client)
        else:
            self.world.copied(client)
        if seen:
            self.world.marked.look()

    @precondition(lambda self: any(not mine.done for mine in self.world.copying.values()))
    @rule(pick=ANY)
    def abort_early(self, pick: int) -> None:
        clients = sorted(client for client, mine in self.world.copying.items() if not mine.done)
        self.world.abort_early(clients[pick % len(clients)])

    @precondition(lambda self: self.world.opened)
    @rule(client=CLIENTS, count=st.integers(1, 8))
    def seal(self, client: int, count: int) -> None:
        """The next images of an open submit are sealed: some, or all."""
        if client in self.world.opened:
            if not self.world.leases.get(client):
                self.world.ask(client, events.LeaseRequested, (ALIGN,) * min(count, 3))
            leases = list(self.world.leases.get(client, {}).values())
            self.world.seal(client, leases[-count:])

    @precondition(lambda self: self.world.opened)
    @rule(pick=ANY)
    def abort(self, pick: int) -> None:
        clients = sorted(self.world.opened)
        self.world.abort(clients[pick % len(clients)])

    @rule(client=CLIENTS, pick=ANY)
    def give_back(self, client: int, pick: int) -> None:
        """A lease is given back, also by a client that does not have it."""
        numbers = sorted(number for leases in self.world.leases.values() for number in leases)
        number = numbers[pick % len(numbers)] if numbers else pick
        self.world.give_back(client, number)

    @rule(client=CLIENTS, may_write=st.booleans())
    def leave(self, client: int, may_write: bool) -> None:
        self.world.gone(client, may_write, QUARANTINE_S)

    @rule(client=CLIENTS, pick=ANY, cancel=st.booleans(), index=INDEX)
    def wait_or_cancel(self, client: int, pick: int, cancel: bool, index: int | None) -> None:
        if cancel:
            self.world.command(client, "cancel", self._job(pick), index)
        else:
            self.world.ask(client, events.JobRequested, "wait", self._job(pick), self.world.now + pick % 5)

    @precondition(lambda self: self._unsaved())
    @rule(client=CLIENTS, pick=ANY, command=st.sampled_from(("retry", "dismiss")), index=INDEX)
    def retry_or_dismiss(self, client: int, pick: int, command: events.JobCommand, index: int | None) -> None:
        unsaved = self._unsaved()
        self.world.command(client, command, unsaved[pick % len(unsaved)], index)

    def _unsaved(self) -> list[str]:
        jobs = self.world.farm.jobs.values()
        return [job.job_id for job in jobs if any(image.state in UNSAVED for image in job.images)]

    @rule(client=CLIENTS, paused=st.booleans())
    def pause_or_resume(self, client: int, paused: bool) -> None:
        self.world.ask(client, events.PauseRequested, paused)

    def _job(self, pick: int) -> str:
        jobs = list(self.world.farm.open_jobs if pick % 3 else self.world.farm.jobs)
        return jobs[pick % len(jobs)] if jobs and pick % 7 else "job-9999"

    # --- what waits for a disk

    @precondition(lambda self: self.world.held)
    @rule(at=ANY, luck=st.integers(0, 2))
    def carry_out(self, at: int, luck: int) -> None:
        burials = [n for n, i in enumerate(self.world.held) if isinstance(i, instructions.Bury)]
        if burials and at % 3:
            at = burials[0]
        self.world.carry_out_held(at, luck > 0, DiskError("full") if at % 2 else InvalidRequest("not there"))

    def carry_out_all(self) -> None:
        while self.world.held:
            self.world.carry_out_held(0, True, DiskError(""))

    @rule(disk=st.sampled_from(("/disk0", "/disk1")))
    def disk_breaks_or_comes_back(self, disk: str) -> None:
        self.world.broken ^= {disk}

    # --- workers

    @precondition(lambda self: self.world.processes)
    @rule(pick=ANY, outcome=OUTCOMES, reports=st.booleans())
    def worker_works(self, pick: int, outcome: str, reports: bool) -> None:
        """A worker starts, or does the next thing that it was told, and says so now or later."""
        numbers = sorted(self.world.processes)
        process = self.world.processes[numbers[pick % len(numbers)]]
        if process.told and not process.dead:
            self.world.work(numbers[pick % len(numbers)], outcome)
        elif not process.ready and not process.dead:
            self.world.worker_ready(numbers[pick % len(numbers)])
        if process.reports and reports:
            self.world.report(numbers[pick % len(numbers)])

    @rule(steps=st.integers(1, 6), outcome=OUTCOMES)
    def workers_work(self, steps: int, outcome: str) -> None:
        for number, process in list(self.world.processes.items()):
            if not process.ready and not process.dead:
                self.world.worker_ready(number)
            for _ in range(steps):
                if process.told and not process.dead:
                    self.world.work(number, outcome)
                if process.reports:
                    self.world.report(number)

    @precondition(lambda self: self.world.processes)
    @rule(pick=ANY, silent=st.booleans())
    def worker_dies(self, pick: int, silent: bool) -> None:
        processes = self.world.processes
        telling = [number for number, process in processes.items() if silent and process.reports]
        working = [number for number, process in processes.items() if process.told]
        numbers = telling or working or sorted(processes)
        self.world.worker_gone(numbers[pick % len(numbers)], silent)

    @precondition(lambda self: self.world.farm.jobs and self.world.processes)
    @rule(pick=ANY)
    def somebody_reports_what_is_not_its_own(self, pick: int) -> None:
        image = self.world.farm.jobs[sorted(self.world.farm.jobs)[pick % len(self.world.farm.jobs)]].images[0]
        worker = max(self.world.farm.workers)
        if image not in self.world.farm.workers[worker].images:
            saved = ImageResult("saved", path="/elsewhere.png", bytes=1)
            self.world.happens(events.ImageFinished(worker, *image.key, saved))

    # --- the uploader

    @precondition(lambda self: self.world.outside.orders)
    @rule(at=ANY, outcome=UPLOADS)
    def uploader_works(self, at: int, outcome: str) -> None:
        self.world.uploader_works(at, outcome)

    @precondition(lambda self: self.world.outside.orders)
    @rule(steps=st.integers(2, 8))
    def uploader_goes_on(self, steps: int) -> None:
        for _ in range(steps):
            self.world.uploader_works(0, "stored")

    @precondition(lambda self: self.world.uploader)
    @rule(did=st.integers(0, 3))
    def uploader_ends(self, did: int) -> None:
        self.world.uploader_ends(did)

    # --- the farm itself

    @rule(seconds=st.sampled_from((0.5, 1.9, 1.9, 6.0, 100.0)), compact=st.booleans())
    def time_passes(self, seconds: float, compact: bool) -> None:
        self.world.now += seconds
        self.world.happens(events.Tick())
        if compact and not any(isinstance(i, instructions.Append) for i in self.world.held):
            self.world.compact()

    @rule(how=st.sampled_from(("crash", "crash", "reboot", "drain")))
    def supervisor_stops(self, how: str) -> None:
        if how == "drain":
            self.world.happens(events.DrainRequested())
        else:
            self.world.restart(how == "reboot")

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if hasattr(self, "world"):
            self.world.everybody_writes()
            self.world.remembered()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle_everything()


TestFarmLife = FarmLife.TestCase
TestFarmLife.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
