"""When a failing folder may be tried again."""

from __future__ import annotations

from luna_farm.core.retry import FIRST_DELAY_S, LAST_DELAY_S, FailingFolder


def test_each_failure_doubles_the_pause_up_to_a_bound() -> None:
    folder = FailingFolder("/out", "full", since=0.0)
    pauses = []
    for _ in range(9):
        folder.failed("full", 100.0)
        pauses.append(folder.retry_at - 100.0)
    assert pauses == [min(LAST_DELAY_S, FIRST_DELAY_S * 2**n) for n in range(9)]
    assert pauses[-1] == LAST_DELAY_S
    assert folder.failures == 9


def test_it_may_be_probed_when_its_time_has_come_and_by_one_image_at_a_time() -> None:
    folder = FailingFolder("/out", "full", since=0.0)
    folder.failed("read-only", 100.0)
    assert folder.error == "read-only"
    assert not folder.may_probe(100.0 + FIRST_DELAY_S - 0.01)
    assert folder.may_probe(100.0 + FIRST_DELAY_S)
    folder.probing = True
    assert not folder.may_probe(200.0)
    folder.failed("read-only", 200.0)
    assert folder.may_probe(300.0), "a failed probe is over"
