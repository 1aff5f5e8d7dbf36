"""How a client behaves: when it tries again, waits, reconnects and gives up. Sans input and output.

Generators yield `Use` (run steps of a session on a connection) and `Sleep`; `FarmClient` and
`AsyncFarmClient` carry them out. What is decided here is decided once for both.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from luna_farm.catalogue.rows import CatalogueRow, from_map
from luna_farm.config import in_url
from luna_farm.errors import (
    FarmBusy,
    FarmDraining,
    FarmError,
    FarmUnavailable,
    InvalidRequest,
    StaleLease,
    Unauthorized,
)
from luna_farm_client import waiting
from luna_farm_client.outgoing import Outgoing
from luna_farm_client.requests import (
    JobReport,
    PauseReport,
    Receipt,
    SaveImage,
    SaveRequest,
    path_of,
    request_for,
)
from luna_farm_client.session import Session
from luna_farm_client.steps import Sleep, Steps

_log = logging.getLogger("luna_farm.client")
T = TypeVar("T")
RESTART_S = 10.0
"""How long a farm that was there may be away (a restart takes about one second) before it counts as gone."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.25
DRAINING_S = 0.05
"""Pause between two tries while the farm finishes what it has."""
WAIT_STEP_S = 20.0
"""One `wait` message asks for at most so long, so that a lost connection is noticed."""
STALE_TRIES = 3
HELD_S = 5.0
"""`save` waits so long for a folder or destination that fails, and raises then: the farm goes on trying."""
HELD_STEP_S = 1.0
MOST_S = 31_536_000.0
"""The longest time limit: a year."""
FIND_LIMIT = 1000
"""Rows of one answer to `find`."""
WHEN_BUSY = ("wait", "report")


@dataclass(frozen=True, slots=True)
class Use:
    """Run `steps` of the session of a free connection and return what they return, or raise."""

    steps: Callable[[Session], Steps]


Plan = Generator[Use | Sleep, Any, T]


