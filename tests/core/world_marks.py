"""The clients of the pretended world whose receipt comes while they copy: marks say that they are done."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from stage import batch, options

from luna_farm.core import events
from luna_farm.core.schema import Part, Submit
from luna_farm.core.slots import ALIGN
from luna_farm.errors import ArenaError
from luna_farm.storage.marks import MARK_BYTES, Mark
from luna_farm.supervisor.marked import Marked


@dataclass
class Copying:
    """A submit whose client copies its images into leases, or has done so and waits for an answer."""

    reply: int
    job_id: str
    submit: Submit
    leases: list[dict[str, Any]]
    marks: list[Mark]
    done: bool = False


class EarlyReceipts:
    """The part of `World` that is about receipts before the seal."""

    def begin_marks(self) -> None:
        """A farm begins: no client copies, and the farm looks at the marks of those that will."""
        self.copying: dict[int, Copying] = {}
        segments = SimpleNamespace(view=self.view)
        self.marked = Marked(SimpleNamespace(farm=self.farm, segments=segments, handle_event=self.happens))
        self.early: set[int] = set()
        """Requests whose receipt may come before their pixels."""
        self.seals_wanted: set[int] = set()

    def view(self, segment: str, at: int, size: int) -> memoryview:
        """The memory of a mark."""
        if segment not in self.segments:
            raise ArenaError(f"{segment} is gone")
        return memoryview(self.words.setdefault((segment, at), bytearray(size)))

    def sealed(self, task: Any) -> int | None:
        """A successor looks at a mark."""
        lease, at = task.mark
        try:
            return Mark(self.view(task.segment, at, MARK_BYTES), lease).give_up()
        except ArenaError:
            return None

    def found_complete(self) -> None:
        """A farm has taken up what its predecessor left: images that were complete are accepted now."""
        for job in self.farm.jobs.values():
            for image in job.images:
                if image.state.value not in ("filling", "missing"):
                    self.accepted.setdefault(image.key, "queued")

    def open_early(self, client: int, images: int, request_id: str, want: int) -> None:
        """Submit images that are about to be copied into leases, one each."""
        if len(self.leases.get(client, {})) < images:
            self.ask(client, events.LeaseRequested, (ALIGN,) * images)
        held = self.leases.get(client, {})
        if client in self.copying or len(held) < images:
            return
        self.jobs += 1
        leases = list(held.values())[:images]
        marks = [self._mark(lease) for lease in leases]
        for mark in marks:
            mark.begin()
        into = tuple(lease["lease"] for lease in leases)
        wanted = options(output_dir=f"/disk{self.jobs % 2}")
        submit = Submit(request_id, wanted, (batch(affix=""),) * images, (ALIGN,) * want, into=into)
        self.early.add(self.asked_ever + 1)
        reply = self.ask(client, events.Submitted, submit, f"job-{self.jobs:04d}")
        opened = self.farm.submitting.get(client)
        if opened is not None and opened.reply == reply:
            self.retried[opened.job_id] += opened.job_id in self.farm.jobs
            self.copying[client] = Copying(reply, opened.job_id, submit, leases, marks)
            for lease in into:
                del self.leases[client][lease]

    def _mark(self, lease: dict[str, Any]) -> Mark:
        at = lease["offset"] + lease["size"] - MARK_BYTES
        return Mark(self.view(lease["segment"], at, MARK_BYTES), lease["lease"])

    def copied(self, client: int) -> None:
        """A client is done with its copy, and looks for its answer."""
        mine = self.copying[client]
        for index, (lease, mark) in enumerate(zip(mine.leases, mine.marks, strict=True)):
            tag = (mine.submit.request_id, lease["lease"])
            self.write(lease, tag)
            if self.accepted.get((mine.job_id, index), "filling") == "filling":
                self.tags[mine.job_id, index] = tag
            mark.complete(0)
        mine.done = True
        self.look_for_answer(client)

    def look_for_answer(self, client: int) -> None:
        """A client that has copied everything looks: with its receipt it is done, unless the farm gave it up;
        else it seals if it is asked to."""
        mine = self.copying[client]
        if self.answered[mine.reply]:
            del self.copying[client]
            receipt = self.receipts.get(mine.submit.request_id) == mine.job_id
            if receipt and not any(mark.given_up for mark in mine.marks):
                self.promised.update((mine.job_id, index) for index in range(mine.submit.num_images))
        elif mine.reply in self.seals_wanted:
            del self.copying[client]
            self.marked.look()
            parts = tuple(Part(lease["lease"], 1) for lease in mine.leases)
            self.happens(events.Sealed(client, mine.reply, parts))

    def abort_early(self, client: int) -> None:
        """A client gives up before it has copied everything; its leases are its own again."""
        mine = self.copying.pop(client)
        self.marked.look()
        self.happens(events.Aborted(client, mine.reply))
        self.leases.setdefault(client, {}).update({lease["lease"]: lease for lease in mine.leases})

    def gone_early(self, client: int) -> list[dict[str, Any]]:
        """A client vanishes; returns where it may go on writing. What it has copied by then counts."""
        mine = self.copying.pop(client, None)
        self.marked.give_up(client)
        if mine is None:
            return []
        for index in range(mine.submit.num_images):
            key = (mine.job_id, index)
            if (
                mine.done
                and self.answered[mine.reply]
                and self.receipts.get(mine.submit.request_id) == mine.job_id
            ):
                self.promised.add(key)
        return [] if mine.done else mine.leases
