"""What `luna-farm save` has handed over, and how it waits: never without saying what for.

It must never leave images in the farm without naming the jobs that they are in.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from luna_farm.cli import options
from luna_farm.cli.jobs import counted_states
from luna_farm.core.counted import counted
from luna_farm.errors import FarmBusy, FarmDraining, FarmError

if TYPE_CHECKING:
    from luna_farm_client import FarmClient, JobReport, SaveRequest

REASON_S = 1.0
"""After this time a reason for the wait is shown."""
BUSY_S = 30.0
"""How long a farm may be busy before a file counts as refused, unless --timeout says otherwise."""
INTERRUPTED = 130
SETTLED_S = 1.0
"""How long the farm may take to notice that a hand-over was broken off."""
NAMED = 5
"""Files that are listed by name."""


class Saving:
    """`files` on their way through `farm`; all of it takes at most `timeout_s` (None: as long as it takes).
    `arguments` of the command line name the farm."""

    def __init__(
        self,
        farm: FarmClient,
        files: Sequence[str],
        timeout_s: float | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.left = list(files)
        """Files that are not handed over yet; the first one may be half way."""
        self.accepted: list[tuple[str, str]] = []
        """(file, job id)."""
        self.reports: list[JobReport] = []
        """Of the first jobs of these, in order."""
        self.problems: list[str] = []
        self.told: list[str] = []
        """What was lost when files were read."""
        self.warned: list[str] = []
        """What the farm had to say when it accepted them."""
        self._farm, self._arguments = farm, arguments
        self._timeout_s = timeout_s
        self._until = time.monotonic() + (BUSY_S if timeout_s is None else timeout_s)
        self._told = ""
        self._in_doubt = ""
        """Id of the request that is being handed over, or was when Ctrl-C came."""

    def submit(self, name: str, request: SaveRequest) -> None:
        """Hand a file over, and wait while the farm is busy. Raises FarmError."""
        self._in_doubt = os.urandom(16).hex()
        request = replace(request, request_id=self._in_doubt)  # one request, however often it is sent
        begun = time.monotonic()
        until = begun + BUSY_S if self._timeout_s is None else self._until
        while True:
            try:
                receipt = self._farm.submit(request, when_busy="report")
                self.accepted.append((name, receipt.job_id))
                self.warned += (text for text in receipt.warnings if text not in self.warned)
                self._in_doubt = ""
                return
            except (FarmBusy, FarmDraining) as error:
                now = time.monotonic()
                if now >= until:
                    self._take_up(name)
                    raise
                if now - begun >= REASON_S and not self._told:
                    self._told = str(error)
                    print(self._named(str(error)), file=sys.stderr)
                time.sleep(min(getattr(error, "retry_after_s", 0.05), until - now))

    def collect(self) -> None:
        """Take the reports of the first jobs of those that wait, as far as they are finished."""
        for _, job_id in self.accepted[len(self.reports) :]:
            report = self._farm.job(job_id)
            if not report.finished:
                return
            self.reports.append(report)

    def wait(self) -> bool:
        """Wait a second for the next job, and say what it waits for. False: all is finished, or the time is
        over, which is a problem then."""
        if len(self.reports) == len(self.accepted):
            return False
        left = REASON_S
        if self._timeout_s is not None:
            left = min(left, max(0.0, self._until - time.monotonic()))
        report = self._farm.wait(self.accepted[len(self.reports)][1], timeout=left)
        if report.finished:
            self.reports.append(report)
            return True
        trouble = self._trouble(report)
        if self._timeout_s is not None and time.monotonic() >= self._until:
            reason = trouble or report.trouble or f"job {report.job_id} is {report.state}."
            self.problems.append(f"Not finished after {self._timeout_s:g} s: {reason} {self._left()}")
            return False
        what = trouble.partition(":")[0]  # each try names another file
        if trouble and what != self._told:
            self._told = what
            print(self._named(trouble), file=sys.stderr)
        return True

    def interrupted(self) -> int:
        """After Ctrl-C: say what is not saved and what goes on, and cancel that if it is wanted. Returns the
        exit code."""
        for problem in self.problems:
            print(problem, file=sys.stderr)
        broken_off = self._broken_off()
        goes_on = self._left() if self._jobs_left() else "Nothing is left in the farm."
        print(" ".join(filter(None, ("Stopped.", broken_off, self.not_sent(), goes_on))), file=sys.stderr)
        if not self._jobs_left():
            return INTERRUPTED
        if sys.stdin.isatty() and sys.stderr.isatty():
            from rich.console import Console
            from rich.prompt import Confirm

            try:
                cancel = Confirm.ask("Cancel them now?", default=False, console=Console(stderr=True))
            except (EOFError, KeyboardInterrupt):
                cancel = False
            if cancel:
                self._cancel()
        return INTERRUPTED

    def not_sent(self) -> str:
        """Say which files were not handed over at all, "" if there are none."""
        if not self.left:
            return ""
        more = f" and {len(self.left) - NAMED} more" if len(self.left) > NAMED else ""
        return f"Not handed over, so not saved: {', '.join(self.left[:NAMED])}{more}."

    def _broken_off(self) -> str:
        """Say what is saved of the file whose hand-over was broken off, "" if there is none."""
        name = self.left[0] if self.left else ""
        report = self._take_up(name)
        if report is None:
            return ""
        self.left = self.left[1:]
        had = sum(image.state not in ("filling", "missing") for image in report.images)
        if had == len(report.images):
            return ""
        return (
            f"Of {name} the farm has {had} of {counted(len(report.images), 'image')};"
            f" the other {len(report.images) - had} were not handed over, so they are not saved."
        )

    def _take_up(self, name: str) -> JobReport | None:
        """A file was not handed over to its end: the farm goes on with the images that it had by then.
        Returns the report of the job, None if there is none."""
        request_id, self._in_doubt = self._in_doubt, ""
        until = time.monotonic() + SETTLED_S
        with contextlib.suppress(FarmError):
            while request_id:
                found = [report for report in self._farm.jobs() if report.request_id == request_id]
                settled = not any(image.state == "filling" for report in found for image in report.images)
                if settled or time.monotonic() >= until:
                    self.accepted += [(name, report.job_id) for report in found if not report.finished]
                    return found[0] if found else None
                time.sleep(0.02)
        return None

    def _cancel(self) -> None:
        for job_id in self._jobs_left():
            try:
                state = f"Job {job_id}: {counted_states(self._farm.cancel(job_id))}."
            except FarmError as error:  # finished meanwhile
                state = str(error)
            print(state, file=sys.stderr)

    def _jobs_left(self) -> list[str]:
        return [job_id for _, job_id in self.accepted[len(self.reports) :]]

    def _left(self) -> str:
        ids = self._jobs_left()
        jobs = f"Job {ids[0]} goes" if len(ids) == 1 else f"{len(ids)} jobs go"
        command = self._named(f"luna-farm cancel {' '.join(ids)}")
        return f"{jobs} on in the farm. To give up what is not saved: {command}"

    def _named(self, text: str) -> str:
        """Return a message in which the commands to type name this farm."""
        return options.for_this_farm(text, self._arguments)

    def _trouble(self, report: JobReport) -> str:
        """Say what keeps an unfinished job from being saved, "" if it only needs time."""
        status = self._farm.status()
        folders = {os.path.dirname(image.path) for image in report.images if image.state == "held"}
        for folder in status.get("folders", ()):
            if folder["state"] != "ok" and folder["path"] in folders:
                what = f"Waiting for {folder['path']}: {folder['error']}"
                return f"{what} The farm keeps the images and goes on trying."
        for image in report.images:
            for place in image.outputs:
                if place["state"] == "waiting" and place["error"]:
                    return f"Waiting for {place['path']}: {place['error']}"
        from luna_farm_client import waiting

        paused = waiting.pause(report, status)
        if paused:
            return paused
        ready = any(worker["state"] in ("idle", "busy") for worker in status.get("workers", ()))
        return "" if ready else "No worker of the farm is ready; the images wait in it."
