"""Reports of finished jobs: bounded, the oldest go first, a disk that refuses costs nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from luna_farm.errors import DiskError
from luna_farm.storage.journal import Journal
from luna_farm.storage.reports import Reports


def test_the_newest_reports_come_back_in_order_and_the_files_stay_bounded(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports", max_bytes=20_000)
    for number in range(1000):
        reports.extend([{"job_id": f"job{number}", "text": "x" * 100, "images": []}])
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_500
    reports.close()
    found = [report["job_id"] for report in Reports(tmp_path / "reports").read()]
    assert found == [f"job{number}" for number in range(1000 - len(found), 1000)]
    assert len(found) > 60


@pytest.mark.parametrize("broken", ["append", "replace", "open"])
def test_a_disk_that_refuses_costs_the_report_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    reports = Reports(tmp_path / "reports", max_bytes=100)
    reports.extend([{"job_id": "one", "text": "x" * 100, "images": []}])

    def failing(*args: object, **named: object) -> None:
        raise DiskError("No space left on device.", "reports")

    if broken == "append":
        monkeypatch.setattr(Journal, "append", failing)
    elif broken == "replace":
        monkeypatch.setattr(os, "replace", failing)
    else:
        os.rename(tmp_path / "reports", tmp_path / "reports.old")
        monkeypatch.setattr(Journal, "open", failing)
        assert reports.read() == []
    reports.extend([{"job_id": "two", "images": []}])
    assert broken == "open" or "(jobs two)" in caplog.text
