"""From a SaveRequest to a job id: the connection of this process, and what happens when the farm cannot
take it.

`on_error` and `when_busy` are decided here and nowhere else. Whatever goes wrong comes out as one
NotHandedOver with a sentence for the user. This module must never import the client at the top: ComfyUI
starts without it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import host, installed

if TYPE_CHECKING:
    from luna_farm_client import FarmClient, JobReport, SaveRequest

REFUSED = "Connection refused. Is daemon running? Start the farm: {start}"
BUSY_LIMIT_S = 600.0
ANSWER_TIMEOUT_S = 15.0
"""A farm that does not answer for this long counts as not there: the user's GPU is waiting."""
KEPT_HERE = 200
"""Reports of jobs saved in this process that a barrier may still ask for."""


class NotHandedOver(Exception):
    """The images were not taken over; the message is what the user reads."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What became of a request: a job of the farm (`report` None), or saved here, with the report of it."""

    job_id: str
    paths: tuple[str, ...]
    report: JobReport | None = None
    seconds: float = 0.0


unsaved: Counter[str] = Counter()
"""Node id -> how often its images were not saved. ComfyUI runs a node again when this changed (see
IS_CHANGED)."""

_lock = threading.Lock()
_farm: FarmClient | None = None
_saved_here: dict[str, JobReport] = {}


def client() -> Any:
    """Return the package luna_farm_client, or raise NotHandedOver with what to type."""
    try:
        import luna_farm_client

        _ = (
            luna_farm_client.FarmClient,
            luna_farm_client.SaveRequest,
        )  # loaded with what they need when first named
    except ImportError as error:
        missing = error.name or "luna_farm_client"
        raise NotHandedOver(
            f"The Python package {missing} is missing. Run: {installed.requirements_command()}"
        ) from None
    return luna_farm_client


def farm() -> FarmClient:
    """Return the one client of this process; it connects when it is used, and again after the farm
    restarted."""
    global _farm
    package = client()
    with _lock:
        if _farm is None:
            _farm = package.FarmClient(timeout=ANSWER_TIMEOUT_S, restart_s=0.0)
        return _farm


def hand_over(request: SaveRequest, on_error: str, when_busy: str) -> Handed:
    """Give `request` to the farm and return at once, or do what `on_error` and `when_busy` say.

    Raises NotHandedOver, and ComfyUI's own interruption while it waits for room.
    """
    package = client()
    give_up = time.monotonic() + BUSY_LIMIT_S
    while True:
        try:
            receipt = farm().submit(request, when_busy="report")
            return Handed(receipt.job_id, tuple(receipt.paths))
        except package.FarmBusy as error:
            if when_busy == "save_here":
                return save_here(request)
            if when_busy == "report" or time.monotonic() > give_up:
                raise NotHandedOver(f"{error}") from None
            _pause(error.retry_after_s)
        except package.TooLarge as error:  # a bound of the farm, which this process has not
            # Waiting gains nothing. Images are not lost unless the user asked for a report instead.
            if on_error == "save_here" or when_busy != "report":
                return save_here(request)
            raise NotHandedOver(f"{error}") from None
        except package.InvalidRequest as error:
            raise NotHandedOver(f"{error}") from None  # it would be no better saved here
        except package.FarmError as error:
            if on_error == "save_here":
                return save_here(request)
            raise NotHandedOver(explain(error)) from None


def save_here(request: SaveRequest) -> Handed:
    """Save in this process, blocking, by the pipeline that the farm's workers use."""
    package = client()
    bar = host.progress(1)
    started = time.perf_counter()
    try:
        # Hashing a model takes seconds, and here the GPU would wait for it.
        here = replace(request, model_dirs=())
        report = package.save_here(here, progress=lambda done, all_: bar.update_absolute(done, all_))
    except package.FarmError as error:
        raise NotHandedOver(f"{error}") from None
    _saved_here[report.job_id] = report
    while len(_saved_here) > KEPT_HERE:
        del _saved_here[next(iter(_saved_here))]
    return Handed(report.job_id, tuple(i.path for i in report.images), report, time.perf_counter() - started)


def gallery(job_id: str) -> str:
    """Return the address of a job in the farm's gallery, "" where there is none that is known here."""
    try:
        return farm().endpoint.gallery(job_id)
    except Exception:  # a link is worth no error
        return ""


def report_of(job_id: str) -> JobReport:
    """Return the present report of a job, saved here or by the farm. Raises FarmError."""
    return _saved_here.get(job_id) or farm().job(job_id)


def explain(error: Exception) -> str:
    """Return the sentence for an error of the farm, in the words that users of the Luna nodes know."""
    if getattr(error, "code", "") == "unavailable" and not isinstance(error.__cause__, TimeoutError):
        return REFUSED.format(start=installed.start_command())
    return str(error)


def _pause(seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Sleep in small pieces, so that ComfyUI's cancel button works."""
    end = time.monotonic() + min(max(seconds, 0.01), 5.0)
    while True:
        host.raise_if_interrupted()
        left = end - time.monotonic()
        if left <= 0:
            return
        sleep(min(left, 0.1))
