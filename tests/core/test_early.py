"""Receipts before the seal: what is journaled by then, and what becomes of a job that is never finished."""

from __future__ import annotations

from typing import Any

import pytest
from stage import CLIENT, Disk, Stage, batch, code, options

from luna_farm.core import events, instructions, recovery
from luna_farm.core.messages import ImageResult
from luna_farm.core.schema import Part, Submit
from luna_farm.core.slots import MARK_BYTES
from luna_farm.errors import DiskError

SIZE = 3072 + MARK_BYTES


def early(
    stage: Stage, job_id: str, leases: tuple[int, ...], *batches: Any, request: str = "", **fields: Any
) -> int:
    """Submit images that are being copied into these leases; returns the number of the request."""
    submit = Submit(
        request or f"request-{job_id}",
        options(**fields),
        batches or (batch(),) * len(leases),
        (SIZE,),
        into=leases,
    )
    reply = stage.reply()
    stage.happens(events.Submitted(CLIENT, reply, submit, job_id))
    return reply


def leased(stage: Stage, *sizes: int) -> tuple[int, ...]:
    return tuple(lease["lease"] for lease in stage.lease(*sizes)["leases"])


def opened(images: int = 1, **fields: Any) -> tuple[Stage, int, tuple[int, ...]]:
    stage = Stage()
    stage.workers()
    leases = leased(stage, *(SIZE,) * images)
    return stage, early(stage, "job-0001", leases, **fields), leases


def sealed_later(stage: Stage, reply: int, leases: tuple[int, ...]) -> None:
    stage.happens(events.Sealed(CLIENT, reply, tuple(Part(lease, 1) for lease in leases)))


def test_the_receipt_comes_once_the_job_is_in_the_journal_and_nothing_is_begun() -> None:
    stage = Stage()
    stage.workers()
    stage.hold = {instructions.Append}
    leases = leased(stage, SIZE, SIZE)
    reply = early(stage, "job-0001", leases)
    assert reply not in stage.replies
    (record,) = stage.held[-1].records
    assert [image["state"] for image in record["images"]] == ["filling", "filling"]
    assert [image["task"]["mark"][0] for image in record["images"]] == list(leases)
    stage.happens(events.Journaled("job-0001"))
    assert stage.answer(reply)["success"]
    assert len(stage.answer(reply)["leases"]) == 1
    assert not stage.dispatched
    assert stage.told("save_job_queued") == []


def test_the_images_are_saved_once_they_are_complete_and_nobody_is_told_twice() -> None:
    stage, reply, leases = opened(images=2)
    sealed_later(stage, reply, leases)
    assert len(stage.told("save_job_queued")) == 1
    stage.finish()
    stage.finish()
    assert stage.answer(reply)["success"]  # the one answer
    assert stage.farm.jobs["job-0001"].state == "done"
    assert not any(
        "mark" in record.get("task", {}) and record["task"]["mark"] for record in stage.journal[1:]
    )


@pytest.mark.parametrize("given_up", ["aborted", "gone"])
def test_a_job_of_which_nothing_is_complete_comes_to_nothing(given_up: str) -> None:
    stage, reply, leases = opened()
    waiting = stage.reply()
    stage.happens(events.JobRequested(8, waiting, "wait", "job-0001", 1e9))
    event = events.Aborted(CLIENT, reply) if given_up == "aborted" else events.ClientGone(CLIENT, False)
    stage.happens(event)
    assert code(stage.answer(waiting)) == "unknown_job"
    assert (stage.farm.jobs, stage.farm.open_jobs, stage.farm.requests) == ({}, {}, {})
    assert stage.farm.taken == set()
    assert stage.restarted().farm.jobs == {}
    if given_up == "aborted":
        assert stage.replies[reply][-1]["aborted"]
        assert stage.answer(early(stage, "job-0002", leases))["success"]


