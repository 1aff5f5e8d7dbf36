"""The farm as a function: an event and the time go in, instructions come out.

One image visits these modules in order: `leases` (its slot), `intake` (submit, seal, acceptance), `dispatch`
(to a worker), `results` (what became of it), `completion` (its end and that of its job). No sockets, clocks,
processes or files anywhere below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from luna_farm.core import (
    bundles,
    complete_archives,
    completion,
    dispatch,
    events,
    held,
    intake,
    job_requests,
    leases,
    results,
    uploads,
)
from luna_farm.core.dispatch import advance as advance
from luna_farm.core.instructions import Instruction
from luna_farm.core.state import Farm

HANDLERS: dict[type, Callable[[Farm, Any, float], list[Instruction]]] = {
    events.LeaseRequested: leases.lease_requested,
    events.LeasesReturned: leases.leases_returned,
    events.SegmentCreated: leases.segment_created,
    events.Submitted: intake.submitted,
    events.ManySubmitted: bundles.submitted,
    events.NamesReserved: bundles.names_reserved,
    events.Sealed: bundles.sealed,
    events.PixelsSpooled: bundles.pixels_spooled,
    events.PixelsMoved: held.pixels_moved,
    events.Journaled: bundles.journaled,
    events.Aborted: bundles.aborted,
    events.ClientGone: bundles.client_gone,
    events.JobRequested: job_requests.job_requested,
    events.PauseRequested: dispatch.pause_requested,
    events.WorkerReady: dispatch.worker_ready,
    events.WorkerGone: dispatch.worker_gone,
    events.PoolFailed: dispatch.pool_failed,
    events.ImageFinished: results.image_finished,
    events.UploaderReady: uploads.uploader_ready,
    events.UploadFinished: uploads.upload_finished,
    events.ShardPublished: complete_archives.shard_published,
    events.Buried: completion.buried,
    events.DrainRequested: dispatch.drain_requested,
    events.Tick: dispatch.tick,
}


def handle(farm: Farm, event: events.Event, now: float) -> list[Instruction]:
    """Take an event at monotonic time `now` (seconds), change the state, return what is to be done, in order.

    When no event is left, `advance` hands queued images to workers.
    """
    return HANDLERS[type(event)](farm, event, now)