class Policy:
    """The decisions of one client. `timeout`: seconds that one answer may take, and that a submit goes on
    trying while the farm is busy. `restart_s` None: RESTART_S, unless `ended` says that the farm has ended
    for good."""

    def __init__(
        self,
        timeout: float,
        restart_s: float | None,
        ended: Callable[[str], tuple[str, float]],
        command: Callable[[str], str],
    ) -> None:
        self.timeout = seconds("timeout", timeout)
        self._restart_s = min(RESTART_S if restart_s is None else restart_s, self.timeout)
        self._command = command
        """Makes the commands in a message name this farm."""
        self._ended = ended if restart_s is None else lambda state_dir: ("", 0.0)
        self._state_dir = ""
        """Of the farm that was there."""
        self.reused = False
        """The connection of the last `Use` was there before: of a farm that another may have followed."""
        self.was_there = False
        """A connection was made once: a farm that is away now may be restarting."""
        self.closed = False

    def connected(self, session: Session) -> None:
        """A connection was made."""
        self.was_there = True
        self._state_dir = session.state_dir

    def use(self, steps: Callable[[Session], Steps]) -> Plan[Any]:
        """Run steps on a connection; when a farm that was there is away, try again until it is back."""
        since = 0.0
        pause = FIRST_PAUSE_S
        while True:
            try:
                return (yield Use(steps))
            except (FarmUnavailable, Unauthorized) as error:
                # Unauthorized: between two farms the token file may still be the old one. The time counts
                # from here: the call itself may have waited long for a job.
                now = time.monotonic()
                since = since or now
                stale = self.reused and not isinstance(error.__cause__, TimeoutError)
                late = not stale and now + pause > since + self._restart_s
                if not self.was_there or self.closed or late:
                    raise
                why, wait_s = self._ended(self._state_dir)
                if why and isinstance(error, FarmUnavailable) and not stale and now >= since + wait_s:
                    raise FarmUnavailable(why, error.host, error.port) from error
            yield Sleep(pause)
            pause = min(LONGEST_PAUSE_S, pause * 2)

    def call(self, cmd: str, **fields: Any) -> Plan[dict[str, Any]]:
        """Send one command and return its answer."""
        timeout = self.timeout + fields["timeout"] if "timeout" in fields else None
        answer: dict[str, Any] = yield from self.use(lambda s: s.call({"cmd": cmd, **fields}, timeout))
        answer.pop("id", None)
        return answer

    def report(self, cmd: str, job: str | Receipt, index: int | None = None) -> Plan[JobReport]:
        """Send a command on a job, or on one image of it, and return the report of the job."""
        of_image = {} if index is None else {"index": index}
        return JobReport.from_answer((yield from self.call(cmd, job_id=job_id(job), **of_image)))

    def pause(self, paused: bool) -> Plan[PauseReport]:
        """Pause the pool, or resume it."""
        answer = yield from self.call("pause" if paused else "resume")
        return PauseReport(bool(answer["paused"]), int(answer["waiting"]), int(answer["running"]))

    def submit(self, request: SaveRequest, when_busy: str) -> Plan[Receipt]:
        """Hand a request over; an unanswered one is sent again under the same id."""
        busy_s = self._busy_s(when_busy)
        out = Outgoing(as_request(request))
        receipt: Receipt = yield from self._patiently(lambda s: s.submit(out, busy_s, self.timeout), busy_s)
        return receipt

    def _busy_s(self, when_busy: str) -> float:
        """Return for how many seconds a hand-over tries again. Raises InvalidRequest."""
        if when_busy not in WHEN_BUSY:
            raise InvalidRequest.of("when_busy", when_busy, " | ".join(WHEN_BUSY))
        return self.timeout if when_busy == "wait" else 0.0

    def _patiently(self, steps: Callable[[Session], Steps], busy_s: float) -> Plan[Any]:
        """Run steps that hand over; for `busy_s` try again while the farm is busy or stops."""
        deadline = time.monotonic() + busy_s
        stale = 0
        while True:
            try:
                return (yield from self.use(steps))
            except (FarmBusy, FarmDraining) as later:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                yield Sleep(min(getattr(later, "retry_after_s", DRAINING_S), left))
            except StaleLease:
                stale += 1
                if stale >= STALE_TRIES:
                    raise

    def submit_many(self, requests: Sequence[SaveRequest], when_busy: str) -> Plan[list[Receipt]]:
        """Hand requests over, as many at a time as fit into a message; all are validated before the first is
        sent."""
        busy_s = self._busy_s(when_busy)
        if isinstance(requests, (SaveRequest, Mapping, str)) or not isinstance(requests, Iterable):
            raise InvalidRequest.of("requests", requests, "a list of SaveRequest; for one there is submit")
        outs: list[Outgoing] = []
        for number, request in enumerate(requests):
            try:
                outs.append(Outgoing(as_request(request)))
            except InvalidRequest as error:
                raise error.at(f"requests[{number}]") from None
        receipts: list[Receipt] = []
        while len(receipts) < len(outs):
            left = outs[len(receipts) :]
            hand_over = partial(Session.submit_many, outs=left, busy_s=busy_s, later_s=self.timeout)
            try:
                receipts += yield from self._patiently(hand_over, busy_s)
            except FarmError as error:
                error.receipts = receipts
                raise
        return receipts

    def wait(self, job: str | Receipt, timeout: float | None) -> Plan[JobReport]:
        """Return the report of a job once it is finished, or after `timeout` seconds as it is then."""
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout == timeout
        if timeout is not None and not number:
            raise InvalidRequest.of("timeout", timeout, "seconds, or None for as long as it takes")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_STEP_S
            if deadline is not None:
                left = max(0.0, min(WAIT_STEP_S, deadline - time.monotonic()))
            report = JobReport.from_answer((yield from self.call("wait", job_id=job_id(job), timeout=left)))
            if report.finished or (deadline is not None and time.monotonic() >= deadline):
                return report

    def save(
        self, pixels: Any, path: str | os.PathLike[str], timeout: float | None, options: dict[str, Any]
    ) -> Plan[str]:
        """Save one image under a path and return the path once the file is there. Says what it waits for, and
        raises when that does not end."""
        deadline = None if timeout is None else time.monotonic() + seconds("timeout", timeout)
        receipt = yield from self.submit(request_for(pixels, path, options), "wait")
        fails_since = 0.0
        while True:
            left = HELD_STEP_S if deadline is None else min(HELD_STEP_S, deadline - time.monotonic())
            report = yield from self.wait(receipt, left)
            if report.finished:
                return path_of(report)
            paused = waiting.pause(report, (yield from self.call("status")))
            reason, now = report.trouble or paused, time.monotonic()
            if reason and not fails_since:
                _log.warning("%s", self._command(f"Job {receipt.job_id} waits: {reason}"))
            fails_since = (fails_since or now) if reason else 0.0
            late_s = timeout if deadline is not None and now >= deadline else None
            if late_s is not None or (fails_since and now - fails_since >= HELD_S):
                error = waiting.given_up(receipt, report, paused, late_s)
                error.args = (self._command(str(error)),)
                raise error

    def jobs(self, limit: int) -> Plan[list[JobReport]]:
        """Return the reports of the latest jobs, newest first."""
        answer = yield from self.call("jobs", limit=limit)
        return [JobReport.from_answer(job) for job in answer["jobs"]]

    def dashboard_link(self, host: str) -> Plan[str]:
        """Return an address of the dashboard of the farm at `host` that lets in once."""
        answer = yield from self.call("login")
        scheme = "https" if answer["tls"] else "http"
        return f"{scheme}://{in_url(host)}:{answer['feed_port']}/#login={answer['login']}"

    def find(
        self, filters: dict[str, Any], since: Any, similar: Any, limit: int, before: int | None
    ) -> Plan[list[CatalogueRow]]:
        """Return rows of the farm's catalogue, in as many messages as they need."""
        fields = {name: value for name, value in filters.items() if value is not None}
        if since is not None:
            fields["since"] = seconds_of(since)
        if similar is not None:
            fields["similar"] = phash_of(similar)
        found: list[CatalogueRow] = []
        while len(found) < limit:
            page = {**fields, **({"before": before} if before is not None else {})}
            answer = yield from self.call("find", **page, limit=min(FIND_LIMIT, limit - len(found)))
            found += [from_map(row) for row in answer["rows"]]
            if not answer["more"]:
                break
            before = found[-1].id
        return found

    def ping(self) -> Plan[float]:
        """Return the round trip time in seconds."""
        started = time.perf_counter()
        yield from self.call("ping")
        return time.perf_counter() - started

    def shutdown(self, now: bool) -> Plan[int]:
        """Have the farm stop and return its process id."""
        answer = yield from self.call("shutdown" if now else "drain")
        return int(answer["pid"])


