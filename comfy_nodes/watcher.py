"""One thread per ComfyUI process that waits for jobs to end, so that no node has to.

It starts with the first job and sleeps while none is open. It must never touch ComfyUI (that is `previews`),
and never end by an error: a farm that restarts is asked again, a farm that stays away is given up after
`PATIENCE_S`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from luna_farm_client import FarmClient, JobReport

POLL_S = 0.5
SETTLE_S = 0.01
"""The node returns first: two threads share one interpreter, and ComfyUI's is the one that must not wait."""
PATIENCE_S = 600.0
MAX_OPEN = 2000
"""Jobs waited for at most; the oldest is given up beyond that. The farm bounds its queue long before."""

log = logging.getLogger("luna_farm.nodes")


class Watched(Protocol):
    """What is waited for: a job id, and what to do about it."""

    @property
    def job_id(self) -> str: ...

    def finished(self, report: JobReport | None, reason: str, queue: dict[str, Any] | None) -> None:
        """The job ended with `report`, or (None) for `reason` nothing more is known of it."""

    def waiting(self, report: JobReport, queue: dict[str, Any]) -> None:
        """It is not done yet: `report` says how far it is; `queue` is the farm's."""


class Watcher:
    """Waits for the oldest open job, and looks at the others whenever that takes longer than `POLL_S`."""

    def __init__(
        self,
        connect: Callable[[], FarmClient],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._open: dict[str, Watched] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._farm: FarmClient | None = None
        self._silent_since: float | None = None

    def add(self, job: Watched) -> None:
        """Wait for `job` from now on."""
        with self._lock:
            dropped = self._open.pop(next(iter(self._open))) if len(self._open) >= MAX_OPEN else None
            self._open[job.job_id] = job
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="luna-farm-watcher", daemon=True)
                self._thread.start()
        if dropped is not None:
            dropped.finished(
                None, f"More than {MAX_OPEN} jobs are open; this one is not watched any more.", None
            )

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._pause(SETTLE_S)
            while self.step():
                pass

    def step(self) -> bool:
        """Wait a little for the oldest job, then report what is known of it; False when no job is open."""
        with self._lock:
            jobs = list(self._open.values())
            if not jobs:
                self._wake.clear()
                return False
        try:
            farm = self._farm = self._farm or self._connect()
            oldest = self._look(farm, jobs[0], wait=True)
            if oldest is not None:
                looked = [(jobs[0], oldest), *((job, self._look(farm, job)) for job in jobs[1:])]
                queue = farm.status()["queue"]
                for job, report in looked:
                    if report is not None:
                        job.waiting(report, queue)
            self._silent_since = None
        except Exception as error:
            self._no_answer(jobs, error)
        return True

    def _look(self, farm: FarmClient, job: Watched, wait: bool = False) -> JobReport | None:
        """Ask for one job. Returns its report, or None once it is over and was told so."""
        import luna_farm_client

        report, reason = None, ""
        try:
            report = self._wait(farm, job.job_id) if wait else farm.job(job.job_id)
            if not report.finished:
                return report
        except luna_farm_client.UnknownJob as error:
            reason = str(error)
        self._close(job, report, reason, farm.status()["queue"])
        return None

    def _wait(self, farm: FarmClient, job_id: str) -> JobReport:
        try:
            return farm.wait(job_id, timeout=POLL_S)
        except TimeoutError:
            return farm.job(job_id)

    def _close(
        self, job: Watched, report: JobReport | None, reason: str, queue: dict[str, Any] | None
    ) -> None:
        with self._lock:
            self._open.pop(job.job_id, None)
        try:
            job.finished(report, reason, queue)
        except Exception:  # what one job's browser makes of it must not cost the others their watcher
            log.exception("Job %s: its end could not be shown", job.job_id)

    def _no_answer(self, jobs: list[Watched], error: Exception) -> None:
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since > PATIENCE_S:
            self._silent_since = None
            for job in jobs:
                self._close(job, None, f"The farm does not answer any more: {error}", None)
            return
        self._pause(POLL_S)
