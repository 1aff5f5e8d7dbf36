"""The lines a person reads while the farm works: one for each event worth one, made from the feed's
events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from luna_farm.core.counted import counted
from luna_farm.logs import about_job

log = logging.getLogger("luna_farm.jobs")

Event = Mapping[str, Any]
LINES: dict[str, tuple[int, Callable[[Event], str]]] = {
    "save_job_queued": (logging.INFO, lambda e: f"{counted(e['num_images'], 'image')} submitted"),
    "save_started": (logging.INFO, lambda e: "Starting save operation"),
    "image_saved": (logging.INFO, lambda e: f"Saved to {e['path']}"),
    "image_rejected": (
        logging.INFO,
        lambda e: (
            f"Image {e['index']} rejected by the quality gate: {e['score']:.3f} is below {e['threshold']:.3f}"
        ),
    ),
    "image_failed": (logging.ERROR, lambda e: f"Image {e['index']} failed and is set aside ({e['error']})"),
    "images_missing": (logging.WARNING, lambda e: f"Never handed over: {counted(e['count'], 'image')}"),
    "job_lost": (logging.ERROR, lambda e: f"Image {e['index']} ({e['path']}) is lost: {e['error']}"),
    "save_job_done": (
        logging.DEBUG,
        lambda e: f"{e['state'].capitalize()}: {e['images_saved']} saved in {e['ms']:.0f} ms",
    ),
    "folder_failing": (logging.WARNING, lambda e: f"{e['path']} cannot be written now: {e['error']}"),
    "folder_recovered": (logging.WARNING, lambda e: f"{e['path']} can be written again"),
    "image_uploading": (logging.DEBUG, lambda e: f"{e['path']}: {e['bytes']} bytes wait for their upload"),
    "destination_failing": (
        logging.WARNING,
        lambda e: f"Uploads to {e['destination']} wait: {e['error']}",
    ),
    "destination_recovered": (logging.WARNING, lambda e: f"{e['destination']} takes files again"),
    "image_dismissed": (
        logging.WARNING,
        lambda e: f"Image {e['index']} ({e['path']}) is given up",
    ),
    "pool_paused": (
        logging.WARNING,
        lambda e: f"Paused with {counted(e['waiting'], 'image')} waiting; `luna-farm resume` goes on",
    ),
    "pool_resumed": (logging.WARNING, lambda e: f"Resumed with {counted(e['waiting'], 'image')} waiting"),
    "archive_lost": (
        logging.ERROR,
        lambda e: f"Lost in {e['path']}: {counted(e['members'], 'image')} ({e['error']})",
    ),
    "engine_failing": (
        logging.WARNING,
        lambda e: f"No worker of the engine {e['engine']} now: {e['error']} This machine does its work.",
    ),
    "engine_recovered": (logging.WARNING, lambda e: f"The engine {e['engine']} has workers again"),
    "worker_ready": (logging.INFO, lambda e: f"Worker {e['worker']} is ready (pid {e['pid']})"),
    "worker_reaped": (logging.INFO, lambda e: f"Worker {e['worker']} ended ({e['reason']})"),
    "worker_lost": (
        logging.WARNING,
        lambda e: f"Worker {e['worker']} (pid {e['pid']}) is lost: {e['reason']}",
    ),
}


def log_event(event: Event) -> None:
    """Log the line of one event, if it has one, with its job id."""
    row = LINES.get(event["event"])
    if row is None or not log.isEnabledFor(row[0]):
        return
    job_id = event.get("job_id") or ""
    text = row[1](event)
    about_job(log, row[0], text, job_id)
