"""When a failing folder may be tried again."""

from __future__ import annotations

from luna_farm.core.retry import FIRST_DELAY_S, LAST_DELAY_S, UNTRIED_DELAY_S, FailingFolder, pause_s


def test_each_failure_doubles_the_pause_up_to_a_bound() -> None:
    folder = FailingFolder("/out", "full", since=0.0)
    for number in range(9):
        folder.failed("full", 100.0)
        pause = min(LAST_DELAY_S, FIRST_DELAY_S * 2**number)
        assert pause_s(folder.failures) == pause
        assert not folder.may_probe(100.0 + pause - 0.01, untried=False)
        assert folder.may_probe(100.0 + pause, untried=False)
    assert folder.failures == 9


def test_it_is_probed_by_one_image_at_a_time() -> None:
    folder = FailingFolder("/out", "full", since=0.0)
    folder.failed("read-only", 100.0)
    assert folder.error == "read-only"
    folder.probing = True
    assert not folder.may_probe(200.0, untried=False)
    assert not folder.may_probe(200.0, untried=True)
    folder.failed("read-only", 200.0)
    assert folder.may_probe(300.0, untried=False), "a failed probe is over"


def test_images_that_were_never_tried_need_not_wait_for_what_others_did() -> None:
    folder = FailingFolder("/out", "full", since=0.0)
    folder.failed("name too long", 100.0)
    assert folder.may_probe(100.0, untried=True), "it may have been the fault of that one image"
    for _ in range(9):
        folder.failed("name too long", 200.0)
    assert not folder.may_probe(200.0 + UNTRIED_DELAY_S - 0.01, untried=True)
    assert folder.may_probe(200.0 + UNTRIED_DELAY_S, untried=True)
