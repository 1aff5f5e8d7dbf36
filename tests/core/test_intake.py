"""Leases, submits, waiting and cancelling: who is told what, and what is in the journal by then."""

from __future__ import annotations

import pytest
from stage import CLIENT, MIB, Stage, batch, code

from luna_farm.core import events, instructions
from luna_farm.core.job_requests import MAX_WAITS
from luna_farm.core.leases import QUARANTINE_S
from luna_farm.errors import DiskError, InvalidRequest


def kinds(done: list[instructions.Instruction]) -> list[str]:
    return [type(i).__name__ for i in done]


# --- accepting


def test_a_job_is_journaled_before_it_is_acknowledged_and_acknowledged_before_it_is_begun() -> None:
    stage = Stage()
    stage.workers()
    lease = stage.lease(3072)["leases"][0]["lease"]
    reply = stage.open("job-0001")
    done = stage.seal(reply, (lease, 1))
    assert kinds(done) == ["Append", "Reply", "Publish", "Publish", "Dispatch"]
    assert stage.journal[-1]["r"] == "job"
    assert stage.answer(reply) == {
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
    stage.hold = {instructions.Append}
    reply = stage.submit("job-0001")
    assert reply not in stage.replies
    assert stage.farm.jobs == {}
    stage.happens(events.Journaled("job-0001"))
    assert stage.answer(reply)["success"]


def test_what_the_journal_refuses_is_not_accepted_and_may_come_again() -> None:
    stage = Stage()
    stage.hold = {instructions.Append}
    reply = stage.submit("job-0001", request_id="request-1")
    stage.happens(events.Journaled("job-0001", error=DiskError("disk full")))
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
    reply = stage.submit("job-0001", batch(batch=2), batch())
    stage.happens(events.NamesReserved("job-0001", error=InvalidRequest.of("save_path", "x", "y")))
    assert code(stage.answer(reply)) == "invalid"
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.requests == stage.farm.submits == {}


def test_a_name_that_cannot_be_made_refuses_the_job() -> None:
    stage = Stage()
    reply = stage.submit("job-0001", output_dir="/" + "x" * 1100)
    assert code(stage.answer(reply)) == "invalid"
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.requests == stage.farm.submits == {}


def test_the_images_of_a_batch_lie_behind_one_another_in_one_slot() -> None:
    stage = Stage()
    stage.submit("job-0001", batch(batch=3), batch(affix="", subdir=True), batch(affix="X", subdir=True))
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


# --- sealing


def test_names_are_reserved_before_the_first_seal_and_the_receipt_follows_the_last() -> None:
    stage = Stage()
    stage.workers()
    reply = stage.open("job-0001", batch(batch=2))
    assert stage.farm.taken
    first, second = (lease["lease"] for lease in stage.lease(3072, 3072)["leases"])
    done = stage.seal(reply, (first, 1))
    assert kinds(done) == ["Append", "Publish", "Publish", "Dispatch"], (
        "saved while the client copies the next"
    )
    assert stage.states("job-0001") == ["running", "filling"]
    assert reply not in stage.replies
    done = stage.seal(reply, (second, 1))
    assert kinds(done)[:2] == ["Append", "Reply"]
    assert stage.answer(reply)["paths"] == ["/out/a_RAW_0_00001.png", "/out/a_RAW_1_00002.png"]
    assert [record["r"] for record in stage.journal[-2:]] == ["job", "image"]


def test_seals_may_come_before_the_names() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    reply = stage.open("job-0001")
    lease = stage.lease(3072)["leases"][0]["lease"]
    assert stage.seal(reply, (lease, 1)) == []
    stage.happens(events.NamesReserved("job-0001", ("/out/a.png",)))
    assert stage.answer(reply)["success"]


def test_seals_wait_for_the_spool_and_the_journal_of_those_before() -> None:
    stage = Stage()
    stage.hold = {instructions.SpoolPixels}
    reply = stage.open("job-0001", batch(batch=3), durable=True)
    leases = [lease["lease"] for lease in stage.lease(3072, 3072, 3072)["leases"]]
    assert kinds(stage.seal(reply, (leases[0], 1))) == ["SpoolPixels"]
    assert stage.seal(reply, (leases[1], 1), (leases[2], 1)) == []
    done = stage.happens(events.PixelsSpooled("job-0001", ("file:/spool/0",)))
    assert kinds(done) == ["Append", "SpoolPixels", "Publish"]
    spooled = stage.held[-1]
    assert spooled.places == (("shm:arena", 4096, 3072), ("shm:arena", 8192, 3072))
    assert [request["task"]["index"] for request in spooled.requests] == [1, 2]
    stage.happens(events.PixelsSpooled("job-0001", ("file:/spool/1", "file:/spool/2")))
    assert stage.answer(reply)["success"]


def test_a_seal_of_a_refused_submit_frees_its_slot() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    reply = stage.open("job-0001")
    lease = stage.lease(3072)["leases"][0]["lease"]
    stage.happens(events.NamesReserved("job-0001", error=InvalidRequest.of("save_path", "x", "y")))
    assert code(stage.answer(reply)) == "invalid"
    assert stage.farm.slots.leased_bytes == 4096, "its client may be writing into it"
    assert stage.seal(reply, (lease, 1), (99, 1)) == []
    assert stage.farm.slots.used_bytes == 0


@pytest.mark.parametrize(
    ("parts", "wrong"),
    [
        ([(99, 1)], "stale_lease"),
        ([(1, 1), (1, 1)], "stale_lease"),
        ([(1, 3)], "invalid"),
        ([(1, 1), (2, 2)], "invalid"),
        ([(2, 1)], "too_large"),
    ],
    ids=["not held", "twice", "of two batches", "too many", "too small"],
)
def test_a_wrong_seal_ends_the_submit(parts: list[tuple[int, int]], wrong: str) -> None:
    stage = Stage()
    stage.lease(12 * 1024, 4096)
    reply = stage.open("job-0001", batch(height=64, batch=2), batch())
    stage.seal(reply, *parts)
    assert code(stage.answer(reply)) == wrong
    assert stage.farm.submits == stage.farm.submitting == {}
    stage.happens(events.ClientGone(CLIENT, False))
    stage.workers()
    while stage.dispatched:
        stage.finish()
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.taken == set()


def test_more_images_than_the_submit_has_are_refused() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    leases = [lease["lease"] for lease in stage.lease(3072, 3072)["leases"]]
    reply = stage.open("job-0001")
    stage.seal(reply, (leases[0], 1), (leases[1], 1))
    assert code(stage.answer(reply)) == "invalid"


@pytest.mark.parametrize("may_write", [True, False])
@pytest.mark.parametrize("held", [set(), {instructions.ReserveNames}], ids=["named", "being named"])
def test_a_client_that_leaves_before_it_seals_leaves_no_job(may_write: bool, held: set[type]) -> None:
    stage = Stage()
    stage.hold = held
    stage.lease(3072)
    stage.open("job-0001")
    stage.happens(events.ClientGone(CLIENT, may_write))
    if held:
        assert stage.happens(events.NamesReserved("job-0001", ("/out/a.png",))) == []
    assert stage.farm.taken == set()
    assert stage.farm.requests == stage.farm.submits == stage.farm.submitting == {}
    assert stage.farm.slots.used_bytes == (4096 if may_write else 0), "its process may be writing there"
    stage.tick(QUARANTINE_S)
    assert stage.farm.slots.used_bytes == 0


@pytest.mark.parametrize("how", ["gone", "abort"])
@pytest.mark.parametrize("held", [set(), {instructions.ReserveNames}], ids=["named", "being named"])
def test_what_was_sealed_stays_accepted_and_the_rest_is_named_as_missing(how: str, held: set[type]) -> None:
    stage = Stage()
    stage.hold = held
    reply = stage.open("job-0001", batch(batch=3))
    lease = stage.lease(3072)["leases"][0]["lease"]
    stage.seal(reply, (lease, 1))
    if how == "gone":
        stage.happens(events.ClientGone(CLIENT, False))
    else:
        stage.happens(events.Aborted(CLIENT, reply))
        assert stage.answer(reply) == {"success": True, "aborted": True, "job_id": "job-0001", "sealed": 1}
    if held:
        stage.happens(events.NamesReserved("job-0001", ("/out/a", "/out/b", "/out/c")))
    assert stage.states("job-0001") == ["queued", "missing", "missing"]
    assert stage.told("images_missing")[0]["count"] == 2
    assert len(stage.farm.taken) == 1
    stage.workers()
    stage.finish()
    report = stage.farm.jobs["job-0001"].report()
    assert (report["state"], report["images"][1]["code"]) == ("failed", "missing")
    assert stage.told("save_job_done")[0]["images_failed"] == 2
    assert stage.status()["totals"]["images_failed"] == 2
    (row,) = stage.status()["incomplete_jobs"]
    assert (row["job_id"], row["images"], row["num_images"]) == ("job-0001", 2, 3)
    assert "never handed over" in row["error"]
    assert [row.task.index for row in stage.catalogue if isinstance(row, instructions.CatalogueFailed)] == [
        1,
        2,
    ]


def test_an_abort_of_nothing_is_passed_over() -> None:
    stage = Stage()
    reply = stage.submit("job-0001")
    assert stage.happens(events.Aborted(CLIENT, reply)) == []
    stage.open("job-0002")
    assert stage.happens(events.Aborted(CLIENT, reply)) == []


def test_a_connection_has_one_open_submit() -> None:
    stage = Stage()
    stage.open("job-0001")
    assert code(stage.answer(stage.open("job-0002"))) == "invalid"


def test_a_submit_that_is_sent_again_goes_on_with_what_is_missing() -> None:
    stage = Stage()
    first = stage.open("job-0001", batch(batch=3), request_id="request-1")
    stage.seal(first, (stage.lease(3072)["leases"][0]["lease"], 1))
    stage.happens(events.ClientGone(CLIENT, False))
    assert stage.status()["totals"]["images_failed"] == 2
    again = stage.open("job-0002", batch(batch=3), request_id="request-1")
    assert len(stage.farm.taken) == 3, "the names of the job are its own again"
    assert (stage.status()["totals"]["images_failed"], stage.status()["incomplete_jobs"]) == (0, [])
    assert code(stage.ask("dismiss", "job-0001")) == "not_possible", "they are on their way"
    (lease,) = stage.lease(9216)["leases"]
    stage.seal(again, (lease["lease"], 3))
    answer = stage.answer(again)
    assert answer["job_id"] == "job-0001"
    assert answer["paths"][0] == "/out/a_RAW_0_00001.png"
    assert stage.states("job-0001") == ["queued"] * 3
    offsets = [image.task.offset for image in stage.farm.jobs["job-0001"].images]
    assert offsets[0] == 0, "what was accepted before is not taken twice"
    stage.workers()
    for _ in range(3):
        stage.finish()
    assert stage.farm.jobs["job-0001"].state == "done"
    assert stage.farm.slots.used_bytes == 0


def test_it_cannot_go_on_with_another_number_of_images() -> None:
    stage = Stage()
    first = stage.open("job-0001", batch(batch=3), request_id="request-1")
    stage.seal(first, (stage.lease(3072)["leases"][0]["lease"], 1))
    stage.happens(events.ClientGone(CLIENT, False))
    assert code(stage.answer(stage.open("job-0002", batch(batch=2), request_id="request-1"))) == "invalid"


def test_a_journal_that_fails_in_the_middle_keeps_what_was_accepted_before() -> None:
    stage = Stage()
    reply = stage.open("job-0001", batch(batch=3), durable=True)
    leases = [lease["lease"] for lease in stage.lease(3072, 3072)["leases"]]
    stage.seal(reply, (leases[0], 1))
    stage.hold = {instructions.Append}
    stage.seal(reply, (leases[1], 1))
    done = stage.happens(events.Journaled("job-0001", error=DiskError("disk full")))
    assert instructions.Forget("file:/spool/job-0001-1") in done
    assert code(stage.answer(reply)) == "busy"
    assert stage.states("job-0001") == ["queued", "missing", "missing"]
    assert stage.farm.slots.used_bytes == 4096


def test_images_that_are_cancelled_before_they_are_sealed_are_not_saved() -> None:
    stage = Stage()
    reply = stage.open("job-0001", batch(batch=2))
    leases = [lease["lease"] for lease in stage.lease(3072, 3072)["leases"]]
    stage.seal(reply, (leases[0], 1))
    stage.ask("cancel", "job-0001")
    assert stage.states("job-0001") == ["cancelled", "cancelled"]
    stage.seal(reply, (leases[1], 1))
    assert stage.answer(reply)["success"]
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.open_jobs == stage.farm.submits == {}


@pytest.mark.parametrize("again", [False, True])
def test_a_job_cancelled_while_its_submit_is_open_is_kept_until_its_client_is_done(again: bool) -> None:
    stage = Stage(kept_reports=1)
    reply = stage.open("job-0001", batch(batch=2))
    stage.seal(reply, (stage.lease(3072)["leases"][0]["lease"], 1))
    if again:  # the client leaves, and sends the request again
        stage.happens(events.ClientGone(CLIENT, may_write=False))
        reply = stage.open("job-0001", batch(batch=2))
    stage.ask("cancel", "job-0001")
    stage.workers()
    for other in ("job-0002", "job-0003"):
        stage.submit(other, client=9)
        stage.finish()
    stage.happens(events.Aborted(CLIENT, reply))
    assert stage.answer(reply)["aborted"]
    assert stage.farm.submits == {}
    stage.submit("job-0004")
    stage.finish()
    assert list(stage.farm.jobs) == ["job-0004"], "it gives way as others do"
    assert list(stage.farm.requests) == ["request-job-0004"]


def test_a_farm_that_stops_does_not_wait_for_pixels_that_may_never_come() -> None:
    stage = Stage()
    reply = stage.open("job-0001", batch(batch=2))
    lease = stage.lease(3072)["leases"][0]["lease"]
    stage.happens(events.DrainRequested())
    assert stage.farm.drained
    stage.workers()
    stage.seal(reply, (lease, 1))
    assert not stage.farm.drained
    stage.finish()
    assert stage.farm.drained


# --- an image larger than the arena


def test_an_image_larger_than_the_arena_gets_a_segment_of_its_own() -> None:
    stage = Stage(arena_bytes=4096, max_pixels=2**20)
    (lease,) = stage.lease(12288)["leases"]
    assert (lease["segment"], lease["offset"], lease["size"]) == ("file:/large/1", 0, 12288)
    reply = stage.open("job-0001", batch(height=128))
    stage.workers()
    stage.seal(reply, (lease["lease"], 1))
    assert stage.dispatched[0].task.segment == "file:/large/1"
    done = stage.finish()
    assert instructions.Forget("file:/large/1") in done
    assert stage.farm.slots.own_bytes == 0


def test_it_is_forgotten_when_its_client_leaves_before_or_after_it_is_there() -> None:
    stage = Stage(arena_bytes=4096)
    stage.hold = {instructions.CreateSegment}
    stage.happens(events.LeaseRequested(CLIENT, 1, (12288,)))
    stage.happens(events.ClientGone(CLIENT, False))
    done = stage.happens(events.SegmentCreated(CLIENT, 1, 12288, "file:/large/1"))
    assert done == [instructions.Forget("file:/large/1")]
    assert stage.happens(events.SegmentCreated(CLIENT, 1, 12288, error=DiskError("full"))) == []
    stage.hold = set()
    segment = stage.lease(12288)["leases"][0]["segment"]
    assert instructions.Forget(segment) in stage.happens(events.ClientGone(CLIENT, False))


def test_such_images_have_a_bound_and_a_disk_without_room_means_busy() -> None:
    stage = Stage(arena_bytes=4096, max_pixels=4096)
    for too_large in (4096 * 4 + 1, 2**50):
        answer = stage.lease(too_large)
        assert answer["code"] == "too_large"
        assert "setting max_pixels" in answer["error"], answer
        assert "arena_bytes" not in answer["error"], answer
    assert "leases" in stage.lease(4096 * 4)
    assert code(stage.lease(8192)) == "busy"
    other = Stage(arena_bytes=4096)
    other.hold = {instructions.CreateSegment}
    other.happens(events.LeaseRequested(CLIENT, 9, (8192,)))
    other.happens(events.SegmentCreated(CLIENT, 9, 8192, error=DiskError("no space")))
    assert code(other.answer(9)) == "busy"


# --- durable


def test_a_durable_job_is_spooled_before_it_is_journaled_and_its_record_names_the_file() -> None:
    stage = Stage()
    lease = stage.lease(6144)["leases"][0]["lease"]
    done = stage.seal(stage.open("job-0001", batch(batch=2), durable=True), (lease, 2))
    assert kinds(done)[:3] == ["SpoolPixels", "Append", "Reply"]
    tasks = [image["task"] for image in stage.journal[0]["images"]]
    assert [(t["segment"], t["offset"]) for t in tasks] == [
        ("file:/spool/job-0001-0", 0),
        ("file:/spool/job-0001-1", 0),
    ]
    images = stage.farm.jobs["job-0001"].images
    assert {image.task.segment for image in images} == {"shm:arena"}, "it is encoded from memory all the same"


def test_images_that_were_accepted_before_keep_their_files_when_the_rest_is_sealed_later() -> None:
    """The files have the names of their images, not of their place in what is sealed."""
    stage = Stage(min_workers=2)
    reply = stage.open("job-0001", batch(batch=3), request_id="r", durable=True)
    lease = stage.lease(3072)["leases"][0]["lease"]
    stage.seal(reply, (lease, 1))
    stage.happens(events.ClientGone(CLIENT, may_write=False))
    stage.hold = {instructions.SpoolPixels}
    stage.submit("job-0002", batch(batch=3), request_id="r", durable=True)
    assert [request["task"]["index"] for request in stage.held[-1].requests] == [1, 2]


def test_the_spool_of_an_image_is_forgotten_with_it() -> None:
    stage = Stage(min_workers=2)
    stage.workers()
    stage.submit("job-0001", batch(batch=2), durable=True)
    assert instructions.Forget("file:/spool/job-0001-0") in stage.finish()
    assert instructions.Forget("file:/spool/job-0001-1") in stage.finish()


def test_a_spool_that_fails_refuses_the_job() -> None:
    stage = Stage()
    stage.hold = {instructions.SpoolPixels}
    reply = stage.submit("job-0001", durable=True)
    assert stage.held[0].places == (("shm:arena", 0, 3072),)
    assert stage.farm.taken == {"/out/a_raw_00001.png"}
    stage.happens(events.PixelsSpooled("job-0001", error=DiskError("disk full")))
    assert code(stage.answer(reply)) == "disk"
    assert stage.farm.slots.used_bytes == 0
    assert stage.farm.taken == set()


@pytest.mark.parametrize(
    ("held", "failed"),
    [
        (instructions.ReserveNames, events.NamesReserved("job-0001", (), error=DiskError("disk full"))),
        (instructions.SpoolPixels, events.PixelsSpooled("job-0001", error=DiskError("disk full"))),
        (instructions.Append, events.Journaled("job-0001", error=DiskError("disk full"))),
    ],
)
def test_a_submit_that_fails_after_its_client_is_gone_is_answered_to_no_one(
    held: type[instructions.Instruction], failed: events.Event
) -> None:
    stage = Stage()
    stage.hold = {held}
    stage.submit("job-0001", durable=True)
    stage.happens(events.ClientGone(CLIENT, may_write=False))
    assert "Reply" not in kinds(stage.happens(failed))
    assert stage.farm.slots.used_bytes == 0
    assert (stage.farm.jobs, stage.farm.submits, stage.farm.taken) == ({}, {}, set())


def test_a_durable_job_that_the_journal_refuses_leaves_no_spool() -> None:
    stage = Stage()
    stage.hold = {instructions.Append}
    stage.submit("job-0001", batch(batch=2), batch(), durable=True)
    done = stage.happens(events.Journaled("job-0001", error=DiskError("disk full")))
    assert done[1:] == [instructions.Forget(f"file:/spool/job-0001-{n}") for n in range(3)]


# --- again, and what is refused


def test_a_request_that_is_known_gets_the_same_receipt_and_its_leases_are_free() -> None:
    stage = Stage()
    first = stage.answer(stage.submit("job-0001", request_id="request-1"))
    again = stage.answer(stage.submit("job-0002", request_id="request-1"))
    assert again == {**first, "known": True}
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
    stage.happens(events.DrainRequested())
    assert code(stage.lease(1)) == "draining"
    assert code(stage.answer(stage.open("job-0002", request_id="request-2"))) == "draining"
    known = stage.answer(stage.open("job-0003", request_id="request-1", want=(4096,)))
    assert (known["job_id"], known["leases"]) == ("job-0001", [])


def test_the_number_of_open_jobs_is_bounded() -> None:
    stage = Stage(max_jobs=2)
    stage.submit("job-0001")
    stage.hold = {instructions.Append}
    stage.submit("job-0002")
    refused = stage.answer(stage.open("job-0003", client=CLIENT + 1))
    assert code(refused) == "busy"
    assert "max_jobs" in refused["error"]


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
    stage.happens(events.JobRequested(CLIENT, first, "wait", "job-0001", 1e9))
    stage.happens(events.JobRequested(CLIENT, second, "wait", "job-0002", 1e9))
    assert not {first, second} & set(stage.replies)
    stage.finish()
    assert stage.answer(first)["state"] == "done"
    assert second not in stage.replies
    report = stage.ask("wait", "job-0001", 1e9)
    assert report is not None
    assert report["state"] == "done", "of a finished job at once"


def test_a_wait_ends_with_its_time() -> None:
    stage = Stage()
    stage.submit("job-0001")
    at_once, late = stage.reply(), stage.reply()
    stage.happens(events.JobRequested(CLIENT, at_once, "wait", "job-0001", stage.now))
    assert stage.answer(at_once)["state"] == "queued"
    stage.happens(events.JobRequested(CLIENT, late, "wait", "job-0001", stage.now + 5.0))
    stage.tick(4.9)
    assert late not in stage.replies
    stage.tick(0.1)
    assert stage.answer(late)["state"] == "queued"
    stage.tick(9.0)
    assert len(stage.replies[late]) == 1


@pytest.mark.parametrize("command", ["cancel", "retry"])
def test_a_job_that_is_not_known_is_said_so(command: events.JobCommand) -> None:
    answer = Stage().ask(command, "job-9999")
    assert code(answer) == "unknown_job"
    assert answer is not None
    assert answer["details"] == {"job_id": "job-9999"}


def test_a_wait_for_a_job_that_is_not_known_is_said_so() -> None:
    assert code(Stage().ask("wait", "job-9999", 1e9)) == "unknown_job"


def test_one_client_cannot_ask_for_ever_more_ends_of_jobs() -> None:
    stage = Stage()
    stage.submit("job-0001")
    for _ in range(MAX_WAITS):
        assert stage.ask("wait", "job-0001", 1e9) is None
    assert code(stage.ask("wait", "job-0001", 1e9)) == "busy"
    other = stage.reply()
    stage.happens(events.JobRequested(CLIENT + 1, other, "wait", "job-0001", 1e9))
    assert other not in stage.replies, "another client may"


# --- cancelling


def test_what_no_worker_has_begun_is_cancelled() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    big = batch(height=512, width=256)
    stage.submit("job-0001", big, big)
    assert stage.states("job-0001") == ["running", "queued"]
    report = stage.ask("cancel", "job-0001")
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
    assert stage.ask("wait", "job-0001", 1e9) is None
    waiting = stage.reply() - 1
    report = stage.ask("cancel", "job-0001")
    assert report is not None
    assert report["state"] == stage.answer(waiting)["state"] == "cancelled"
    stage.tick(60)
    assert stage.farm.folders == {}, "no image waits for that folder any more"


def test_what_is_done_cannot_be_cancelled() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    stage.finish()
    assert code(stage.ask("cancel", "job-0001")) == "not_possible"


# --- trying again


def test_a_failed_image_is_made_from_its_dead_letter() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    stage.finish(state="failed", code="encode", error="no")
    assert stage.states("job-0001") == ["failed"]
    assert stage.farm.slots.used_bytes == 0
    report = stage.ask("retry", "job-0001")
    assert report is not None
    assert (report["state"], report["images"][0]["error"]) == ("queued", "")
    assert [record["state"] for record in stage.journal[-1]["images"]] == ["queued"], "whole: it was finished"
    task = stage.dispatched[0].task
    assert (task.segment, task.offset) == ("npy:/dead/job-0001-0.npy", 0)
    done = stage.finish()
    assert instructions.Forget("npy:/dead/job-0001-0.npy") in done
    assert [event["state"] for event in stage.told("save_job_done")] == ["failed", "done"]


def test_only_what_failed_is_tried_again() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    assert code(stage.ask("retry", "job-0001")) == "not_possible"


def test_a_lease_counts_for_the_client_that_has_it() -> None:
    stage = Stage()
    lease = stage.lease(3072)["leases"][0]["lease"]
    reply = stage.open("job-0001", client=CLIENT + 1)
    stage.seal(reply, (lease, 1), client=CLIENT + 1)
    assert code(stage.answer(reply)) == "stale_lease"
    assert stage.farm.slots.held_by(CLIENT, lease) is not None


def test_a_client_that_leaves_after_its_last_seal_has_its_job_and_no_leases() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    reply = stage.open("job-0001", want=(3072,))
    stage.seal(reply, (stage.lease(3072)["leases"][0]["lease"], 1))
    stage.happens(events.ClientGone(CLIENT, False))
    stage.happens(events.NamesReserved("job-0001", ("/out/a.png",)))
    assert stage.states("job-0001") == ["queued"]
    assert reply not in stage.replies
    assert stage.farm.slots.leased_bytes == 0


def test_what_is_cancelled_before_an_abort_is_not_missing() -> None:
    stage = Stage()
    reply = stage.open("job-0001", batch(batch=2))
    stage.seal(reply, (stage.lease(3072)["leases"][0]["lease"], 1))
    stage.ask("cancel", "job-0001")
    stage.happens(events.Aborted(CLIENT, reply))
    assert stage.states("job-0001") == ["cancelled", "cancelled"]
    assert stage.told("images_missing") == []


# --- times of files


def test_files_follow_one_another_in_time_as_their_images_were_sealed() -> None:
    stage = Stage()
    second = 10**9

    def times(job_id: str, at: int) -> list[int]:
        lease = stage.lease(3 * 3072)["leases"][0]["lease"]
        reply = stage.open(job_id, batch(batch=3))
        stage.seal(reply, (lease, 3), time_ns=at)
        return [image.task.file_time_ns for image in stage.farm.jobs[job_id].images]

    start = 1_800_000_000 * second
    assert times("job-0001", start) == [start, start + 1000, start + 2000]
    assert times("job-0002", start + 500) == [start + 3000, start + 4000, start + 5000]  # never before these
    assert times("job-0003", start + second)[0] == start + second
    assert times("job-0004", start - 86400 * second)[0] == start - 86400 * second  # the clock was set back
    assert times("job-0005", 0) == [0, 0, 0]
    assert stage.journal[0]["images"][0]["task"]["file_time_ns"] == start


def test_what_is_accepted_of_a_finished_job_that_goes_on_survives_its_farm() -> None:
    stage = Stage()
    reply = stage.open("job-0001", batch(batch=2), request_id="request-1")
    stage.seal(reply, (stage.lease(3072)["leases"][0]["lease"], 1))
    stage.happens(events.Aborted(CLIENT, reply))
    stage.workers()
    stage.finish()
    stage.compact()
    stage.submit("job-0002", batch(batch=2), request_id="request-1")
    after = stage.restarted()
    assert after.farm.jobs["job-0001"].report()["images"][1]["state"] == "queued"
