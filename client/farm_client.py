"""`FarmClient`: hands images over and reports what became of them. Blocking; safe to use from several
threads.

Each call uses a connection of its own, so that a thread that waits for a job delays no other, and a process
that was forked makes its own. What it does when the farm is busy, restarts or is gone is in `policy.py`.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar
from weakref import WeakSet

from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.errors import FarmUnavailable
from luna_farm_client.connection import Connection
from luna_farm_client.endpoint import Endpoint
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.policy import Plan, Policy, Use
from luna_farm_client.requests import JobReport, PauseReport, Receipt, SaveRequest
from luna_farm_client.steps import Sleep

T = TypeVar("T")


class FarmClient:
    """The farm at `host`:`port`. None: from LUNA_FARM_HOST and _PORT, luna-farm.toml, or 127.0.0.1:19283.

    `token` None: from LUNA_FARM_TOKEN or the state folder. `timeout`: seconds that one answer may take, and
    that `submit` goes on trying while the farm is busy. `tls`: for a farm beyond loopback. `restart_s`:
    seconds to wait for a farm that was there and does not listen now; 0 to raise at once. None: 10, for it
    may be restarting, but at once for a farm of this state folder that has ended and that no service manager
    starts again. Connects when first used.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        tls: ssl.SSLContext | None = None,
        restart_s: float | None = None,
    ) -> None:
        self.endpoint = Endpoint.find(host, port, token, tls)
        self._policy = Policy(timeout, restart_s, self.endpoint.ended, self.endpoint.command)
        self._begin()
        _clients.add(self)

    def _begin(self) -> None:
        """With nothing connected and nothing mapped: at first, and in a process that was forked."""
        self._segments = MappedSegments()
        self._idle: list[Connection] = []
        self._open: WeakSet[Connection] = WeakSet()
        self._lock = threading.Lock()

    def __enter__(self) -> FarmClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, request: SaveRequest, *, when_busy: str = "wait") -> Receipt:
        """Hand images over; returns once the farm has accepted them all, before they are encoded.

        `request`: a SaveRequest, or for its defaults a SaveImage, an array, or a list of these. From then on
        the images survive the death of any process, this one included, and the caller may reuse its memory.
        Images are saved while the next are still being copied; a request may be larger than the farm's
        memory. `when_busy`: "wait" tries again for `timeout` seconds while the farm is busy or stops (another
        may follow it), "report" raises FarmBusy or FarmDraining at once, unless a part is accepted already:
        then the rest is waited for, too. Raises InvalidRequest (nothing was
        handed over), FarmBusy, FarmUnavailable, Unauthorized.
        """
        return self._run(self._policy.submit(request, when_busy))

    def submit_many(self, requests: Sequence[SaveRequest], *, when_busy: str = "wait") -> list[Receipt]:
        """Hand many small requests over at once; returns their receipts, in order.

        Each is a job of its own. As many as fit go in one message, are written to the journal by one record
        and acknowledged by one answer: those are accepted together or not at all. Requests are validated
        before anything is sent. Raises as `submit`; `receipts` of the error are those of earlier messages.
        """
        return self._run(self._policy.submit_many(requests, when_busy))

    def wait(self, job: str | Receipt, timeout: float | None = None) -> JobReport:
        """Return the report of a job (its receipt or id) once it is finished, or after `timeout` seconds as
        it is then (None: no limit). Raises UnknownJob, FarmUnavailable."""
        return self._run(self._policy.wait(job, timeout))

    def save(
        self, pixels: Any, path: str | os.PathLike[str], *, timeout: float | None = None, **options: Any
    ) -> str:
        """Save one image, wait for the file and return its path; a name that exists gets a number.

        path: its ending names the format. timeout: seconds that all of it may take. options: those of
        SaveRequest. Raises InvalidRequest, EncodeError, FarmBusy and FarmUnavailable; DiskError when the
        folder or destination has failed for five seconds, NotPossible when the farm has been paused so long,
        NotInTime after `timeout`: the farm keeps the image then and goes on trying. What it waits for is
        logged as a warning after a second."""
        return self._run(self._policy.save(pixels, path, timeout, options))

    def job(self, job: str | Receipt) -> JobReport:
        """Return the report of a job as it is now. Raises UnknownJob."""
        return self._run(self._policy.report("job", job))

    def jobs(self, limit: int = 100) -> list[JobReport]:
        """Return the reports of the latest jobs, newest first."""
        return self._run(self._policy.jobs(limit))

    def cancel(self, job: str | Receipt, index: int | None = None) -> JobReport:
        """Cancel the images of a job that no worker has begun, or the one with this index. An image that was
        begun is saved. Raises UnknownJob, InvalidRequest (no such image), NotPossible."""
        return self._run(self._policy.report("cancel", job, index))

    def retry(self, job: str | Receipt, index: int | None = None) -> JobReport:
        """Try the failed images of a job again, or the one with this index. Raises as `cancel`."""
        return self._run(self._policy.report("retry", job, index))

    def dismiss(self, job: str | Receipt, index: int | None = None) -> JobReport:
        """Give up the images of a job that failed, are lost or were never handed over, or the one with this
        index: dead letters, which hold the pixels of failed ones, are removed. Raises as `cancel`."""
        return self._run(self._policy.report("dismiss", job, index))

    def pause(self) -> PauseReport:
        """Pause the pool: images that were begun are finished, accepted ones wait, and more are accepted
        until the farm's memory is full. A restart and `luna-farm stop` end the pause. Raises NotPossible
        while the farm stops."""
        return self._run(self._policy.pause(True))

    def resume(self) -> PauseReport:
        """Save accepted images again."""
        return self._run(self._policy.pause(False))

    def dashboard_link(self) -> str:
        """Return an address that opens the dashboard and lets it act. It works once, within a minute. Raises
        NotPossible for a farm without a feed port."""
        return self._run(self._policy.dashboard_link(self.endpoint.host))

    def find(
        self,
        words: str = "",
        *,
        model: str = "",
        seed: int | None = None,
        since: datetime | float | None = None,
        score: str = "",
        similar: Any = None,
        job: str = "",
        failed: bool = False,
        limit: int = 50,
        before: int | None = None,
    ) -> list[CatalogueRow]:
        """Return the newest images of the farm's catalogue that match everything given.

        words: must all occur in the prompt, the model, the LoRAs, the name or the custom metadata; `"two
        words"` is a phrase, `port*` the beginning of a word, `-word` must not occur. model: a part of its
        name. since: a datetime, or seconds since 1970. score: conditions such as "variance<0.1,blank".
        similar: an image (a path, or an array of pixels) whose near duplicates are wanted, the most alike
        first. failed: images that failed instead. before: the `id` of the last row of the page before.
        Raises InvalidRequest, CatalogueUnavailable.
        """
        filters = {"words": words, "model": model, "seed": seed, "score": score, "job": job, "failed": failed}
        return self._run(self._policy.find(filters, since, similar, limit, before))

    def status(self) -> dict[str, Any]:
        """Return the status of the farm, the same as `luna-farm status --json`."""
        return self._run(self._policy.call("status"))

    def ping(self) -> float:
        """Return the round trip time in seconds."""
        return self._run(self._policy.ping())

    def shutdown(self, *, now: bool = False) -> int:
        """Have the farm stop: it finishes what it accepted, or, with `now`, leaves it to its journal. Returns
        its process id."""
        return self._run(self._policy.shutdown(now))

    def call(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """Send any command of docs/protocol.md and return its answer."""
        return self._run(self._policy.call(cmd, **fields))

    def close(self) -> None:
        """Close the connections and let go of the farm's memory. Later calls raise FarmUnavailable."""
        with self._lock:
            self._policy.closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        self._segments.close()

    def _run(self, plan: Plan[T]) -> T:
        """Carry out a plan of the policy and return what it returns."""
        try:
            step = plan.send(None)
            while True:
                try:
                    done = self._carry_out(step)
                except Exception as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(done)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _carry_out(self, step: Use | Sleep) -> Any:
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        connection = self._borrow()
        try:
            return connection.run(step.steps(connection.session))
        finally:
            self._take_back(connection)

    def _forked(self) -> None:
        """Leave all connections to the parent process: two that use one would get each other's answers, and
        fill each other's slots."""
        for connection in self._open:
            connection.abandon()
        self._begin()

    def _borrow(self) -> Connection:
        """Return a connection that no other thread uses until it is taken back."""
        with self._lock:
            if self._policy.closed:
                raise FarmUnavailable("This FarmClient is closed.", self.endpoint.host, self.endpoint.port)
            self._policy.reused = bool(self._idle)
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = Connection(self.endpoint, self._policy.timeout, self._segments)
            self._open.add(connection)
            self._policy.connected(connection.session)
        return connection

    def _take_back(self, connection: Connection) -> None:
        with self._lock:
            keep = not connection.broken and not self._policy.closed
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()


_clients: WeakSet[FarmClient] = WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
