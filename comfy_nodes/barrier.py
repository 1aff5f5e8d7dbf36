"""Waiting for jobs on ComfyUI's own thread, with its progress bar and its cancel button.

Raises RuntimeError with a sentence: ComfyUI shows it on the node. It must never wait without a limit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from . import handover, host

POLL_S = 0.05
AWAY_S = 30.0
"""How long a farm may be away, for example to restart, before the wait is given up."""
OVER = ("saved", "discarded", "dropped", "failed", "cancelled", "lost")
JOB_ID = re.compile(r"(?<![0-9A-Za-z-])[0-9a-f]{8,32}(?![0-9A-Za-z-])")


def job_ids(texts: Iterable[str]) -> list[str]:
    """Return the job ids in status texts or lists of ids, each once, in order. Raises RuntimeError if a text
    has none."""
    found: dict[str, None] = {}
    for text in texts:
        ids = JOB_ID.findall(text)
        if text.strip() and not ids:
            raise RuntimeError(f"There is no job to wait for in: {text.strip()}")
        found |= dict.fromkeys(ids)
    if not found:
        raise RuntimeError("There is no job to wait for: connect the status of a Luna Daemon Image Saver.")
    return list(found)


def wait(
    ids: list[str],
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Any]:
    """Return the images of all jobs once they are over.

    Raises RuntimeError when an image could not be saved, a job is unknown, the farm is away or
    `timeout_s` passed, and ComfyUI's own interruption.
    """
    package = handover.client()
    give_up = clock() + timeout_s
    away_until = clock() + min(timeout_s, AWAY_S)
    bar = host.progress(len(ids))
    while True:
        host.raise_if_interrupted()
        try:
            reports = [handover.report_of(job_id) for job_id in ids]
        except package.FarmError as error:
            # A farm that restarts has its jobs again in a moment; one that does not know a job never will.
            if error.code != "unavailable" or clock() > away_until:
                raise RuntimeError(handover.explain(error)) from None
            sleep(POLL_S)
            continue
        away_until = clock() + AWAY_S
        images = [image for report in reports for image in report.images]
        over = sum(image.state in OVER for image in images)
        bar.update_absolute(over, len(images))
        if all(report.finished for report in reports):
            return _unless_failed(images)
        if clock() > give_up:
            raise RuntimeError(
                f"After {timeout_s:.0f} s {len(images) - over} of {len(images)} images are not saved yet."
            )
        sleep(POLL_S)


def _unless_failed(images: list[Any]) -> list[Any]:
    failed = [image for image in images if image.state not in ("saved", "discarded", "dropped")]
    if failed:
        raise RuntimeError("\n".join(line(image) for image in failed))
    return images


def line(image: Any) -> str:
    """Return one line about an image: its state, its path, and why it is not saved."""
    score = f" (quality {image.score:.3f})" if image.score is not None else ""
    return f"{image.state}: {image.path}{score}{': ' + image.error if image.error else ''}"
