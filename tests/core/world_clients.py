"""The clients of the pretended world: they submit, seal, abort and leave."""

from __future__ import annotations

from typing import Any

from stage import batch, options
from world_uploads import KINDS

from luna_farm.core import events
from luna_farm.core.schema import Part, Submit


class Clients:
    """The part of `World` that clients do."""

    def ask(self, client: int, kind: type, *rest: Any) -> int:
        """A request that must be answered once."""
        self.marked.look()
        self.asked_ever += 1
        self.asked[self.asked_ever] = client
        self.happens(kind(client, self.asked_ever, *rest))
        return self.asked_ever

    def _submit(self, images: list[int], request_id: str, durable: bool, want: int, kind: str) -> Submit:
        self.jobs += 1
        batches = tuple(batch(batch=count, affix="") for count in images)
        wanted = options(**{"output_dir": f"/disk{self.jobs % 2}", "durable": durable, **KINDS[kind]})
        return Submit(request_id, wanted, batches, (3072,) * want)

    def open(
        self, client: int, images: list[int], request_id: str, durable: bool, want: int, kind: str = "folder"
    ) -> int:
        """Submit batches of so many images; returns the number of the request."""
        submit = self._submit(images, request_id, durable, want, kind)
        reply = self.ask(client, events.Submitted, submit, f"job-{self.jobs:04d}")
        mine = self.farm.submitting.get(client)
        if mine is not None and mine.reply == reply:
            self.opened[client] = (reply, submit)
            self.retried[mine.job_id] += mine.job_id in self.farm.jobs  # it goes on, and ends once more
        return reply

    def open_many(self, client: int, requests: list[tuple[list[int], str, bool, str]], want: int) -> None:
        """Submit several requests in one message."""
        many, ids = [], []
        for images, request_id, durable, kind in requests:
            many.append(self._submit(images, request_id, durable, 0, kind))
            ids.append(f"job-{self.jobs:04d}")
        reply = self.ask(client, events.ManySubmitted, tuple(many), tuple(ids), (3072,) * want)
        bundle = self.farm.bundles.get(client)
        if bundle is not None and bundle.reply == reply:
            self.bundled[client] = (reply, tuple(many))

    def seal_many(self, client: int, lease: dict[str, Any], more: int) -> None:
        """Fill a lease with the images of all requests, and seal it; `more` images than there are."""
        reply, many = self.bundled[client]
        bundle = self.farm.bundles.get(client)
        tag = (many[0].request_id, lease["lease"])
        if bundle is not None and bundle.reply == reply:
            for opened in bundle.opened:
                for n in range(opened.submit.num_images):
                    if bundle.slot is None:
                        self.tags[opened.job_id, n] = tag
        else:
            del self.bundled[client]
        self.write(lease, tag)
        del self.leases[client][lease["lease"]]
        images = sum(submit.num_images for submit in many) + more
        self.happens(events.Sealed(client, reply, (Part(lease["lease"], images),)))

    def abort_many(self, client: int) -> None:
        """Give up the requests of a client that it has not sealed."""
        reply, _ = self.bundled.pop(client)
        self.happens(events.Aborted(client, reply))

    def seal(self, client: int, leases: list[dict[str, Any]]) -> None:
        """Fill leases with the next images of the open submit of a client, as many as there are, and seal
        them."""
        reply, submit = self.opened[client]
        opened = self.farm.submitting.get(client)
        if opened is None or opened.reply != reply:
            del self.opened[client]  # refused in the meantime
            parts = [Part(lease["lease"], 1) for lease in leases]
        else:
            parts, at = [], opened.sealed
            for lease in leases:
                if at == submit.num_images:
                    break
                of, place = submit.batch_of(at)
                count = min(lease["size"] // 3072, of.batch - place)
                parts.append(Part(lease["lease"], count))
                for n in range(at, at + count):
                    if self.accepted.get((opened.job_id, n), "filling") == "filling":
                        self.tags[opened.job_id, n] = (submit.request_id, lease["lease"])
                at += count
        named = {part.lease for part in parts}
        for lease in leases:
            if lease["lease"] in named:
                self.write(lease, (submit.request_id, lease["lease"]))
                del self.leases[client][lease["lease"]]
        if parts:
            self.marked.look()
            self.happens(events.Sealed(client, reply, tuple(parts)))

    def abort(self, client: int) -> None:
        """Give up the open submit of a client."""
        reply, _ = self.opened.pop(client)
        self.happens(events.Aborted(client, reply))

    def command(self, client: int, command: events.JobCommand, job_id: str, index: int | None = None) -> None:
        """Cancel, retry or dismiss images of a job. Other jobs that are tried again with it end once more."""
        before = set(self.farm.open_jobs)
        if command in ("retry", "dismiss"):
            self.retried[job_id] += 1
        if command == "dismiss":
            self.given_up.add(job_id)
        self.ask(client, events.JobRequested, command, job_id, 0.0, index)
        self.retried.update(self.farm.open_jobs.keys() - before - {job_id})

    def give_back(self, client: int, number: int) -> None:
        """Give back a lease, but for one that the client copies into."""
        mine = self.copying.get(client)
        if mine is not None and number in {lease["lease"] for lease in mine.leases}:
            return
        self.marked.look()
        self.leases.get(client, {}).pop(number, None)
        self.happens(events.LeasesReturned(client, (number,)))

    def gone(self, client: int, may_write: bool, rest_s: float) -> None:
        """A client vanishes; what is left of it may go on writing for a while."""
        copied_into = self.gone_early(client)
        leases = self.leases.pop(client, {}) | {lease["lease"]: lease for lease in copied_into}
        self.opened.pop(client, None)
        self.bundled.pop(client, None)
        self.asked = {reply: c for reply, c in self.asked.items() if c != client or self.answered[reply]} | {
            reply: -1 for reply, c in self.asked.items() if c == client and not self.answered[reply]
        }
        if may_write:
            self.ghosts += [(self.now + rest_s, {**lease, "client": client}) for lease in leases.values()]
        else:  # its process has ended, and what was left of it with it
            self.ghosts = [ghost for ghost in self.ghosts if ghost[1]["client"] != client]
        self.happens(events.ClientGone(client, may_write))
