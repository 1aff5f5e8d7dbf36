"""Leases: what is granted, given back, and what becomes of those of a client that is gone."""

from __future__ import annotations

from stage import CLIENT, MIB, Stage, code

from luna_farm.core import events
from luna_farm.core.instructions import Forget
from luna_farm.core.leases import MAX_LEASES, QUARANTINE_S


def test_a_lease_says_where_to_write() -> None:
    answer = Stage().lease(100, 5000)
    assert answer == {
        "leases": [
            {"lease": 1, "segment": "shm:arena", "offset": 0, "size": 4096},
            {"lease": 2, "segment": "shm:arena", "offset": 4096, "size": 8192},
        ]
    }


def test_what_never_fits_is_too_large_and_what_does_not_fit_now_is_busy() -> None:
    stage = Stage()
    assert code(stage.lease(4 * MIB, 1)) == "too_large"
    assert code(stage.lease(1, 4 * MIB - 1)) == "too_large", "by bytes it fits, by pages never"
    stage.lease(3 * MIB)
    busy = stage.lease(2 * MIB)
    assert code(busy) == "busy"
    assert busy["details"]["depth"] == 0
    assert 0 < busy["details"]["retry_after_s"] <= 2.0
    assert "MiB" not in busy["error"]
    assert "3,145,728 of 4,194,304 bytes" in busy["error"]


def test_the_hint_grows_with_the_queue_and_shrinks_with_workers() -> None:
    stage = Stage(max_jobs=100, max_workers=1)
    for n in range(20):
        stage.submit(f"job-{n:04d}")
    few = stage.lease(4 * MIB)["details"]
    assert (few["depth"], few["retry_after_s"]) == (20, 0.4)


def test_one_client_cannot_hold_ever_more_leases() -> None:
    stage = Stage(arena_bytes=64 * MIB)
    stage.lease(*[1] * (MAX_LEASES - 4))
    stage.lease(*[1] * 3)
    assert code(stage.lease(1, 1)) == "too_large"
    assert "give back" in stage.lease(1, 1)["error"]
    assert "leases" in stage.lease(1, 1, client=CLIENT + 1)
    assert stage.answer(stage.submit("job-0001", want=(1, 1)))["leases"] == []
    assert stage.answer(stage.submit("job-0002", want=(1,)))["leases"] != [], "one is free again"


def test_leases_given_back_are_free_and_those_of_others_are_passed_over() -> None:
    stage = Stage()
    mine = stage.lease(MIB)["leases"][0]["lease"]
    stage.happens(events.LeasesReturned(CLIENT + 1, (mine, 99)))
    assert stage.farm.slots.used_bytes == MIB
    stage.happens(events.LeasesReturned(CLIENT, (mine, mine)))
    assert stage.farm.slots.used_bytes == 0


def test_a_client_that_is_gone_leaves_nothing_behind_but_what_was_accepted() -> None:
    stage = Stage()
    stage.submit("job-0001")
    stage.lease(MIB)
    assert stage.ask("wait", "job-0001", 1e9) is None
    stage.happens(events.ClientGone(CLIENT, may_write=False))
    assert stage.farm.slots.used_bytes == 4096
    assert stage.farm.waiters == []
    stage.workers()
    stage.finish()
    assert stage.states("job-0001") == ["saved"]


def test_slots_that_rest_are_free_once_their_process_has_ended() -> None:
    stage = Stage()
    stage.lease(MIB)
    stage.lease(MIB, client=8)
    for client in (CLIENT, 8):
        stage.happens(events.ClientGone(client, True))
    assert stage.farm.slots.rest_of(CLIENT)
    stage.happens(events.ClientGone(CLIENT, False))
    assert (stage.farm.slots.rest_of(CLIENT), stage.farm.slots.rest_of(8)) == (False, True)
    assert stage.farm.slots.used_bytes == MIB


def test_a_program_that_drops_its_connections_lets_no_more_rest_than_may_be_prefetched() -> None:
    """One with each image: else they would be the whole arena within a moment."""
    stage = Stage()
    for number in range(20):
        stage.submit(f"job-{number:04d}", client=100 + number, want=(MIB // 4,))
        stage.happens(events.ClientGone(100 + number, may_write=True))
    assert stage.farm.slots.resting_bytes == MIB
    assert "leases" in stage.lease(2 * MIB)


def test_a_segment_of_its_own_need_not_rest() -> None:
    """Its client may write into it for as long as it likes: no other image gets that memory."""
    stage = Stage(arena_bytes=4096, max_pixels=4096)
    for client in (CLIENT, 8):
        segment = stage.lease(4096 * 4, client=client)["leases"][0]["segment"]
        assert Forget(segment) in stage.happens(events.ClientGone(client, may_write=True))


def test_the_slots_of_a_client_whose_process_lives_rest_for_a_while() -> None:
    stage = Stage()
    stage.lease(4 * MIB)
    stage.happens(events.ClientGone(CLIENT, may_write=True))
    stage.tick(QUARANTINE_S - 0.1)
    assert code(stage.lease(MIB, client=8)) == "busy"
    stage.tick(0.1)
    assert "leases" in stage.lease(MIB, client=8)