def test_what_another_client_cancelled_stays_cancelled() -> None:
    stage, reply, leases = opened()
    done = stage.happens(events.JobRequested(8, stage.reply(), "cancel", "job-0001", 0.0))
    assert stage.states("job-0001") == ["cancelled"]
    forgotten = [i for i in done if isinstance(i, instructions.Forget)]
    assert forgotten == [], "its pixels lie in the arena, with those of others"
    sealed_later(stage, reply, leases)
    assert stage.states("job-0001") == ["cancelled"]
    assert stage.farm.submits == {}


def test_a_cancelled_image_is_reported_even_if_its_client_leaves() -> None:
    stage, _, _ = opened()
    stage.ask("cancel", "job-0001")
    stage.happens(events.ClientGone(CLIENT, False))
    assert stage.states("job-0001") == ["cancelled"]


FULL = batch(channels=4)
"""It fills its slot to the end."""


@pytest.mark.parametrize(
    ("batches", "size", "fields"),
    [
        ((batch(),), SIZE, {"durable": True}),
        ((batch(),), SIZE, {"archive": "zip"}),
        ((batch(batch=2),), 2 * SIZE, {}),
        ((FULL,), FULL.image_bytes, {}),
    ],
    ids=["durable", "archive", "two in a slot", "no room for a mark"],
)
def test_where_it_cannot_the_farm_asks_for_a_seal(
    batches: tuple[Any, ...], size: int, fields: dict[str, Any]
) -> None:
    stage = Stage()
    stage.workers()
    leases = leased(stage, size)
    reply = early(stage, "job-0001", leases, *batches, **fields)
    assert stage.replies[reply] == [{"seal": True}]
    stage.seal(reply, (leases[0], batches[0].batch))
    assert stage.replies[reply][1]["success"]


def test_leases_that_it_does_not_hold_or_names_twice_are_sealed_one_by_one() -> None:
    stage = Stage()
    (lease,) = leased(stage, SIZE)
    assert stage.replies[early(stage, "job-0001", (lease, lease))] == [{"seal": True}]
    stage = Stage()
    assert stage.replies[early(stage, "job-0001", (999,))] == [{"seal": True}]


def test_a_seal_that_was_faster_than_the_names_needs_no_marks() -> None:
    stage = Stage()
    stage.workers()
    stage.hold = {instructions.ReserveNames}
    leases = leased(stage, SIZE)
    reply = early(stage, "job-0001", leases)
    sealed_later(stage, reply, leases)
    stage.hold = set()
    stage.happens(events.NamesReserved("job-0001", ("/out/a.png",)))
    assert [answer.get("success", "seal") for answer in stage.replies[reply]] == ["seal", True]


def test_a_client_that_left_before_the_names_were_there_is_told_nothing() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    reply = early(stage, "job-0001", leased(stage, SIZE))
    stage.happens(events.ClientGone(CLIENT, False))
    stage.hold = set()
    stage.happens(events.NamesReserved("job-0001", ("/out/a.png",)))
    assert reply not in stage.replies
    assert stage.farm.submits == {}


def test_a_client_that_left_before_the_record_was_written_leaves_nothing() -> None:
    stage = Stage()
    stage.hold = {instructions.Append}
    reply = early(stage, "job-0001", leased(stage, SIZE))
    stage.happens(events.ClientGone(CLIENT, False))
    stage.happens(events.Journaled("job-0001"))
    assert reply not in stage.replies
    assert (stage.farm.jobs, stage.farm.submits) == ({}, {})
    assert stage.farm.slots.used_bytes == 0


def test_a_journal_that_refuses_the_job_refuses_the_submit() -> None:
    stage = Stage()
    stage.hold = {instructions.Append}
    reply = early(stage, "job-0001", leased(stage, SIZE))
    stage.happens(events.Journaled("job-0001", error=DiskError("disk full")))
    assert code(stage.answer(reply)) == "busy"
    assert stage.farm.jobs == {}


