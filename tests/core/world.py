"""A small world around the pure core: clients, memory, workers, disks and a journal, all only pretended.

It carries out what the farm decides, as slowly and in as odd an order as it is told to, and notices at once
when the farm breaks its word: a slot that two hold, a job acknowledged before it is journaled, a temporary
link removed before that, an image made twice, an answer given twice, pixels that another client wrote over.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from world_checks import Checks
from world_clients import Clients
from world_marks import EarlyReceipts
from world_uploads import Destinations
from world_workers import FINAL, GARBAGE, File, Key, Process, Workers

from luna_farm.core import events, recovery, spooled
from luna_farm.core import instructions as do
from luna_farm.core.completion import take_reports
from luna_farm.core.farm import advance, handle
from luna_farm.core.filenames import collision_key
from luna_farm.core.job import ImageState
from luna_farm.core.limits import Limits
from luna_farm.core.messages import ImageResult, ImageTask
from luna_farm.core.schema import Submit
from luna_farm.core.slots import ALIGN
from luna_farm.core.spooled import Spooled
from luna_farm.core.state import Farm
from luna_farm.locations import is_url


class World(Clients, EarlyReceipts, Workers, Checks):
    """Everything that is not the core. `limits` are those of every farm that runs here."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.now = 10.0
        self.starts = 0
        self.pids = 0
        self.jobs = 0
        self.asked_ever = 0
        self.journal: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.memory: dict[tuple[str, int], Key] = {}
        """Who wrote each page, in memory and in the spool."""
        self.requests: dict[str, dict[str, Any]] = {}
        """What files of the spool say of themselves."""
        self.words: dict[tuple[str, int], bytearray] = {}
        """What lies at the ends of slots: the marks of their clients."""
        self.promised: set[Key] = set()
        """Images that their clients believe to be accepted."""
        self.segments: set[str] = set()
        self.files: dict[Key, File] = {}
        self.outside = Destinations()
        self.uploaders = 0
        self.given_up: set[str] = set()
        """Jobs of which failed images were dismissed."""
        self.broken: set[str] = set()
        self.accepted: dict[Key, str] = {}
        self.missing: set[Key] = set()
        """Images that were called missing, once or more."""
        self.tags: dict[Key, Key] = {}
        self.receipts: dict[str, str] = {}
        self.retried: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.processes: dict[int, Process] = {}
        self.begin(recovery.RecoveredState({}, []))

    # --- a farm begins, and dies

    def begin(self, recovered: recovery.RecoveredState) -> None:
        """Start a farm on what is left of the one before."""
        self.starts += 1
        self.farm = Farm(self.limits, f"shm:{self.starts}")
        self.segments.add(self.farm.segment)
        self.leases: dict[int, dict[int, dict[str, Any]]] = {}
        self.opened: dict[int, tuple[int, Submit]] = {}
        """Client -> its open submit."""
        self.bundled: dict[int, tuple[int, tuple[Submit, ...]]] = {}
        """Client -> the requests that it hands over together."""
        self.uploader = 0
        """Pid of the uploader, 0 while it has nothing to do or ended."""
        self.ghosts: list[tuple[float, dict[str, Any]]] = []
        self.asked: dict[int, int] = {}
        self.answered: Counter[int] = Counter()
        self.held: list[Any] = []
        self.begin_marks()
        inherited = recovery.restore(self.farm, recovered, self, self.now)
        self.found_complete()
        self.compact()
        for instruction in inherited:
            self._carry_out(instruction)

    def compact(self) -> None:
        """Write the journal anew."""
        self.reports += take_reports(self.farm)
        self.journal = recovery.snapshot(self.farm)

    def restart(self, reboot: bool) -> None:
        """The supervisor dies; its workers are fenced off before the next one. A reboot costs the memory."""
        recovered = recovery.read(self.journal, self.reports)
        for process in self.processes.values():
            known = process.pid in {pid for pid, _ in recovered.workers}
            assert known or process.dead or not process.ready, "a worker that may write is not fenced off"
        assert not self.uploader or self.uploader in {pid for pid, _ in recovered.workers}, (
            "an uploader that may write is not fenced off"
        )
        self.processes.clear()
        self.outside.orders.clear()
        if reboot:
            self.segments = {name for name in self.segments if not name.startswith("shm:")}
            self.memory = {page: tag for page, tag in self.memory.items() if page[0] in self.segments}
            self.words.clear()
        known_jobs = set(recovered.jobs)
        found = [
            Spooled.of(name, self.requests[name]) for name in sorted(self.segments & self.requests.keys())
        ]
        spooled.take_up(recovered, found, whole=True)
        for job_id in recovered.jobs.keys() - known_jobs:
            self.accepted.update({(job_id, n): "queued" for n in range(recovered.jobs[job_id].num_images)})
        self.begin(recovered)
        self.segments -= {one.task.segment for one in found} - self.farm.segment_users.keys()
        self.farm.inherited = frozenset(name for name in self.farm.segment_users if name.startswith("shm:"))

    def readable(self, segment: str) -> bool:
        return segment in self.segments

    def spooled(self, path: str) -> bool:
        return self.outside.there(path)

    def there(self, path: str) -> bool:
        return any(file.path == path for file in self.files.values())

    def published(self, task: ImageTask) -> ImageResult | None:
        file = self.files.get((task.job_id, task.index))
        spooled = self.outside.found(task)
        if task.archive or is_url(task.root):
            return spooled
        return (spooled or self._result(file)) if file else None

    # --- events in, instructions out

    def happens(self, event: events.Event) -> None:
        """Have the farm handle an event, and carry out or put by what it decides."""
        for instruction in handle(self.farm, event, self.now):
            self._carry_out(instruction)
        for instruction in advance(self.farm, self.now):
            self._carry_out(instruction)
        self._check_memory()

    def _carry_out(self, i: Any) -> None:
        if isinstance(i, do.Reply):
            self._replied(i)
        elif isinstance(i, do.Append) and not i.job_id:
            self._appended(i.records)
        elif isinstance(i, do.Dispatch):
            self._dispatched(i)
        elif isinstance(i, do.RemoveTemps):
            assert {temp.rpartition("/")[2][:6] for temp in i.temps} == {".luna-"}
        elif isinstance(i, do.Spawn):
            self.pids += 1
            self.processes[i.worker] = Process(self.pids)
        elif isinstance(i, do.EndWorker) and i.force:
            self.processes[i.worker].dead = True
        elif isinstance(i, do.EndWorker):
            self.processes[i.worker].told.append(i)
        elif isinstance(i, do.Forget):
            users = [
                image.key
                for image in self.farm.unfinished()
                if i.segment in (image.task.segment, image.spool) and image.state is not ImageState.UPLOADING
            ]
            assert not users, f"{i.segment} is forgotten while {users} need it"
            assert i.segment != self.farm.segment, "the arena is forgotten"
            self.segments.discard(i.segment)
        elif isinstance(i, do.Publish):
            self._published(i.event.to_map())
        elif isinstance(i, do.Catalogue):
            assert i.row.decode() in {file.path for file in self.files.values()}, "a row of no file"
        elif isinstance(i, do.StartUpload | do.AddMember | do.PublishShard):
            self.outside.orders.append(i)
        elif isinstance(i, do.RemoveSpooled):
            self.outside.removed(self.farm, i.spool)
        elif isinstance(i, do.CatalogueFailed):
            key = (i.task.job_id, i.task.index)
            assert self.accepted.get(key) in ("failed", "lost") or key in self.missing, (
                "a row before its record"
            )
        elif isinstance(i, do.Uncatalogue):
            pass
        else:
            self.held.append(i)

    def _replied(self, i: do.Reply) -> None:
        message = i.message
        assert i.reply in self.asked, "an answer without a request"
        if message == {"seal": True}:
            assert i.reply in self.early
            assert not self.answered[i.reply], "a seal is asked for after the receipt"
            self.seals_wanted.add(i.reply)
            return
        self.answered[i.reply] += 1
        aborted = message.get("aborted") and i.reply in self.early
        assert self.answered[i.reply] <= 1 + bool(aborted), "a request is answered twice"
        for lease in message.get("leases", []):
            self.leases.setdefault(i.client, {})[lease["lease"]] = lease
        if not message.get("success") or message.get("aborted") or "paused" in message:
            return
        for receipt in message.get("receipts", [message]):
            self._acknowledged(receipt, i.reply in self.early - self.seals_wanted)

    def _acknowledged(self, message: dict[str, Any], early: bool) -> None:
        job_id = message["job_id"]
        kept = [one for r in (*self.reports, *self.journal) for one in r.get("jobs", [r])]
        records = [r for r in kept if r["r"] == "job" and r["job_id"] == job_id]
        assert records, "acknowledged before it is in the journal"
        record = records[-1]
        known = self.receipts.get(record["request_id"])
        assert known in (None, job_id) or known not in self.farm.jobs, "one request became two jobs"
        self.receipts[record["request_id"]] = job_id
        for index in range(message["num_images"]):
            assert early or (job_id, index) in self.accepted, (
                "acknowledged before all of it is in the journal"
            )

    def _appended(self, records: tuple[dict[str, Any], ...]) -> None:
        for record in records:
            self.journal.append(record)
            for job in record.get("jobs", [record]):
                if job["r"] == "job":
                    self._job_appended(job)
            if record["r"] == "image":
                self._image_appended((record["job_id"], record["index"]), record["state"])

    def _job_appended(self, record: dict[str, Any]) -> None:
        for image in record["images"]:
            key, state = (record["job_id"], image["index"]), image["state"]
            before = self.accepted.get(key, "filling")
            given_up = (before, state) == ("lost", "cancelled")
            assert before not in FINAL or state == before or given_up, (
                f"{key} is {state} after it was {before}"
            )
            if state not in ("filling", "missing"):
                self.accepted[key] = "queued" if state in recovery.RESUMED else state

    def _image_appended(self, key: Key, state: str) -> None:
        before = self.accepted.get(key, "filling")
        assert before not in FINAL, f"{key} is {state} after it was {before}"
        if state == "missing":
            assert before == "filling", f"{key} was accepted and is called missing"
            self.missing.add(key)
        else:
            self.accepted[key] = state

    def _dispatched(self, i: do.Dispatch) -> None:
        key = (i.task.job_id, i.task.index)
        assert self.accepted[key] in ("queued", "held"), f"{key} is handed out, it is {self.accepted[key]}"
        for number, process in self.processes.items():
            tasks = [told.task for told in process.told if isinstance(told, do.Dispatch)]
            tasks += [task for task, _ in process.reports]
            assert all((t.job_id, t.index) != key for t in tasks), f"{key} is handed out, and {number} has it"
        process = self.processes[i.worker]
        assert process.ready, "a worker gets an image before the journal knows of it"
        assert any(r["r"] == "worker" and r["pid"] == process.pid for r in self.journal), (
            "no later farm could fence it off"
        )
        process.told.append(i)

    def _published(self, event: dict[str, Any]) -> None:
        if event["event"] == "save_job_done":
            job_id = event["job_id"]
            self.done[job_id] += 1
            assert self.done[job_id] <= 1 + self.retried[job_id], "a job ended twice"

    # --- memory

    def _pages(self, segment: str, offset: int, size: int) -> list[tuple[str, int]]:
        return [(segment, page) for page in range(offset // ALIGN, -(-(offset + size) // ALIGN))]

    def _check_memory(self) -> None:
        """No two share a page: leases of clients, what a ghost may write to, pixels of accepted images."""
        owners: Counter[tuple[str, int]] = Counter()
        for leases in self.leases.values():
            for lease in leases.values():
                owners.update(self._pages(lease["segment"], lease["offset"], lease["size"]))
        for lease in (lease for mine in self.copying.values() if not mine.done for lease in mine.leases):
            owners.update(self._pages(lease["segment"], lease["offset"], lease["size"]))
        for until, lease in self.ghosts:
            if until > self.now:
                owners.update(self._pages(lease["segment"], lease["offset"], lease["size"]))
        used = {
            page
            for image in self.farm.unfinished()
            if image.slot is not None and image.state is not ImageState.UPLOADING
            for page in self._pages(image.task.segment, image.task.offset, image.task.nbytes)
        }
        owners.update(used)
        twice = [page for page, count in owners.items() if count > 1]
        assert not twice, f"pages {twice} have two owners"

    def everybody_writes(self) -> None:
        """All that may be written to is: by clients that are there, and by what is left of others."""
        for leases in self.leases.values():
            for lease in leases.values():
                self.write(lease, GARBAGE)
        for lease in (lease for mine in self.copying.values() if not mine.done for lease in mine.leases):
            self.write(lease, GARBAGE)
        for until, lease in self.ghosts:
            if until > self.now:
                self.write(lease, GARBAGE)

    def write(self, lease: dict[str, Any], tag: Key) -> None:
        """Somebody writes into a slot."""
        for page in self._pages(lease["segment"], lease["offset"], lease["size"]):
            self.memory[page] = tag

    # --- what is done for the farm, sooner or later

    def carry_out_held(self, at: int, well: bool, error: Exception) -> None:
        """Carry out one of the things that were put by, well or not."""
        i: Any = self.held.pop(at % len(self.held))
        failed: Any = error
        if isinstance(i, do.ReserveNames):
            paths = self._free_names(i)
            reserved = events.NamesReserved(i.job_id, paths, i.warnings)
            self.happens(reserved if well else events.NamesReserved(i.job_id, error=failed))
        elif isinstance(i, do.SpoolPixels):
            segments = tuple(f"file:/spool/{i.job_id}-{request['task']['index']}" for request in i.requests)
            for segment, place, request in zip(segments, i.places, i.requests, strict=True):
                if well:
                    self._spool(segment, place[0], place[1], request)
            spooled = events.PixelsSpooled(i.job_id, segments)
            self.happens(spooled if well else events.PixelsSpooled(i.job_id, error=failed))
        elif isinstance(i, do.Append):
            if well:
                self._appended(i.records)
            self.happens(events.Journaled(i.job_id, None if well else failed))
        elif isinstance(i, do.MovePixels):
            key, segment = (i.task.job_id, i.task.index), f"file:/spool/{i.task.job_id}-{i.task.index}"
            if well and i.task.segment in self.segments:
                self._spool(segment, i.task.segment, i.task.offset, i.request)
                self.happens(events.PixelsMoved(*key, segment))
            else:
                self.happens(events.PixelsMoved(*key, error=failed))
        elif isinstance(i, do.CreateSegment):
            segment = f"file:/large/{self.starts}-{i.reply}"
            if well:
                self.segments.add(segment)
                self.happens(events.SegmentCreated(i.client, i.reply, i.size, segment))
            else:
                self.happens(events.SegmentCreated(i.client, i.reply, i.size, error=failed))
        else:
            assert isinstance(i, do.Bury)
            key, segment = (i.task.job_id, i.task.index), f"npy:/dead/{i.task.job_id}-{i.task.index}.npy"
            if well:
                self._read(i.task)
                self.segments.add(segment)
                self.happens(events.Buried(*key, segment))
            else:
                self.happens(events.Buried(*key, error=failed))

    def _spool(self, segment: str, source: str, offset: int, request: dict[str, Any]) -> None:
        """What lies there now is copied to the disk, with its request."""
        self.segments.add(segment)
        self.memory[segment, 0] = self.memory.get((source, offset // ALIGN), GARBAGE)
        self.requests[segment] = request

    def _free_names(self, i: do.ReserveNames) -> tuple[str, ...]:
        there = {collision_key(file.path) for file in self.files.values()}
        paths: list[str] = []
        for relative in i.relatives:
            if "%counter%" in relative:
                paths.append(
                    f"{i.output_dir}/{relative.replace('%counter%', f'{self._last_archive() + 1:05d}')}"
                )
                continue
            number = 0
            while True:
                path = f"{i.output_dir}/{relative}" + f".{number}" * bool(number)
                if collision_key(path) not in there | self.farm.taken | set(map(collision_key, paths)):
                    break
                number += 1
            paths.append(path)
        return tuple(paths)

    def _last_archive(self) -> int:
        numbers = [int(path.rstrip("~").rpartition("_")[2][:5]) for path in self.outside.archives]
        return max(numbers, default=0)

    # --- the uploader

    def uploader_works(self, at: int, outcome: str) -> None:
        """The uploader does one of the things that it has in hand, well or not, and says so."""
        if not self.uploader:
            self.uploaders += 1
            self.uploader = 100_000 + self.uploaders
            self.happens(events.UploaderReady(self.uploader, float(self.uploader)))
        orders = self.outside.orders
        if orders:
            order = orders.pop(at % len(orders))
            well = outcome == "stored"
            self.happens(self.outside.carry_out(order) if well else self.outside.fail(order, outcome))

    def uploader_ends(self, did: int) -> None:
        """The uploader dies, after it did some of what it has in hand."""
        self.outside.end(did if self.uploader else 0, self.happens)
        self.uploader = 0

    def settle_everything(self) -> None:
        """Everybody gets done, and nothing is left: no slot, no name, no link, no unanswered request."""
        self.broken.clear()
        self.ask(1, events.PauseRequested, False)
        for client in {*self.opened, *self.bundled, *self.copying}:
            self.gone(client, False, 0.0)
        for _ in range(200):
            self.now += 1.9
            self.happens(events.Tick())
            while self.held:
                self.carry_out_held(0, True, ValueError())
            for number, process in list(self.processes.items()):
                if process.dead:
                    self.worker_gone(number)
                    continue
                if not process.ready:
                    self.worker_ready(number)
                while process.told and not process.dead:
                    self.work(number, "saved")
                while process.reports:
                    self.report(number)
            while self.outside.orders:
                self.uploader_works(0, "stored")
            busy = self.farm.open_jobs or self.held or self._archives_open()
            if not busy and not any(p.told or p.reports for p in self.processes.values()):
                break
        for client in list(self.leases):
            self.gone(client, False, 0.0)
        self.now += 1e6
        self.happens(events.Tick())
        assert not self.farm.open_jobs
        assert self.farm.slots.used_bytes == self.farm.slots.leased_bytes == len(self.farm.slots) == 0
        assert self.farm.taken == set()
        assert not self.farm.bundles
        assert not self.farm.submits
        assert not self.farm.submitting
        left = {s for s in self.farm.segment_users if not s.startswith("npy:")}
        assert not left, f"{left} are never forgotten"
        unanswered = [
            reply for reply, client in self.asked.items() if client >= 0 and not self.answered[reply]
        ]
        assert not unanswered, f"requests {unanswered} were never answered"
        saved = {key for key, state in self.accepted.items() if state in ("saved", "discarded")}
        away = saved & self.outside.results.keys()
        for key in away:
            assert self.outside.delivered(key) or key[0] in self.given_up, (
                f"{key} did not get where it was to be"
            )
        self.outside.once()
        left_behind = {
            key for key in set(self.files) - saved if self.accepted[key] in ("cancelled", "failed")
        }
        assert saved - away | saved & set(self.files) == set(self.files) - left_behind
        assert set(self.accepted.values()) <= FINAL | {"failed"}
        assert self.promised <= set(self.accepted), "a client believes that images are accepted"
        assert len({file.path for file in self.files.values()}) == len(self.files), "a file was overwritten"