def seconds(name: str, given: Any) -> float:
    """Return a time limit. Raises InvalidRequest for what is none."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not 0 < given <= MOST_S:
        raise InvalidRequest.of(name, given, f"seconds, more than 0 and at most {MOST_S:.0f}")
    return float(given)


def seconds_of(moment: datetime | float | None) -> float | None:
    """Return a moment as seconds since 1970."""
    return moment.timestamp() if isinstance(moment, datetime) else moment


def phash_of(image: Any) -> str:
    """Return the perceptual hash of an image: of a file, of pixels, or as it is. Raises InvalidRequest."""
    if isinstance(image, str) and re.fullmatch("([0-9a-f]{16})?", image):
        return image
    from luna_farm.catalogue import pixels

    if isinstance(image, str | os.PathLike):
        return pixels.phash_of(os.fspath(image))
    return pixels.phash_of_array(image)


def job_id(job: object) -> str:
    """Return the id of a job that is given by its receipt, its report or its id."""
    found = getattr(job, "job_id", job)
    if not isinstance(found, str):
        raise InvalidRequest.of("job", job, "a receipt, a report, or the id of a job as text")
    return found


def as_request(given: object) -> SaveRequest:
    """Return a request as it is, and make one of a SaveImage, an array or tensor, or a list of these."""
    if isinstance(given, SaveRequest):
        return given
    listed = given if isinstance(given, list | tuple) else [given]
    images = [image for image in map(_as_image, listed) if image is not None]
    if images and len(images) == len(listed):
        return SaveRequest(images)
    allowed = "a SaveRequest, a SaveImage, an array or tensor, or a list of these images"
    raise InvalidRequest.of("request", given, allowed)


def _as_image(given: object) -> SaveImage | None:
    if isinstance(given, SaveImage):
        return given
    return SaveImage(given) if hasattr(given, "shape") and hasattr(given, "dtype") else None
