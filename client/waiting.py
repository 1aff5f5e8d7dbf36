"""What an accepted job waits for, in a sentence, and the error for a caller that waits no longer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luna_farm.core.counted import counted
from luna_farm.errors import DiskError, FarmError, NotInTime, NotPossible
from luna_farm_client.requests import JobReport, Receipt


def pause(report: JobReport, status: Mapping[str, Any]) -> str:
    """Say that an unfinished job waits because the farm is paused, "" if it does not."""
    if not status.get("paused") or report.finished or any(i.state == "running" for i in report.images):
        return ""
    waiting = counted(status["queue"]["images"], "image")
    return f"The farm is paused: {waiting} in its queue until `luna-farm resume`."


def given_up(receipt: Receipt, report: JobReport, paused: str, late_s: float | None) -> FarmError:
    """Return the error for an image that is not saved yet. `late_s`: the time limit, if that is over."""
    job_id, path = receipt.job_id, receipt.paths[0]
    reason = report.trouble or paused
    ends = (
        f"The farm keeps the image and goes on trying, as job {job_id};"
        f" `luna-farm cancel {job_id}` gives it up."
    )
    if late_s is not None:
        why = reason or f"The job is {report.state}."
        return NotInTime(f"{path} is not saved after {late_s:g} s. {why} {ends}", job_id)
    if report.trouble:
        return DiskError(f"{reason} {ends}", path)
    return NotPossible(f"{reason} {ends}")
