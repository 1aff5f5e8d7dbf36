"""The client's side of the conversation without a farm: which messages, which leases, in which order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from luna_farm.errors import FarmBusy, FarmDraining, FarmUnavailable, TooLarge
from luna_farm.storage import arena_size, marks
from luna_farm.storage.arena import Arena
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.outgoing import Outgoing
from luna_farm_client.requests import Receipt, SaveImage, SaveRequest
from luna_farm_client.session import GIVEN_UP_S, LARGE_BYTES, Lease, Session
from luna_farm_client.steps import Copy, Receive, Send

PAGE = 4096
PIXELS = np.full((1, 32, 32, 3), 7, np.uint8)
RECEIPT = {"job_id": "j", "paths": ["/a"], "num_images": 1, "message": "m", "warnings": []}


@pytest.fixture
def arena(tmp_path: Any) -> Iterator[Arena]:
    made = Arena.create(arena_size.fresh_names(tmp_path)[0], LARGE_BYTES + 16 * PAGE)
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
    return {"limits": {"arena_bytes": arena.size, "max_pixels": 2**20}, "arena": {**known, **changes}}


def lease(arena: Arena, number: int, size: int = PAGE) -> dict[str, Any]:
    return {"lease": number, "segment": arena.name, "offset": number * PAGE, "size": size}


def play(
    steps: Any,
    answers: list[Any],
    meanwhile: list[Any] | None = None,
    sent: list[dict[str, Any]] | None = None,
) -> tuple[list[dict[str, Any]], Any]:
    """Run a generator with these answers; returns the messages it sent and what it returned. An answer that
    is an exception is raised; without answers the conversation breaks off. `meanwhile`: what is there when it
    looks without waiting. `sent`: where to put the messages."""
    sent = [] if sent is None else sent
    left = iter(answers)
    early = iter(meanwhile or [])
    try:
        step = steps.send(None)
        while True:
            try:
                done = None
                if isinstance(step, Send):
                    sent.append(step.message)
                elif isinstance(step, Receive) and not step.wait:
                    done = next(early, None)
                elif isinstance(step, Receive):
                    done = next(left, None)
                    if done is None:
                        steps.close()
                        return sent, None
                    if isinstance(done, Exception):
                        raise done
                elif isinstance(step, Copy):
                    step.work()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as stop:
        return sent, stop.value


def out(*pixels: Any) -> Outgoing:
    return Outgoing(SaveRequest([SaveImage(p) for p in pixels or (PIXELS,)]))


def submitted(session: Session, answers: list[Any], *pixels: Any) -> tuple[list[dict[str, Any]], Any]:
    return play(session.submit(out(*pixels), 0.0), answers)


def commands(sent: list[dict[str, Any]]) -> list[str]:
    return [message["cmd"] for message in sent]


def test_it_leases_submits_fills_and_seals(session: Session, arena: Arena) -> None:
    sent, receipt = submitted(session, [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": []}])
    assert commands(sent) == ["lease", "save_images_async", "seal"]
    assert sent[0]["sizes"] == [3072]
    (image,) = sent[1]["images"]
    assert (image["shape"], sent[1]["want"]) == ([1, 32, 32, 3], [3072])
    assert sent[2] == {"cmd": "seal", "id": sent[1]["id"], "parts": [[1, 1]]}
    assert bytes(arena.view(PAGE, 3072)) == PIXELS.tobytes()
    assert receipt == Receipt("j", ("/a",), 1, "m", ())


@pytest.mark.parametrize("many", [False, True])
def test_an_image_that_the_farm_never_takes_is_told_so_before_it_asks_for_memory(
    session: Session, many: bool
) -> None:
    """By the limit that it exceeds: of memory there may be too little as well, and more would not help."""
    session.limits["max_pixels"] = 1023
    outs = [Outgoing(SaveRequest([SaveImage(PIXELS)])) for _ in range(2)]
    with pytest.raises(TooLarge, match=r"1,023 pixels an image \(setting max_pixels\), or save_here"):
        play(session.submit_many(outs, 0.0) if many else session.submit(outs[0], 0.0), [])


def test_prefetched_leases_spare_the_next_submit_a_question(session: Session, arena: Arena) -> None:
    submitted(session, [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": [lease(arena, 2)]}])
    sent, _ = submitted(session, [{**RECEIPT, "leases": []}])
    assert commands(sent) == ["save_images_async", "seal"]
    assert sent[1]["parts"] == [[2, 1]]
    assert session.release_message() is None


def test_leases_that_do_not_fit_are_given_back_first(session: Session, arena: Arena) -> None:
    submitted(session, [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": [lease(arena, 2)]}])
    large = np.zeros((64, 64, 3), np.uint8)
    answers = [{"success": True}, {"leases": [lease(arena, 3, 3 * PAGE)]}, {**RECEIPT, "leases": []}]
    sent, _ = submitted(session, answers, large)
    assert commands(sent) == ["release", "lease", "save_images_async", "seal"]
    assert sent[0]["leases"] == [2]


def test_a_lease_far_too_large_is_not_wasted_on_a_small_image(session: Session, arena: Arena) -> None:
    first = [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": [lease(arena, 2, 8 * PAGE)]}]
    submitted(session, first)
    sent, _ = submitted(session, [{"success": True}])
    assert commands(sent) == ["release", "lease"]


def test_refused_pixels_abort_the_submit_and_return_the_lease(session: Session, arena: Arena) -> None:
    """The caller may do without the farm from now on; what it leases may be all of the memory."""
    far = np.full((32, 32, 3), 200.0, np.float32)
    answers = [{"leases": [lease(arena, 1)]}, {"success": True, "aborted": True}, {"success": True}]
    sent = broken_off(session.submit(out(far), 0.0), answers)
    assert commands(sent)[-2:] == ["abort", "release"]
    assert sent[-1]["leases"] == [1]


def broken_off(steps: Any, answers: list[Any]) -> list[dict[str, Any]]:
    """Run a hand-over whose pixels are refused and return the messages that it sends."""
    sent: list[dict[str, Any]] = []
    with pytest.raises(ValueError, match="floats up to 200"):
        play(steps, answers, sent=sent)
    return sent


def test_a_submit_that_was_refused_before_has_its_one_answer(session: Session, arena: Arena) -> None:
    far = np.full((32, 32, 3), 200.0, np.float32)
    answers = [{"leases": [lease(arena, 1)]}, FarmDraining("stopping"), {"success": True}]
    assert broken_off(session.submit(out(far), 0.0), answers)[-1]["leases"] == [1]


LARGE = np.full((1, LARGE_BYTES, 1, 1), 7, np.uint8)


def first_writes(session: Session, arena: Arena) -> list[bool]:
    """Whether the submit of a large image, and its seal, are flushed."""
    steps = session.submit(out(LARGE), 0.0)
    flushed = []
    step = steps.send(None)
    while not flushed or not isinstance(step, Receive):
        if isinstance(step, Send) and step.message["cmd"] != "lease":
            flushed.append(step.flush)
        if isinstance(step, Copy):
            step.work()
        answer = {"leases": [lease(arena, 1, LARGE.nbytes)]} if isinstance(step, Receive) else None
        step = steps.send(answer)
    steps.close()
    return flushed


def test_the_submit_of_large_images_is_sent_before_they_are_copied(session: Session, arena: Arena) -> None:
    assert first_writes(session, arena) == [True, True]


@pytest.fixture
def roomy(tmp_path: Any) -> Iterator[Arena]:
    made = Arena.create(arena_size.fresh_names(tmp_path)[0], 8 * LARGE_BYTES)
    yield made
    made.close()
    made.unlink()


@pytest.fixture
def ahead(roomy: Arena) -> Iterator[Session]:
    """A session with a farm that may send receipts before the seal."""
    segments = MappedSegments()
    greeted = Session(segments)
    play(greeted.greet("token"), [{**welcome(roomy), "early": True}])
    yield greeted
    segments.close()


def begun(session: Session, granted: dict[str, Any]) -> Any:
    """The steps of a hand-over whose submit is about to be sent."""
    steps = session.submit(out(LARGE), 0.0)
    assert steps.send(None).message["cmd"] == "lease"
    assert isinstance(steps.send(None), Receive)
    assert steps.send({"leases": [granted]}).message["cmd"] == "save_images_async"
    return steps


def test_a_receipt_before_the_seal_makes_the_seal_needless(ahead: Session, roomy: Arena) -> None:
    room = LARGE.nbytes + PAGE
    granted = {"leases": [lease(roomy, 1, room)]}
    sent, receipt = submitted(ahead, [granted, {**RECEIPT, "leases": []}], LARGE)
    assert commands(sent) == ["lease", "save_images_async"]
    assert sent[0]["sizes"] == sent[1]["want"] == [LARGE.nbytes + marks.MARK_BYTES]
    assert sent[1]["into"] == [1]
    mark = marks.Mark(roomy.view(PAGE + room - marks.MARK_BYTES, marks.MARK_BYTES), 1)
    assert (mark.flaws, mark.given_up) == (0, False)
    assert bytes(roomy.view(PAGE, 8)) == bytes([7] * 8)
    assert receipt.job_id == "j"


def test_a_seal_that_is_asked_for_is_sent(ahead: Session, roomy: Arena) -> None:
    answers = [{"leases": [lease(roomy, 1, LARGE.nbytes + PAGE)]}, {"seal": True}, {**RECEIPT, "leases": []}]
    sent, receipt = submitted(ahead, answers, LARGE)
    assert commands(sent) == ["lease", "save_images_async", "seal"]
    assert receipt.job_id == "j"


def test_pixels_that_are_refused_after_the_receipt_return_all_leases(ahead: Session, roomy: Arena) -> None:
    far = np.full((1, LARGE_BYTES, 1, 1), 200.0, np.float32)
    room = LARGE.nbytes + PAGE
    receipt = {**RECEIPT, "leases": [lease(roomy, 200, room)]}
    answers = [{"leases": [lease(roomy, 1, room)]}, receipt, {"success": True, "aborted": True}]
    sent = broken_off(ahead.submit(out(far), 0.0), [*answers, {"success": True}])
    assert sorted(sent[-1]["leases"]) == [1, 200]


def test_what_was_marked_before_the_submit_does_not_count(ahead: Session, roomy: Arena) -> None:
    """A lease that comes back after a refusal has the mark of the first try."""
    room = LARGE.nbytes + PAGE
    mark = marks.Mark(roomy.view(PAGE + room - marks.MARK_BYTES, marks.MARK_BYTES), 1)
    mark.complete(0)
    steps = begun(ahead, lease(roomy, 1, room))
    assert mark.flaws is None
    steps.close()


def test_a_submit_that_the_farm_gave_up_is_no_receipt(ahead: Session, roomy: Arena) -> None:
    room = LARGE.nbytes + PAGE
    steps = begun(ahead, lease(roomy, 1, room))
    mark = marks.Mark(roomy.view(PAGE + room - marks.MARK_BYTES, marks.MARK_BYTES), 1)
    assert mark.give_up() is None
    copy = steps.send(None)
    copy.work()
    assert isinstance(steps.send(None), Receive)
    with pytest.raises(FarmUnavailable, match="ended while"):
        steps.send({**RECEIPT, "leases": []})


def test_pixels_that_looked_like_a_word_of_the_farm_do_not_count(ahead: Session, roomy: Arena) -> None:
    """The slot held another image before."""
    room = LARGE.nbytes + PAGE
    marks.Mark(roomy.view(PAGE + room - marks.MARK_BYTES, marks.MARK_BYTES), 1).give_up()
    granted = {"leases": [lease(roomy, 1, room)]}
    _, receipt = submitted(ahead, [granted, {**RECEIPT, "leases": []}], LARGE)
    assert receipt.job_id == "j"


KNOWN = {**RECEIPT, "known": True, "leases": []}
"""The answer to a request that the farm has all images of."""


def test_a_request_that_is_known_leaves_its_leases(ahead: Session, roomy: Arena) -> None:
    submitted(ahead, [{"leases": [lease(roomy, 1, LARGE.nbytes + PAGE)]}, KNOWN], LARGE)
    assert [left.lease for left in ahead.spare] == [1]


@pytest.mark.parametrize("many", [False, True])
def test_refused_pixels_of_a_request_that_is_known_wait_for_no_answer(
    session: Session, arena: Arena, many: bool
) -> None:
    """There is nothing to abort, so nothing more is answered: the conversation ends with these answers."""
    far = np.full((32, 32, 3), 200.0, np.float32)
    answers = [{"leases": [lease(arena, 1, 4 * PAGE)]}, {**KNOWN, "receipts": [RECEIPT, RECEIPT]}]
    steps = session.submit_many([out(far), out(far)], 0.0) if many else session.submit(out(far), 0.0)
    assert commands(broken_off(steps, [*answers, {"success": True}]))[-2:] == ["abort", "release"]


def test_an_abort_that_is_not_answered_holds_no_caller_up(session: Session, arena: Arena) -> None:
    steps = session.submit(out(), 0.0)
    assert steps.send(None).message["cmd"] == "lease"
    steps.send(None)
    steps.send({"leases": [lease(arena, 1)]})
    assert isinstance(steps.send(None), Copy)
    assert steps.throw(ValueError("these pixels")).message["cmd"] == "abort"
    assert steps.send(None).timeout == GIVEN_UP_S < 2.0
    with pytest.raises(ValueError, match="these pixels"):
        steps.throw(FarmUnavailable("timed out"))


def test_no_more_of_a_batch_is_copied_once_its_receipt_is_there(ahead: Session, roomy: Arena) -> None:
    """A batch in several windows: the farm has all of it from before."""
    batch = np.full((12, LARGE_BYTES, 1, 1), 7, np.uint8)
    granted = [lease(roomy, 1 + n * LARGE_BYTES // PAGE, LARGE_BYTES) for n in range(4)]
    sent, receipt = play(ahead.submit(out(batch), 0.0), [{"leases": granted}], meanwhile=[KNOWN])
    assert commands(sent).count("lease") == 1
    assert receipt.job_id == "j"


@pytest.mark.parametrize("fields", [{"durable": True}, {"archive": "zip"}], ids=str)
def test_what_must_reach_a_disk_is_sealed(ahead: Session, roomy: Arena, fields: dict[str, Any]) -> None:
    request = Outgoing(SaveRequest([SaveImage(LARGE)], **fields))
    answers = [{"leases": [lease(roomy, 1, LARGE.nbytes + PAGE)]}, {**RECEIPT, "leases": []}]
    sent, _ = play(ahead.submit(request, 0.0), answers)
    assert commands(sent)[1:] == ["save_images_async", "seal"]
    assert "into" not in sent[1]


def test_in_a_burst_submit_and_seal_are_one_write(
    session: Session, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luna_farm_client.session.BURST_S", 1e9)
    session.answered_at = time.monotonic()
    assert first_writes(session, arena) == [False, True]


def test_a_batch_larger_than_its_share_of_the_arena_goes_in_windows(session: Session, arena: Arena) -> None:
    session.limits["arena_bytes"] = 4 * 2 * 2**20  # a window holds 2 MiB
    batch = np.zeros((5, 512, 2048, 1), np.uint8)
    grants = [[Lease(n, arena.name, 0, 2**20) for n in window] for window in ((1, 2), (3, 4), (5,))]
    answers: list[Any] = [{"leases": [asdict(x) for x in window]} for window in grants]
    answers.insert(1, FarmBusy("full", 3, 0.0))
    steps = session.submit(out(batch), 60.0)
    sent, receipt = play(without_copies(steps), [*answers, {**RECEIPT, "leases": []}])
    assert commands(sent) == ["lease", "save_images_async", "seal", "lease", "lease", "seal", "lease", "seal"]
    assert [m["parts"] for m in sent if m["cmd"] == "seal"] == [[[1, 1], [2, 1]], [[3, 1], [4, 1]], [[5, 1]]]
    assert sent[1]["want"] == [], "leases for all of it would take the arena"
    assert receipt.job_id == "j"


def without_copies(steps: Any) -> Any:
    """Pass a generator on, and do nothing where it copies."""
    step = steps.send(None)
    try:
        while True:
            try:
                done = (yield step) if not isinstance(step, Copy) else None
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as stop:
        return stop.value


def test_a_window_that_stays_busy_ends_the_submit(session: Session, arena: Arena) -> None:
    session.limits["arena_bytes"] = 4 * 2 * 2**20
    batch = np.zeros((3, 512, 2048, 1), np.uint8)
    grant = [asdict(Lease(n, arena.name, 0, 2**20)) for n in (1, 2)]
    answers = [{"leases": grant}, FarmBusy("full", 3, 0.0), {"success": True, "aborted": True}]
    sent: list[dict[str, Any]] = []
    with pytest.raises(FarmBusy):
        play(noted(without_copies(session.submit(out(batch), 0.0)), sent), answers)
    assert commands(sent)[-2:] == ["lease", "abort"]


def noted(steps: Any, sent: list[dict[str, Any]]) -> Any:
    """Pass a generator on, and keep what it sends."""
    step = steps.send(None)
    try:
        while True:
            if isinstance(step, Send):
                sent.append(step.message)
            try:
                done = yield step
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as stop:
        return stop.value


def test_small_images_of_a_batch_share_a_slot() -> None:
    pieces = out(np.zeros((900, 64, 64, 3), np.uint8)).pieces
    assert {piece.images for piece in pieces[:-1]} == {85}
    assert sum(piece.images for piece in pieces) == 900
    assert all(piece.nbytes == len(piece.pixels) * 64 * 64 * 3 for piece in pieces)


def test_at_the_end_it_gives_back_what_it_has(session: Session, arena: Arena) -> None:
    assert session.release_message() is None
    submitted(session, [{"leases": [lease(arena, 1)]}, {**RECEIPT, "leases": [lease(arena, 2)]}])
    assert session.release_message() == {"cmd": "release", "leases": [2]}
    assert session.release_message() is None


@pytest.mark.parametrize("changes", [{"segment": "shm:luna-not-there"}, {"uuid": "of another one"}])
def test_without_the_farms_memory_the_pixels_go_over_the_wire(arena: Arena, changes: dict[str, str]) -> None:
    far = Session(MappedSegments())
    play(far.greet("token"), [welcome(arena, **changes)])
    assert not far.shared
    steps, sent = far.submit(out(), 0.0), []
    answers = iter([{"leases": [lease(arena, 1)]}])
    step = steps.send(None)
    while not sent or sent[-1].message["cmd"] != "seal":
        if isinstance(step, Send):
            sent.append(step)
        elif isinstance(step, Copy):
            step.work()
        step = steps.send(next(answers) if isinstance(step, Receive) else None)
    steps.close()
    assert sent[1].message["want"] == []
    assert sent[2].message["parts"] == [[1, 1]]
    assert (sent[2].message["inline"], sent[2].message["sizes"]) == (True, [3072])
    assert b"".join(sent[2].payload) == PIXELS.tobytes()
    far.segments.close()


def test_the_memory_of_a_farm_that_is_gone_is_let_go(session: Session, arena: Arena, tmp_path: Any) -> None:
    another = Arena.create(arena_size.fresh_names(tmp_path)[0], PAGE)
    old = session.segments.arena(arena.name)
    play(session.greet("token"), [welcome(another)])
    assert session.segments.arena(arena.name) is not old
    another.close()
    another.unlink()
