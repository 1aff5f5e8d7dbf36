"""`FarmClient`: hands images over and tells what became of them. Blocking; safe to use from several
threads.

Each call borrows a connection of its own, so that a thread that waits for a job holds up nobody, and a
process that was forked makes its own. When the farm restarts, calls connect again by themselves, with the new
token; an unanswered submit is sent again under the same id.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

from luna_farm.errors import FarmBusy, FarmDraining, FarmUnavailable, StaleLease, Unauthorized
from luna_farm_client.connection import Connection
from luna_farm_client.endpoint import Endpoint
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.requests import JobReport, Outgoing, Receipt, SaveRequest
from luna_farm_client.session import Call

T = TypeVar("T")
RESTART_S = 10.0
"""How long a farm that was there may be away (a restart takes about one second) before it counts as gone."""
DRAINING_S = 0.05
"""Pause between two tries while the farm finishes what it has."""
WAIT_STEP_S = 20.0
STALE_TRIES = 3


class FarmClient:
    """The farm at `host`:`port`. None: from LUNA_FARM_HOST and _PORT, luna-farm.toml, or 127.0.0.1:19283.

    `token` None: from LUNA_FARM_TOKEN or the state folder. `timeout`: seconds that one answer may take, and
    that `submit` goes on trying while the farm is busy. `tls`: for a farm beyond loopback. `restart_s`:
    seconds to wait for a farm that was there and does not listen now, for it may be restarting; 0 to be told
    at once. Connects when first used.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        tls: ssl.SSLContext | None = None,
        restart_s: float = RESTART_S,
    ) -> None:
        self.endpoint = Endpoint.find(host, port, token, tls)
        self._timeout = timeout
        self._restart_s = min(restart_s, timeout)
        self._was_there = False
        self._closed = False
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
        """Hand images over; returns once the farm has accepted them, usually within a millisecond.

        From then on they survive the death of any process, this one included, and the caller may reuse its
        memory.
        `when_busy`: "wait" tries again for `timeout` seconds while the farm is busy or stops (another may
        follow it), "report" raises FarmBusy or FarmDraining at once.
        Raises InvalidRequest (nothing was handed over), FarmBusy, FarmUnavailable, Unauthorized.
        """
        out = Outgoing(request)
        deadline = time.monotonic() + (self._timeout if when_busy == "wait" else 0.0)
        stale = 0
        while True:
            try:
                receipt: Receipt = self._with_connection(lambda c: c.run(c.session.submit(out)))
                return receipt
            except (FarmBusy, FarmDraining) as later:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                time.sleep(min(getattr(later, "retry_after_s", DRAINING_S), left))
            except StaleLease:
                stale += 1
                if stale >= STALE_TRIES:
                    raise

    def wait(self, job_id: str, timeout: float | None = None) -> JobReport:
        """Return the report of a job once it is finished, or after `timeout` seconds as it is then (None: no
        limit).

        Raises UnknownJob, FarmUnavailable.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = (
                WAIT_STEP_S if deadline is None else max(0.0, min(WAIT_STEP_S, deadline - time.monotonic()))
            )
            report = JobReport.from_answer(self.call("wait", job_id=job_id, timeout=left))
            if report.finished or (deadline is not None and time.monotonic() >= deadline):
                return report

    def job(self, job_id: str) -> JobReport:
        """Return the report of a job as it is now. Raises UnknownJob."""
        return JobReport.from_answer(self.call("job", job_id=job_id))

    def jobs(self, limit: int = 100) -> list[JobReport]:
        """Return the reports of the latest jobs, newest first."""
        return [JobReport.from_answer(job) for job in self.call("jobs", limit=limit)["jobs"]]

    def cancel(self, job_id: str) -> JobReport:
        """Cancel the images of a job that were not begun. Raises UnknownJob, NotPossible."""
        return JobReport.from_answer(self.call("cancel", job_id=job_id))

    def retry(self, job_id: str) -> JobReport:
        """Try the failed images of a job again. Raises UnknownJob, NotPossible."""
        return JobReport.from_answer(self.call("retry", job_id=job_id))

    def status(self) -> dict[str, Any]:
        """Return the status of the farm, the same as `luna-farm status --json`."""
        status = self.call("status")
        status.pop("id", None)
        return status

    def ping(self) -> float:
        """Return the round trip time in seconds."""
        started = time.perf_counter()
        self.call("ping")
        return time.perf_counter() - started

    def shutdown(self, *, now: bool = False) -> int:
        """Have the farm stop: it finishes what it accepted, or, with `now`, leaves it to its journal. Returns
        its pid."""
        pid: int = self.call("shutdown" if now else "drain")["pid"]
        return pid

    def call(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """Send any command of docs/protocol.md and return its answer."""
        timeout = self._timeout + fields["timeout"] if "timeout" in fields else None
        message = {"cmd": cmd, **fields}
        return self._with_connection(lambda c: c.call(Call(message), timeout))

    def close(self) -> None:
        """Close the connections and let go of the farm's memory."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        self._segments.close()

    def _with_connection(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a connection; when the farm that was there is away, try again until it is back."""
        give_up = 0.0
        pause = 0.01
        while True:
            stale = bool(self._idle)  # of a farm that another may have followed: what fails is tried anew
            try:
                with self._borrowed() as connection:
                    return work(connection)
            except (FarmUnavailable, Unauthorized) as error:
                # Unauthorized: between two farms the token file may still be the old one. The time counts
                # from here: the call itself may have waited long for a job.
                give_up = give_up or time.monotonic() + self._restart_s
                stale = stale and not isinstance(error.__cause__, TimeoutError)
                late = not stale and time.monotonic() + pause > give_up
                if not self._was_there or self._closed or late:
                    raise
            time.sleep(pause)
            pause = min(0.25, pause * 2)

    def _forked(self) -> None:
        """Leave all connections to the process that this one was forked from: two that speak on one would
        get each other's answers, and fill each other's slots."""
        for connection in self._open:
            connection.abandon()
        self._begin()

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        with self._lock:
            if self._closed:
                raise FarmUnavailable("This FarmClient is closed.", self.endpoint.host, self.endpoint.port)
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = Connection(self.endpoint, self._timeout, self._segments)
            self._open.add(connection)
            self._was_there = True
        try:
            yield connection
        finally:
            with self._lock:
                keep = not connection.broken and not self._closed
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()


_clients: WeakSet[FarmClient] = WeakSet()


def _tell_clients() -> None:
    for client in list(_clients):
        client._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_clients)
