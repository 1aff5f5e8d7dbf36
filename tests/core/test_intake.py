"""Leases, submits, waiting and cancelling: who is told what, and what is in the journal by then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from stage import CLIENT, MIB, Stage, code, entry, options

from luna_farm.core import events, instructions
from luna_farm.core.farm import handle
from luna_farm.core.job_requests import MAX_WAITS
from luna_farm.core.leases import QUARANTINE_S
from luna_farm.core.schema import Submit
from luna_farm.errors import DiskError, InvalidRequest


def kinds(done: list[instructions.Instruction]) -> list[str]:
    return [type(i).__name__ for i in done]


# --- accepting


def test_a_job_is_journaled_before_it_is_acknowledged_and_acknowledged_before_it_is_begun() -> None:
    stage = Stage()
    stage.workers()
    lease = stage.lease(3072)["leases"][0]["lease"]
    submit = Submit("request-1", options(), (entry(lease),))
    done = stage.happens(events.Submitted(CLIENT, 50, submit, "job-0001"))
    assert kinds(done) == ["ReserveNames", "AppendJob", "Reply", "Publish", "Publish", "Dispatch"]
    assert stage.journal[-1]["r"] == "job"
    assert stage.answer(50) == {
        "success": True,
        "job_id": "job-0001",
        "message": "Image save job submitted (ID: job-0001)",
        "num_images": 1,
        "paths": ["/out/a_RAW_00001.png"],
        "warnings": [],
        "leases": [],
    }
    assert stage.farm.totals["jobs"] == 1


def test_nothing_is_acknowledged_while_the_journal_is_being_written() -> None:
    stage = Stage()
    stage.hold = {instructions.AppendJob}
    reply = stage.submit("job-0001")
    assert reply not in stage.replies
    assert stage.farm.jobs == {}
    stage.happens(events.JobJournaled("job-0001"))
    assert stage.answer(reply)["success"]


def test_what_the_journal_refuses_is_not_accepted_and_may_come_again() -> None:
    stage = Stage()
    stage.hold = {instructions.AppendJob}
    reply = stage.submit("job-0001", request_id="request-1")
    stage.happens(events.JournalFailed("job-0001", DiskError("disk full")))
    answer = stage.answer(reply)
    assert code(answer) == "busy"
    assert "disk full" in answer["error"]
    assert answer["job_id"] == "job-0001"
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.taken == set()
    stage.hold = set()
    again = stage.submit("job-0002", request_id="request-1")
    assert stage.answer(again)["success"]


def test_names_that_cannot_be_had_refuse_the_job() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    reply = stage.submit("job-0001", entry(batch=2), entry())
    stage.happens(events.NamesRefused("job-0001", InvalidRequest.of("save_path", "x", "y")))
    assert code(stage.answer(reply)) == "invalid"
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.requests == stage.farm.pending == {}


def test_a_name_that_cannot_be_made_refuses_the_job_and_leaves_its_leases() -> None:
    stage = Stage()
    reply = stage.submit("job-0001", output_dir="/" + "x" * 1100)
    assert code(stage.answer(reply)) == "invalid"
    assert stage.farm.slots.leased_bytes == stage.farm.slots.used_bytes == 4096
    assert stage.farm.requests == stage.farm.pending == {}


def test_the_images_of_a_batch_lie_behind_one_another_in_one_slot() -> None:
    stage = Stage()
    stage.submit("job-0001", entry(batch=3), entry(affix="", subdir=True), entry(affix="X", subdir=True))
    tasks = [image.task for image in stage.farm.jobs["job-0001"].images]
    assert [task.index for task in tasks] == [0, 1, 2, 3, 4]
    assert [(t.batch_index, t.batch_size) for t in tasks] == [(0, 3), (1, 3), (2, 3), (0, 1), (0, 1)]
    assert [task.offset for task in tasks] == [0, 3072, 6144, 12288, 16384]
    assert [task.in_affix_folder for task in tasks] == [False, False, False, False, True]
    assert {task.root for task in tasks} == {"/out"}


def test_a_failing_folder_is_told_of_with_the_acknowledgement() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="disk", error="No space left")
    answer = stage.answer(stage.submit("job-0002"))
    assert answer["warnings"] == [
        "/out cannot be written now (No space left); the images are kept and saved once it can."
    ]


# --- while the pixels are coming


def announced(stage: Stage, job_id: str = "job-0001", **fields: Any) -> int:
    """Submit a slot that is still being filled; returns the number of the request."""
    number = stage.lease(3072)["leases"][0]["lease"]
    reply = stage.reply()
    submit = Submit(f"request-{job_id}", options(**fields), (entry(number),), (), True)
    stage.happens(events.Submitted(CLIENT, reply, submit, job_id))
    return reply


def test_names_are_reserved_while_pixels_come_and_the_job_is_accepted_when_they_are_there() -> None:
    stage = Stage()
    stage.workers()
    reply = announced(stage)
    assert stage.farm.taken
    assert reply not in stage.replies
    assert stage.journal[-1]["r"] != "job"
    done = stage.happens(events.PixelsCame(CLIENT))
    assert kinds(done) == ["AppendJob", "Reply", "Publish", "Publish", "Dispatch"]
    assert stage.answer(reply)["paths"] == ["/out/a_RAW_00001.png"]


def test_pixels_may_be_there_before_the_names() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    reply = announced(stage)
    assert stage.happens(events.PixelsCame(CLIENT)) == []
    stage.happens(events.NamesReserved("job-0001", ("/out/a.png",)))
    assert stage.answer(reply)["success"]
    assert stage.happens(events.PixelsCame(CLIENT)) == [], "said twice, it means nothing"


def test_a_durable_job_is_spooled_once_its_pixels_are_there() -> None:
    stage = Stage()
    announced(stage, durable=True)
    assert kinds(stage.happens(events.PixelsCame(CLIENT)))[0] == "SpoolPixels"


def test_names_that_cannot_be_had_leave_the_slot_to_the_client_that_fills_it() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    reply = announced(stage)
    stage.happens(events.NamesRefused("job-0001", InvalidRequest.of("save_path", "x", "y")))
    assert code(stage.answer(reply)) == "invalid"
    assert stage.farm.slots.leased_bytes == 4096
    assert stage.happens(events.PixelsCame(CLIENT)) == []


@pytest.mark.parametrize("may_write", [True, False])
@pytest.mark.parametrize("held", [set(), {instructions.ReserveNames}], ids=["named", "being named"])
def test_a_client_that_leaves_while_it_fills_leaves_no_job(may_write: bool, held: set[type]) -> None:
    stage = Stage()
    stage.hold = held
    announced(stage)
    stage.happens(events.ClientGone(CLIENT, may_write))
    assert stage.happens(events.NamesReserved("job-0001", ("/out/a.png",))) == []
    assert stage.happens(events.NamesRefused("job-0001", DiskError("gone"))) == []
    assert stage.farm.taken == set()
    assert stage.farm.requests == stage.farm.pending == stage.farm.awaited == {}
    assert stage.farm.slots.used_bytes == (4096 if may_write else 0), "somebody may be writing there"
    stage.tick(QUARANTINE_S)
    assert stage.farm.slots.used_bytes == 0


def test_a_lease_that_is_given_back_takes_the_announced_submit_back() -> None:
    stage = Stage()
    reply = announced(stage)
    (number,) = stage.farm.pending["job-0001"].slots
    stage.happens(events.LeasesReturned(CLIENT, (99,)))
    assert stage.farm.awaited
    stage.happens(events.LeasesReturned(CLIENT, (number,)))
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.taken == set()
    assert reply not in stage.replies


def test_an_announced_slot_belongs_to_one_submit() -> None:
    stage = Stage()
    announced(stage)
    (number,) = stage.farm.pending["job-0001"].slots
    stage.lease(3072)
    for coming, wrong in ((False, "stale_lease"), (True, "invalid")):
        submit = Submit("request-2", options(), (entry(number),), (), coming)
        stage.happens(events.Submitted(CLIENT, 90 + coming, submit, "job-0002"))
        assert code(stage.answer(90 + coming)) == wrong


def test_a_submit_that_is_known_cannot_be_coming() -> None:
    stage = Stage()
    stage.submit("job-0001", request_id="request-1")
    number = stage.lease(3072)["leases"][0]["lease"]
    submit = Submit("request-1", options(), (entry(number),), (), True)
    stage.happens(events.Submitted(CLIENT, 90, submit, "job-0002"))
    assert code(stage.answer(90)) == "invalid"
    assert stage.farm.slots.leased_bytes == 4096, "its client may be writing into it"


def test_a_farm_that_stops_does_not_wait_for_pixels_that_may_never_come() -> None:
    stage = Stage()
    announced(stage)
    stage.happens(events.DrainAsked())
    assert stage.farm.drained


# --- durable


def test_a_durable_job_is_spooled_before_it_is_journaled_and_its_record_names_the_file() -> None:
    stage = Stage()
    lease = stage.lease(6144)["leases"][0]["lease"]
    submit = Submit("request-1", options(durable=True), (entry(lease, batch=2),))
    done = stage.happens(events.Submitted(CLIENT, 50, submit, "job-0001"))
    assert kinds(done)[:4] == ["ReserveNames", "SpoolPixels", "AppendJob", "Reply"]
    tasks = [image["task"] for image in stage.journal[0]["images"]]
    assert [(t["segment"], t["offset"]) for t in tasks] == [
        ("file:/spool/job-0001-0", 0),
        ("file:/spool/job-0001-0", 3072),
    ]
    images = stage.farm.jobs["job-0001"].images
    assert {image.task.segment for image in images} == {"shm:arena"}, "it is encoded from memory all the same"


def test_the_spool_is_forgotten_with_the_last_image_that_needs_it() -> None:
    stage = Stage(min_workers=2)
    stage.workers()
    stage.submit("job-0001", entry(batch=2), durable=True)
    forget = instructions.Forget("file:/spool/job-0001-0")
    assert forget not in stage.finish()
    assert forget in stage.finish()


def test_a_spool_that_fails_refuses_the_job() -> None:
    stage = Stage()
    stage.hold = {instructions.SpoolPixels}
    reply = stage.submit("job-0001", durable=True)
    assert stage.held[0].places == (("shm:arena", 0, 3072),)
    assert stage.farm.taken == {"/out/a_raw_00001.png"}
    stage.happens(events.SpoolFailed("job-0001", DiskError("disk full")))
    assert code(stage.answer(reply)) == "disk"
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.taken == set()


def test_a_durable_job_that_the_journal_refuses_leaves_no_spool() -> None:
    stage = Stage()
    stage.hold = {instructions.AppendJob}
    stage.submit("job-0001", entry(batch=2), entry(), durable=True)
    done = stage.happens(events.JournalFailed("job-0001", DiskError("disk full")))
    assert done[1:] == [
        instructions.Forget("file:/spool/job-0001-0"),
        instructions.Forget("file:/spool/job-0001-1"),
    ]


# --- again, and what is refused


def test_a_request_that_is_known_gets_the_same_receipt_and_its_leases_are_free() -> None:
    stage = Stage()
    first = stage.answer(stage.submit("job-0001", request_id="request-1"))
    again = stage.answer(stage.submit("job-0002", request_id="request-1"))
    assert again == first
    assert list(stage.farm.jobs) == ["job-0001"]
    assert stage.farm.slots.used_bytes == 4096


def test_a_request_that_is_being_taken_over_is_busy() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    stage.submit("job-0001", request_id="request-1")
    assert code(stage.answer(stage.submit("job-0002", request_id="request-1"))) == "busy"


def test_a_farm_that_stops_takes_nothing_new_but_answers_what_it_knows() -> None:
    stage = Stage()
    stage.submit("job-0001", request_id="request-1")
    lease = stage.lease(3072)["leases"][0]["lease"]
    stage.happens(events.DrainAsked())
    assert code(stage.lease(1)) == "draining"
    stage.happens(events.Submitted(CLIENT, 50, Submit("request-2", options(), (entry(lease),)), "job-0002"))
    assert code(stage.answer(50)) == "draining"
    stage.happens(
        events.Submitted(CLIENT, 51, Submit("request-1", options(), (entry(9),), (4096,)), "job-0003")
    )
    assert stage.answer(51)["job_id"] == "job-0001"
    assert stage.answer(51)["leases"] == []


def test_the_number_of_open_jobs_is_bounded() -> None:
    stage = Stage(max_jobs=2)
    stage.submit("job-0001")
    stage.hold = {instructions.AppendJob}
    stage.submit("job-0002")
    stage.hold = set()
    refused = stage.answer(stage.submit("job-0003"))
    assert code(refused) == "busy"
    assert "max_jobs" in refused["error"]


def test_a_lease_must_be_held_once_and_be_large_enough() -> None:
    stage = Stage()
    lease = stage.lease(4096)["leases"][0]["lease"]

    def submit(*entries: Any) -> str:
        reply = stage.reply()
        stage.happens(events.Submitted(CLIENT, reply, Submit("request-1", options(), entries), "job-0001"))
        return code(stage.answer(reply))

    assert submit(entry(99)) == "stale_lease"
    assert submit(entry(lease), entry(lease)) == "stale_lease"
    assert submit(entry(lease, height=1000)) == "too_large"
    assert stage.farm.slots.held_by(CLIENT, lease) is not None, "a refusal leaves the lease"


def test_leases_for_the_next_submit_come_with_the_answer_while_there_is_room_for_such() -> None:
    stage = Stage()
    granted = stage.answer(stage.submit("job-0001", want=(3072,)))["leases"]
    assert [lease["size"] for lease in granted] == [4096]
    assert stage.answer(stage.submit("job-0002", want=(MIB + 1,)))["leases"] == []
    full = Stage(arena_bytes=8192)
    assert full.answer(full.submit("job-0001", want=(4096,)))["leases"] == []


def test_ahead_of_what_is_free_nothing_is_granted() -> None:
    stage = Stage(arena_bytes=64 * 4096)
    stage.lease(*[4096] * 50, client=9)
    stage.happens(events.ClientGone(9, may_write=True))
    answer = stage.answer(stage.submit("job-0001", want=(4096,) * 15))
    assert answer["leases"] == []


# --- waiting


def test_a_wait_is_answered_when_the_job_is_finished() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    stage.submit("job-0002")
    first, second = stage.reply(), stage.reply()
    stage.happens(events.WaitAsked(CLIENT, first, "job-0001", 1e9))
    stage.happens(events.WaitAsked(CLIENT, second, "job-0002", 1e9))
    assert not {first, second} & set(stage.replies)
    stage.finish()
    assert stage.answer(first)["state"] == "done"
    assert second not in stage.replies
    report = stage.ask(events.WaitAsked, "job-0001", 1e9)
    assert report is not None
    assert report["state"] == "done", "of a finished job at once"


def test_a_wait_ends_with_its_time() -> None:
    stage = Stage()
    stage.submit("job-0001")
    at_once, late = stage.reply(), stage.reply()
    stage.happens(events.WaitAsked(CLIENT, at_once, "job-0001", stage.now))
    assert stage.answer(at_once)["state"] == "queued"
    stage.happens(events.WaitAsked(CLIENT, late, "job-0001", stage.now + 5.0))
    stage.tick(4.9)
    assert late not in stage.replies
    stage.tick(0.1)
    assert stage.answer(late)["state"] == "queued"
    stage.tick(9.0)
    assert len(stage.replies[late]) == 1


@pytest.mark.parametrize("kind", [events.CancelAsked, events.RetryAsked])
def test_a_job_that_is_not_known_is_said_so(kind: type) -> None:
    answer = Stage().ask(kind, "job-9999")
    assert code(answer) == "unknown_job"
    assert answer is not None
    assert answer["details"] == {"job_id": "job-9999"}


def test_a_wait_for_a_job_that_is_not_known_is_said_so() -> None:
    assert code(Stage().ask(events.WaitAsked, "job-9999", 1e9)) == "unknown_job"


def test_one_client_cannot_ask_for_ever_more_ends_of_jobs() -> None:
    stage = Stage()
    stage.submit("job-0001")
    for _ in range(MAX_WAITS):
        assert stage.ask(events.WaitAsked, "job-0001", 1e9) is None
    assert code(stage.ask(events.WaitAsked, "job-0001", 1e9)) == "busy"
    other = stage.reply()
    stage.happens(events.WaitAsked(CLIENT + 1, other, "job-0001", 1e9))
    assert other not in stage.replies, "another client may"


# --- cancelling


def test_what_no_worker_has_begun_is_cancelled() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    big = entry(height=512, width=256)
    stage.submit("job-0001", big, big)
    assert stage.states("job-0001") == ["running", "waiting"]
    report = stage.ask(events.CancelAsked, "job-0001")
    assert report is not None
    assert [image["state"] for image in report["images"]] == ["running", "cancelled"]
    assert stage.told("save_job_done") == []
    stage.finish()
    assert stage.told("save_job_done")[0]["state"] == "cancelled"
    assert stage.farm.slots.used_bytes == 0
    assert [r["state"] for r in stage.journal if r["r"] == "image"] == ["cancelled", "saved"]


def test_what_waits_for_a_disk_can_be_cancelled_and_waiters_hear_of_it() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="disk", error="full")
    assert stage.states("job-0001") == ["held"]
    assert stage.ask(events.WaitAsked, "job-0001", 1e9) is None
    waiting = stage.reply() - 1
    report = stage.ask(events.CancelAsked, "job-0001")
    assert report is not None
    assert report["state"] == stage.answer(waiting)["state"] == "cancelled"
    stage.tick(60)
    assert stage.farm.folders == {}, "nobody waits for that folder any more"


def test_what_is_done_cannot_be_cancelled() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    stage.finish()
    assert code(stage.ask(events.CancelAsked, "job-0001")) == "not_possible"


# --- trying again


def test_a_failed_image_is_made_from_its_dead_letter() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="encode", error="no")
    assert stage.states("job-0001") == ["failed"]
    assert stage.farm.slots.used_bytes == 0
    report = stage.ask(events.RetryAsked, "job-0001")
    assert report is not None
    assert (report["state"], report["images"][0]["error"]) == ("queued", "")
    assert [record["state"] for record in stage.journal if record["r"] == "image"] == ["failed", "waiting"]
    task = stage.dispatched[0].task
    assert (task.segment, task.offset) == ("npy:/dead/job-0001-0.npy", 0)
    done = stage.finish()
    assert instructions.Forget("npy:/dead/job-0001-0.npy") in done
    assert [event["state"] for event in stage.told("save_job_done")] == ["failed", "done"]


def test_only_what_failed_is_tried_again() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    assert code(stage.ask(events.RetryAsked, "job-0001")) == "not_possible"


def test_a_lease_counts_for_the_client_that_has_it() -> None:
    stage = Stage()
    lease = stage.lease(3072)["leases"][0]["lease"]
    submit = Submit("request-1", options(), (replace(entry(), lease=lease),))
    done = handle(stage.farm, events.Submitted(CLIENT + 1, 50, submit, "job-0001"), stage.now)
    (reply,) = done
    assert isinstance(reply, instructions.Reply)
    assert reply.message["code"] == "stale_lease"
