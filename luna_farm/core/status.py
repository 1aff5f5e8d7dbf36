"""What the core tells of itself: queue, arena, destinations, engines, nodes, open jobs and dead letters."""

from __future__ import annotations

from itertools import islice
from typing import Any

from luna_farm.core.job import UNSAVED, Image, ImageState, Job
from luna_farm.core.state import Farm
from luna_farm.core.workers import WorkerState

_WITH_PIXELS = frozenset({ImageState.QUEUED, ImageState.RUNNING, ImageState.HELD, ImageState.BURYING})
"""Accepted, and not encoded yet. Their pixels are in the arena, in segments of their own, or on the disk."""
LISTED_NODES = 100
LISTED_JOBS = 20
"""Unfinished jobs that the status names, the oldest first."""
LISTED_INCOMPLETE = 100
"""Incomplete jobs that the status names, the newest of all."""


def status(farm: Farm) -> dict[str, Any]:
    """What the core knows of `status`; the supervisor adds what the system knows."""
    unsaved = [(job, i) for job in farm.jobs.values() for i in job.images if i.state in UNSAVED]
    return {
        "queue": {
            "jobs": len(farm.open_jobs),
            "images": farm.depth + farm.held,
            "bytes": sum([i.task.nbytes for i in farm.unfinished() if i.state in _WITH_PIXELS]),
        },
        "arena": {
            "bytes": farm.slots.size,
            "reserved_bytes": farm.slots.reserved,
            "used_bytes": farm.slots.used_bytes,
        },
        "totals": dict(farm.totals),
        "upload_spool": {"bytes": farm.limits.spool_bytes, "used_bytes": farm.spool_used_bytes},
        "uploader": {"pid": farm.uploader[0] if farm.uploader else 0},
        "destinations": [circuit.status(farm.last_tick) for circuit in farm.circuits.values()],
        "archives": [shard.status() for shard in farm.shards.values()],
        "engines": [pool.status(farm.last_tick) for pool in farm.pools.values()],
        "nodes": _nodes(farm),
        "ready": farm.ready,
        "draining": farm.draining,
        "paused": farm.paused,
        "encoders": dict(farm.encoders),
        "open_jobs": [
            {
                "job_id": job.job_id,
                "state": job.state,
                "num_images": job.num_images,
                "unfinished": sum(not image.finished for image in job.images),
            }
            for job in islice(farm.open_jobs.values(), LISTED_JOBS)
        ],
        "dead_letters": [
            {
                "job_id": job.job_id,
                "index": i.task.index,
                "path": i.task.path,
                "error": i.result.error,
                "code": i.result.code,
            }
            for job, i in unsaved
            if i.state is ImageState.FAILED
        ],
        "incomplete_jobs": _incomplete(farm, unsaved),
    }


def _incomplete(farm: Farm, unsaved: list[tuple[Job, Image]]) -> list[dict[str, Any]]:
    """Jobs with images that are missing or lost: these cannot be tried again. `images`: how many there are;
    `path` and `error`: of the first one."""
    rows: dict[str, dict[str, Any]] = {}
    for job, i in unsaved:
        if i.state is ImageState.FAILED or job.job_id in farm.submits:  # its client came back with the rest
            continue
        row = {"job_id": job.job_id, "num_images": job.num_images, "images": 0}
        row |= {"path": i.result.path or i.task.path, "error": i.result.error}
        rows.setdefault(job.job_id, row)["images"] += 1
    return list(rows.values())[-LISTED_INCOMPLETE:]


def _nodes(farm: Farm) -> list[dict[str, Any]]:
    """What each node has done, and who works there; nodes without workers of late are the last ones."""
    rows = []
    for name, node in farm.nodes.items():
        here = [w for w in farm.workers.values() if w.node == name and w.ready_at]
        busy = sum(w.state is WorkerState.BUSY for w in here)
        rows.append({**node.status(name, farm.last_tick), "workers": len(here), "busy": busy})
    return sorted(rows, key=lambda row: (not row["workers"], row["node"]))[:LISTED_NODES]
