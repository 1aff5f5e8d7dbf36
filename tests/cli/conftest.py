"""A farm that exists only in memory, with the calls that the commands make."""

from __future__ import annotations

import pytest

from luna_farm.cli import entry
from luna_farm.errors import FarmUnavailable, UnknownJob
from luna_farm_client.requests import ImageReport, JobReport, PauseReport, Receipt


def image(state="saved", **fields):
    known = {"index": 0, "affix": "", "format": "png", "path": "/out/a.png", "bytes": 1500, "score": None}
    known |= {"threshold": None, "error": "", "code": "", "warnings": (), "ms": {"encode": 3.0, "write": 1.0}}
    return ImageReport(state=state, **{**known, **fields})


def report(job_id="a1b2c3d4", state="done", images=None, **fields):
    images = (image("saved" if state == "done" else state),) if images is None else tuple(images)
    return JobReport(job_id, state, images, timestamp="2026-01-02T03:04:05", **fields)


STATUS = {
    "running": True,
    "pid": 100,
    "version": "0.1.0",
    "host": "127.0.0.1",
    "port": 19283,
    "feed_port": 19284,
    "uptime_s": 3700.0,
    "draining": False,
    "supervisor": {"rss_bytes": 35e6, "own_bytes": 21e6, "cpu_percent": 1.0, "threads": 2, "open_files": 21},
    "workers": [
        {"pid": 101, "state": "busy", "rss_bytes": 80e6, "own_bytes": 25e6, "cpu_percent": 97.0, "threads": 1}
        | {"open_files": 9, "uptime_s": 12.0, "images_saved": 42, "mb_per_s": 3.25, "current": None}
    ],
    "queue": {"jobs": 2, "images": 7, "bytes": 21_000_000},
    "arena": {"bytes": 1_000_000_000, "reserved_bytes": 40_000_000, "used_bytes": 21_000_000},
    "totals": {
        "jobs": 5,
        "images_saved": 42,
        "images_discarded": 1,
        "images_failed": 0,
        "bytes_written": 9_000_000,
    },
    "encoders": {"png": "kernel"},
    "folders": [
        {"path": "/out", "state": "ok", "error": "", "since_s": 0, "free_bytes": 5e9, "total_bytes": 1e10}
    ],
    "dead_letters": [],
    "incomplete_jobs": [],
    "notes": [],
}


class FakeFarm:
    """Holds reports by id; a submit is saved at once."""

    def __init__(self):
        self.reports = {}
        self.requests = []
        self.waited = []
        self.after_wait = "done"
        self.refuse = {}
        self.broken_off = {}
        self.statuses = []
        self.busy = []
        self.warnings = ()
        self.accepted_with = ()
        self.cancelled = []
        self.after_cancel = None
        self.unfinished = 0
        self.unfinished_as = "held"
        self.outputs = ()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def close(self):
        return None

    def status(self):
        if self.statuses:
            status = self.statuses.pop(0)
            if isinstance(status, BaseException):
                raise status
            return status
        return STATUS

    def submit(self, request, when_busy="wait"):
        if self.busy:
            raise self.busy.pop(0)
        self.requests.append(request)
        job_id = f"{len(self.requests):08x}"
        if request.filename in self.broken_off:
            given = {"request_id": request.request_id}
            self.reports[job_id] = report(job_id, *self.broken_off[request.filename], **given)
            raise KeyboardInterrupt
        if request.filename in self.refuse:
            raise self.refuse[request.filename]
        self.reports[job_id] = report(
            job_id, "queued", [image("waiting", path=f"/out/{request.filename}.png")]
        )
        return Receipt(job_id, (f"/out/{request.filename}.png",), 1, "", self.accepted_with)

    def job(self, job_id):
        if job_id not in self.reports:
            raise UnknownJob(f"No job {job_id!r} is known here.", job_id)
        return self.reports[job_id]

    def wait(self, job_id, timeout=None):
        self.waited.append((job_id, timeout))
        old = self.job(job_id)
        if self.unfinished:
            self.unfinished -= 1
            if isinstance(self.unfinished_as, BaseException):
                raise self.unfinished_as
            about = {"path": old.images[0].path, "outputs": self.outputs}
            return report(job_id, "running", [image(self.unfinished_as, **about)])
        ended = "saved" if self.after_wait == "done" else self.after_wait
        error = "" if ended == "saved" else "no space left"
        warned = {"warnings": self.warnings}
        images = [image(ended, path=old.images[0].path, error=error, **warned)]
        self.reports[job_id] = report(job_id, self.after_wait, images)
        return self.reports[job_id]

    def jobs(self, limit=100):
        return list(self.reports.values())[:limit]

    def cancel(self, job_id, index=None):
        self.job(job_id)
        self.cancelled.append(job_id if index is None else (job_id, index))
        self.reports[job_id] = report(job_id, "cancelled", self.after_cancel)
        return self.reports[job_id]

    dismiss = cancel

    def retry(self, job_id, index=None):
        self.reports[job_id] = report(job_id, "queued")
        return self.reports[job_id]

    def pause(self):
        return PauseReport(True, 7, 1)

    def resume(self):
        return PauseReport(False, 6, 2)

    def dashboard_link(self):
        return "http://127.0.0.1:19284/#login=secret"


@pytest.fixture
def farm(monkeypatch):
    fake = FakeFarm()
    monkeypatch.setattr("luna_farm.cli.farm.connect", lambda config, timeout_s=30.0: fake)
    return fake


@pytest.fixture
def no_farm(monkeypatch):
    def connect(config, timeout_s=30.0):
        raise FarmUnavailable("No farm at 127.0.0.1:1.", "127.0.0.1", 1)

    monkeypatch.setattr("luna_farm.cli.farm.connect", connect)


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run the command line; returns exit code, standard output and standard error."""
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = entry.main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse
            code = ended.code
        out, err = capsys.readouterr()
        return code, out, err

    return run
