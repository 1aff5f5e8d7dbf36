"""The farm as a function: an event and the time go in, instructions come out.

One image follows these modules in order: `leases` (its slot), `intake` (submit, accept), `dispatch` (to a
worker), `results` (what came of it), `ending` (its end and its job's). No sockets, clocks, processes or files
anywhere below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from luna_farm.core import completion, dispatch, events, intake, job_requests, leases, results
from luna_farm.core.instructions import Instruction
from luna_farm.core.state import Farm

HANDLERS: dict[type, Callable[[Farm, Any, float], Iterable[Instruction]]] = {
    events.LeaseAsked: leases.lease_asked,
    events.LeasesReturned: leases.leases_returned,
    events.ClientGone: leases.client_gone,
    events.Submitted: intake.submitted,
    events.PixelsCame: intake.pixels_came,
    events.NamesReserved: intake.names_reserved,
    events.NamesRefused: intake.names_refused,
    events.Spooled: intake.spooled,
    events.SpoolFailed: intake.spool_failed,
    events.JobJournaled: intake.job_journaled,
    events.JournalFailed: intake.journal_failed,
    events.WaitAsked: job_requests.wait_asked,
    events.CancelAsked: job_requests.cancel_asked,
    events.RetryAsked: job_requests.retry_asked,
    events.WorkerReady: dispatch.worker_ready,
    events.WorkerGone: dispatch.worker_gone,
    events.ImageFinished: results.image_finished,
    events.TempSettled: results.temp_settled,
    events.Buried: completion.buried,
    events.BuryFailed: completion.bury_failed,
    events.DrainAsked: dispatch.drain_asked,
    events.Tick: dispatch.tick,
}


def handle(farm: Farm, event: events.Event, now: float) -> Iterable[Instruction]:
    """Take an event at monotonic time `now` (seconds), change the state, return what is to be done, in
    order; each is to be done before the next is asked for."""
    return HANDLERS[type(event)](farm, event, now)
