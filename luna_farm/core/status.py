"""What the core tells of itself: queue, arena, destinations, engines, nodes, open jobs and dead letters."""

from __future__ import annotations

from itertools import islice
from typing import Any

from luna_farm.core.job import ImageState
from luna_farm.core.state import Farm
from luna_farm.core.workers import WorkerState

LISTED_NODES = 100
LISTED_JOBS = 20
"""Unfinished jobs that the status names, the oldest first."""


def status(farm: Farm) -> dict[str, Any]:
    """What the core knows of `status`; the supervisor adds what the system knows."""
    return {
        "queue": {
            "jobs": len(farm.open_jobs),
            "images": farm.depth + sum(1 for i in farm.unfinished() if i.state is ImageState.HELD),
            "bytes": farm.slots.used_bytes - farm.slots.leased_bytes,
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
            for job in farm.jobs.values()
            for i in job.images
            if i.state is ImageState.FAILED
        ],
    }


def _nodes(farm: Farm) -> list[dict[str, Any]]:
    """What each node has done, and who works there; nodes without workers of late are the last ones."""
    rows = []
    for name, node in farm.nodes.items():
        here = [w for w in farm.workers.values() if w.node == name and w.ready_at]
        busy = sum(w.state is WorkerState.BUSY for w in here)
        rows.append({**node.status(name, farm.last_tick), "workers": len(here), "busy": busy})
    return sorted(rows, key=lambda row: (not row["workers"], row["node"]))[:LISTED_NODES]