def test_a_journal_that_refuses_the_second_record_gets_it_later() -> None:
    stage, reply, leases = opened()
    before = len(stage.journal)
    stage.hold = {instructions.Append}
    sealed_later(stage, reply, leases)
    assert not stage.dispatched
    stage.hold = set()
    stage.happens(events.Journaled("job-0001", error=DiskError("disk full")))
    assert [record["state"] for record in stage.journal[before:]] == ["queued"]
    assert len(stage.dispatched) == 1
    assert stage.answer(reply)["success"]


def test_a_request_that_is_known_is_asked_for_a_seal_of_what_is_missing() -> None:
    stage = Stage()
    stage.workers()
    leases = leased(stage, SIZE, SIZE)
    reply = early(stage, "job-0001", leases, request="request-1", durable=True)
    stage.seal(reply, (leases[0], 1))
    stage.happens(events.Aborted(CLIENT, reply))
    assert stage.states("job-0001")[1] == "missing"
    again = early(stage, "job-0002", leased(stage, SIZE, SIZE), request="request-1", durable=True)
    assert stage.replies[again] == [{"seal": True}]


def test_a_request_that_is_complete_gets_its_receipt_and_keeps_its_leases() -> None:
    stage, reply, leases = opened()
    sealed_later(stage, reply, leases)
    more = leased(stage, SIZE)
    again = stage.answer(early(stage, "job-0002", more, request="request-job-0001"))
    assert (again["job_id"], again["known"]) == ("job-0001", True)
    assert "known" not in stage.answer(reply)
    assert stage.farm.slots.held_by(CLIENT, more[0]) is not None


class Marks(Disk):
    """Memory in which these images are complete, with so many flaws."""

    def __init__(self, *complete: int, flaws: int = 0, **fields: Any) -> None:
        super().__init__(**fields)
        self.complete = complete
        self.flaws = flaws

    def sealed(self, task: Any) -> int | None:
        return self.flaws if task.index in self.complete else None


def test_a_successor_saves_what_the_marks_say_is_complete() -> None:
    stage, reply, _ = opened(images=2)
    paths = stage.answer(reply)["paths"]
    after = stage.restarted(Marks(0, 1, flaws=3))
    assert after.states("job-0001") == ["queued", "queued"]
    after.workers()
    assert [after.dispatched[n].task.flaws for n in (0, 1)] == [3, 3]
    assert [after.dispatched[n].task.path for n in (0, 1)] == paths
    assert stage.restarted(Marks(0, 1)).restarted().states("job-0001") == ["queued", "queued"]


def test_a_successor_forgets_a_job_whose_marks_are_not_all_set() -> None:
    stage, _, _ = opened(images=2)
    after = stage.restarted(Marks(0))
    assert (after.farm.jobs, after.farm.requests, after.farm.segment_users) == ({}, {}, {})


def test_where_records_may_be_missing_such_a_job_is_reported() -> None:
    """Its images may have been accepted and saved, and others lie in their slots now."""
    stage, _, _ = opened()
    recovered = recovery.read(stage.journal)
    recovered.unsure.add("job-0001")
    after = Stage()
    recovery.restore(after.farm, recovered, Marks(), after.now)
    assert after.states("job-0001") == ["missing"]


def test_after_a_reboot_the_images_are_lost_by_name() -> None:
    stage, _, _ = opened()
    after = stage.restarted(Marks(pixels=False))
    assert after.states("job-0001") == ["lost"]


def test_a_file_that_was_published_counts_although_its_record_is_missing() -> None:
    stage, _, _ = opened()
    made = ImageResult("saved", path="/out/a_RAW_00001.png", bytes=10)
    after = stage.restarted(Marks(pixels=False, made={("job-0001", 0): made}))
    assert after.states("job-0001") == ["saved"]
    after = stage.restarted(Marks(made={("job-0001", 0): made}))
    assert after.states("job-0001") == ["queued"]


def test_a_cancelled_image_beside_unfinished_ones_is_kept_by_a_successor() -> None:
    stage, _, _ = opened(images=2)
    stage.ask("cancel", "job-0001", index=0)
    after = stage.restarted(Marks())
    assert after.states("job-0001") == ["cancelled", "missing"]
