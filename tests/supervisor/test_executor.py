"""What the executor remembers of submits on their way."""

from __future__ import annotations

from luna_farm.supervisor.executor import Arrivals


def test_submits_that_were_refused_are_forgotten_and_those_under_way_are_not() -> None:
    arrivals = Arrivals()
    for job_id in ("refused", "under way"):
        arrivals.note(job_id)
    arrivals.keep({"under way": object()})
    assert arrivals.took_ms("refused") is None
    assert arrivals.took_ms("under way") is not None
    assert arrivals.started == {}
