"""The client's side of the conversation without a farm: which messages, which leases, in which order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from luna_farm.storage import arena_size
from luna_farm.storage.arena import Arena
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.requests import Outgoing, Receipt, SaveImage, SaveRequest
from luna_farm_client.session import ANNOUNCED_BYTES, Call, Send, Session

PAGE = 4096
PIXELS = np.full((1, 32, 32, 3), 7, np.uint8)
RECEIPT = {"job_id": "j", "paths": ["/a"], "num_images": 1, "message": "m", "warnings": []}


@pytest.fixture
def arena(tmp_path: Any) -> Iterator[Arena]:
    made = Arena.create(arena_size.fresh_names(tmp_path)[0], ANNOUNCED_BYTES + 16 * PAGE)
    yield made
    made.close()
    made.unlink()


@pytest.fixture
def session(arena: Arena) -> Iterator[Session]:
    segments = MappedSegments()
    greeted = Session(segments)
    play(greeted.greet("token"), [welcome(arena)])
    yield greeted
    segments.close()


def welcome(arena: Arena, **changes: str) -> dict[str, Any]:
    known = {"segment": arena.name, "bytes": arena.size, "uuid": str(arena.uuid)}
    return {"limits": {"max_images": 256}, "arena": {**known, **changes}}


def lease(arena: Arena, number: int, size: int = PAGE) -> dict[str, Any]:
    return {"lease": number, "segment": arena.name, "offset": number * PAGE, "size": size}


def play(steps: Any, answers: list[Any]) -> tuple[list[Any], Any]:
    """Run a generator with these answers; returns what it said and what it returned."""
    calls: list[Any] = []
    left = iter(answers)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Call):
                calls.append(step)
                answer = next(left, None)
                if answer is None:
                    steps.close()
                    return calls, None
                step = steps.send(answer)
            elif isinstance(step, Send):
                calls.append(step)
                step = next(steps)
            else:
                step = worked(step.work, steps)
    except StopIteration as stop:
        return calls, stop.value


def worked(work: Any, steps: Any) -> Any:
    try:
        done = work()
    except ValueError as error:
        return steps.throw(error)
    return steps.send(done)


def out(*pixels: Any) -> Outgoing:
    return Outgoing(SaveRequest([SaveImage(p) for p in pixels or (PIXELS,)]))


def commands(calls: list[Any]) -> list[str]:
    return [call.message["cmd"] for call in calls]


def test_it_leases_fills_and_submits(session: Session, arena: Arena) -> None:
    answers = [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": []}]
    calls, receipt = play(session.submit(out()), answers)
    assert commands(calls) == ["lease", "save_images_async"]
    assert calls[0].message["sizes"] == [3072]
    (image,) = calls[1].message["images"]
    assert (image["lease"], image["inline"], image["shape"]) == (1, False, [1, 32, 32, 3])
    assert bytes(arena.view(PAGE, 3072)) == PIXELS.tobytes()
    assert not calls[1].payload
    assert receipt == Receipt("j", ("/a",), 1, "m", ())


def test_leases_that_came_with_the_answer_spare_the_next_one_a_question(
    session: Session, arena: Arena
) -> None:
    play(session.submit(out()), [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": [lease(arena, 2)]}])
    calls, _ = play(session.submit(out()), [{**RECEIPT, "leases": []}])
    assert commands(calls) == ["save_images_async"]
    assert calls[0].message["images"][0]["lease"] == 2
    assert session.release_message() is None


def test_leases_that_do_not_fit_are_given_back_first(session: Session, arena: Arena) -> None:
    play(session.submit(out()), [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": [lease(arena, 2)]}])
    large = np.zeros((64, 64, 3), np.uint8)
    answers = [{"success": True}, {"leases": [lease(arena, 3, 3 * PAGE)]}, {**RECEIPT, "leases": []}]
    calls, _ = play(session.submit(out(large)), answers)
    assert commands(calls) == ["release", "lease", "save_images_async"]
    assert calls[0].message["leases"] == [2]


def test_a_lease_far_too_large_is_not_wasted_on_a_small_image(session: Session, arena: Arena) -> None:
    first = [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": [lease(arena, 2, 8 * PAGE)]}]
    play(session.submit(out()), first)
    calls, _ = play(session.submit(out()), [{"success": True}])
    assert commands(calls) == ["release", "lease"]


def test_what_a_submit_without_an_answer_took_is_not_used_again(session: Session, arena: Arena) -> None:
    play(session.submit(out()), [{"leases": [lease(arena, 1)]}])
    answers = [{"success": True}, {"leases": [lease(arena, 2)]}, {**RECEIPT, "leases": []}]
    calls, _ = play(session.submit(out()), answers)
    assert commands(calls) == ["release", "lease", "save_images_async"]
    assert calls[0].message["leases"] == [1]
    assert session.in_doubt == []


def test_pixels_that_are_refused_leave_the_lease_for_the_next_ones(session: Session, arena: Arena) -> None:
    nan = np.full((32, 32, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN"):
        play(session.submit(out(nan)), [{"leases": [lease(arena, 1)]}])
    calls, _ = play(session.submit(out()), [{**RECEIPT, "leases": []}])
    assert calls[0].message["images"][0]["lease"] == 1


LARGE = np.full((1, ANNOUNCED_BYTES, 1, 1), 7, np.uint8)


def test_large_images_are_announced_before_they_are_copied(session: Session, arena: Arena) -> None:
    steps = session.submit(out(LARGE))
    assert next(steps).message["cmd"] == "lease"
    told = steps.send({"leases": [lease(arena, 1, LARGE.nbytes)]})
    assert isinstance(told, Send)
    assert (told.message["cmd"], told.message["coming"]) == ("save_images_async", True)
    assert not any(arena.view(PAGE, LARGE.nbytes)), "nothing is copied yet"
    calls, receipt = play(steps, [{**RECEIPT, "leases": []}])
    assert calls == [Call({"cmd": "filled"}, told=True)]
    assert bytes(arena.view(PAGE, LARGE.nbytes)) == LARGE.tobytes()
    assert receipt.job_id == "j"
    assert session.release_message() is None


def test_an_announced_image_that_is_refused_here_is_taken_back(session: Session, arena: Arena) -> None:
    nan = np.full(LARGE.shape, np.nan, np.float32)
    steps = session.submit(out(nan))
    next(steps)
    told = steps.send({"leases": [lease(arena, 1, LARGE.nbytes)]})
    release = worked(next(steps).work, steps)
    assert isinstance(told, Send)
    assert release == Call({"cmd": "release", "leases": [1]})
    with pytest.raises(ValueError, match="NaN"):
        steps.send({"success": True})
    assert session.release_message() is None


def test_in_a_burst_one_message_does(session: Session, arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luna_farm_client.session.BURST_S", 1e9)
    session.answered_at = time.monotonic()
    answers = [{"leases": [lease(arena, 1, LARGE.nbytes)]}, {**RECEIPT, "leases": []}]
    calls, _ = play(session.submit(out(LARGE)), answers)
    assert commands(calls) == ["lease", "save_images_async"]


def test_a_submit_that_is_sent_again_is_not_announced(session: Session, arena: Arena) -> None:
    again = out(LARGE)
    play(session.submit(again), [{"leases": [lease(arena, 1, LARGE.nbytes)]}])
    answers = [{"success": True}, {"leases": [lease(arena, 2, LARGE.nbytes)]}, {**RECEIPT, "leases": []}]
    calls, _ = play(session.submit(again), answers)
    assert commands(calls) == ["release", "lease", "save_images_async"]
    assert "coming" not in calls[2].message


def test_at_the_end_it_gives_back_what_it_has(session: Session, arena: Arena) -> None:
    assert session.release_message() is None
    play(session.submit(out()), [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": [lease(arena, 2)]}])
    assert session.release_message() == {"cmd": "release", "leases": [2]}
    assert session.release_message() is None


@pytest.mark.parametrize("changes", [{"segment": "shm:luna-not-there"}, {"uuid": "of another one"}])
def test_without_the_farms_memory_the_pixels_go_over_the_wire(arena: Arena, changes: dict[str, str]) -> None:
    far = Session(MappedSegments())
    play(far.greet("token"), [welcome(arena, **changes)])
    assert not far.shared
    answers = [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": []}]
    calls, _ = play(far.submit(out()), answers)
    assert calls[1].message["images"][0]["inline"] is True
    assert calls[1].message["want"] == []
    assert b"".join(calls[1].payload) == PIXELS.tobytes()
    far.segments.close()


def test_the_memory_of_a_farm_that_is_gone_is_let_go(session: Session, arena: Arena, tmp_path: Any) -> None:
    another = Arena.create(arena_size.fresh_names(tmp_path)[0], PAGE)
    old = session.segments.arena(arena.name)
    play(session.greet("token"), [welcome(another)])
    assert session.segments.arena(arena.name) is not old
    another.close()
    another.unlink()
