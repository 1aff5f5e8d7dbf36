"""Many requests in one message: one record, one answer, all of them or none."""

from __future__ import annotations

from typing import Any

import pytest
from stage import CLIENT, LIMITS, Stage, batch, code, options

from luna_farm.core import events, instructions, recovery, schema
from luna_farm.core.schema import ALIGNMENT, Part, Submit
from luna_farm.errors import DiskError, InvalidRequest, TooLarge

ODD = batch(height=3, width=3)
"""Its 27 bytes end in the middle of an aligned block."""


def submits(*batches: Any, **fields: Any) -> tuple[Submit, ...]:
    return tuple(
        Submit(f"request-{n}", options(filename=f"f{n}", **fields), (b,)) for n, b in enumerate(batches)
    )


def send(at: Stage, many: tuple[Submit, ...], want: tuple[int, ...] = ()) -> int:
    """Submit requests together; returns the number of the message."""
    reply = at.reply()
    ids = tuple(f"job-{reply:03d}{n}" for n in range(len(many)))
    at.happens(events.ManySubmitted(CLIENT, reply, many, ids, want))
    return reply


def seal(at: Stage, reply: int, images: int, size: int = 4096, flaws: tuple[int, ...] = ()) -> int:
    """Seal the pixels of all requests in one slot; returns its lease."""
    lease: int = at.lease(size)["leases"][0]["lease"]
    at.happens(events.Sealed(CLIENT, reply, (Part(lease, images, flaws),)))
    return lease


def stage(**changes: Any) -> Stage:
    made = Stage(**{"max_jobs": 40, **changes})
    made.workers()
    return made


def test_all_are_accepted_by_one_record_and_one_answer() -> None:
    at = stage()
    reply = send(at, submits(batch(), ODD, batch(batch=2)), want=(9000,))
    before = len(at.journal)
    seal(at, reply, 4, 4 * 3072 + ALIGNMENT, flaws=(0, 5, 0, 0))
    answer = at.answer(reply)
    assert [len(receipt["paths"]) for receipt in answer["receipts"]] == [1, 1, 2]
    assert answer["leases"][0]["size"] >= 9000
    (record, *_) = at.journal[before:]
    assert (record["r"], len(record["jobs"])) == ("jobs", 3)
    tasks = [image.task for job in at.farm.jobs.values() for image in job.images]
    offsets = [task.offset - tasks[0].offset for task in tasks]
    assert offsets == [0, 3072, 3072 + ALIGNMENT, 2 * 3072 + ALIGNMENT]
    assert [task.flaws for task in tasks] == [0, 5, 0, 0]
    while at.dispatched:
        at.finish()
    assert [job.state for job in at.farm.jobs.values()] == ["done"] * 3
    assert at.farm.slots.used_bytes == at.farm.slots.leased_bytes, "only the prefetched lease is left"
    assert (at.farm.taken, at.farm.bundles, at.farm.submits) == (set(), {}, {})


def test_a_restart_takes_all_up_again() -> None:
    at = stage()
    seal(at, send(at, submits(batch(), ODD)), 2)
    after = at.restarted()
    assert len(after.farm.waiting) == 2
    assert recovery.read(after.journal).jobs.keys() == at.farm.jobs.keys()


def test_sent_again_they_get_the_same_receipts() -> None:
    at = stage()
    many = submits(batch(), ODD)
    first = send(at, many)
    seal(at, first, 2)
    again = send(at, many)
    paths = [[r["paths"] for r in at.answer(reply)["receipts"]] for reply in (first, again)]
    assert paths[0] == paths[1]
    lease = seal(at, again, 2)
    assert at.farm.slots.held_by(CLIENT, lease) is None, "the seal that follows is not needed"
    mixed = (many[0], *submits(batch(), batch(), batch())[2:])
    assert "all new" in at.answer(send(at, mixed))["error"]


def test_one_that_is_refused_refuses_all() -> None:
    at = stage()
    assert code(at.answer(send(at, submits(batch(), ODD, archive="tar", if_exists="skip")))) == "invalid"
    at.happens(events.DrainRequested())
    assert code(at.answer(send(at, submits(batch())))) == "draining"
    assert (at.farm.requests, at.farm.submits) == ({}, {})


def test_a_name_that_is_refused_refuses_all_and_frees_everything() -> None:
    at = stage()
    at.hold = {instructions.ReserveNames}
    reply = send(at, submits(batch(), ODD))
    lease = seal(at, reply, 2)
    assert at.farm.slots.held_by(CLIENT, lease) is None
    one, two = at.held
    at.happens(events.NamesReserved(one.job_id, ("/out/a.png",)))
    assert reply not in at.replies, "the other name is still looked for"
    at.happens(events.NamesReserved(two.job_id, error=DiskError("read only")))
    assert "read only" in at.answer(reply)["error"]
    assert (at.farm.requests, at.farm.submits, at.farm.bundles, at.farm.taken) == ({}, {}, {}, set())
    assert at.farm.slots.used_bytes == 0
    unsealed = send(at, submits(batch()))
    at.happens(events.NamesReserved(at.held[-1].job_id, error=DiskError("read only")))
    assert "read only" in at.answer(unsealed)["error"]
    seal(at, unsealed, 1)
    assert at.farm.slots.used_bytes == 0


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        (lambda lease: (Part(99, 2),), "lease"),
        (lambda lease: (Part(lease, 1),), "2 images"),
        (lambda lease: (Part(lease, 1), Part(lease, 1)), "2 images"),
        (lambda lease: (Part(lease, 2),), "bytes"),
    ],
)
def test_a_seal_that_does_not_fit_refuses_all(parts: Any, word: str) -> None:
    at = stage()
    reply = send(at, submits(batch(height=64, width=64), batch()))
    lease = at.lease(4096)["leases"][0]["lease"]
    at.happens(events.Sealed(CLIENT, reply, parts(lease)))
    assert word in at.answer(reply)["error"]
    assert (at.farm.bundles, at.farm.taken) == ({}, set())


def test_a_journal_that_refuses_refuses_all() -> None:
    at = stage()
    at.hold = {instructions.Append}
    reply = send(at, submits(batch(), ODD))
    seal(at, reply, 2)
    append = at.held[-1]
    at.happens(events.Journaled(append.job_id, DiskError("full")))
    assert code(at.answer(reply)) == "busy"
    assert (at.farm.jobs, at.farm.slots.used_bytes, at.farm.taken) == ({}, 0, set())


def test_durable_requests_are_spooled_before_the_record() -> None:
    at = stage()
    at.hold = {instructions.SpoolPixels}
    many = (*submits(batch()), *submits(batch(), batch(), durable=True)[1:])
    reply = send(at, many)
    seal(at, reply, 2, 2 * 3072)
    (spool,) = at.held
    assert not at.farm.jobs
    at.farm.draining = True
    assert not at.farm.drained, "its client waits for the answer"
    at.farm.draining = False
    at.happens(events.PixelsSpooled(spool.job_id, ("file:/spool/x",)))
    assert at.answer(reply)["success"]
    assert at.journal[-1]["jobs"][1]["images"][0]["task"]["segment"] == "file:/spool/x"
    refused = send(at, tuple(Submit(f"again-{n}", one.options, one.batches) for n, one in enumerate(many)))
    seal(at, refused, 2, 2 * 3072)
    at.happens(events.PixelsSpooled(at.held[-1].job_id, error=DiskError("full")))
    assert "full" in at.answer(refused)["error"]


def test_what_was_spooled_goes_when_another_could_not_be() -> None:
    at = stage()
    at.hold = {instructions.SpoolPixels}
    reply = send(at, submits(batch(), batch(), durable=True))
    seal(at, reply, 2, 2 * 3072)
    one, two = at.held
    at.happens(events.PixelsSpooled(one.job_id, ("file:/spool/x",)))
    done = at.happens(events.PixelsSpooled(two.job_id, error=DiskError("full")))
    assert instructions.Forget("file:/spool/x") in done


def test_a_client_that_leaves_before_the_seal_leaves_nothing() -> None:
    for ending in (events.ClientGone(CLIENT, may_write=False), None):
        at = stage()
        reply = send(at, submits(batch(), ODD))
        at.happens(ending or events.Aborted(CLIENT, reply))
        assert (at.farm.requests, at.farm.submits, at.farm.bundles, at.farm.taken) == ({}, {}, {}, set())
    assert at.answer(reply) == {"success": True, "aborted": True, "sealed": 0}


def test_a_client_that_leaves_after_the_seal_leaves_accepted_jobs() -> None:
    at = stage()
    at.hold = {instructions.ReserveNames}
    reply = send(at, submits(batch()))
    seal(at, reply, 1)
    at.happens(events.ClientGone(CLIENT, may_write=True))
    at.happens(events.NamesReserved(at.held[0].job_id, ("/out/a.png",)))
    (job,) = at.farm.jobs.values()
    assert job.state in ("queued", "running")
    assert reply not in at.replies


def test_one_at_a_time_for_each_connection() -> None:
    at = stage()
    send(at, submits(batch()))
    assert "open submit" in at.answer(at.open("job-0001"))["error"]


def message(*requests: Any) -> dict[str, Any]:
    return {"requests": list(requests)}


def one(number: int = 0, **fields: Any) -> dict[str, Any]:
    images = [{"affix": "A", "shape": [1, 8, 8, 3]}]
    given = {"request_id": f"request-{number}", "timestamp": "2026-01-02T03:04:05", "output_dir": "/out"}
    return {**given, "images": images, **fields}


def test_each_request_of_a_message_is_judged() -> None:
    made, want = schema.submit_many({**message(one(1), one(2)), "want": [9]}, {}, LIMITS.of_request())
    assert [submit.request_id for submit in made] == ["request-1", "request-2"]
    assert want == (9,)
    for wrong, words in (
        ({}, "requests"),
        (message(), "requests"),
        (message(*[one()] * 1025), "requests"),
        (message(5), r"requests\[0\]"),
        (message(one(1), one(2, quality_gate="x")), r"requests\[1\].quality_gate"),
        (message(one(1), one(1)), "request_id"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            schema.submit_many(wrong, {}, LIMITS.of_request())
    with pytest.raises(TooLarge, match="max_images"):
        schema.submit_many(message(one(1), one(2)), {}, {**LIMITS.of_request(), "max_images": 1})


def test_a_request_that_lacks_images_is_not_acknowledged_in_a_message_of_many() -> None:
    at = stage()
    reply = at.open("job-0001", batch(batch=2), request_id="request-0")
    at.seal(reply, (at.lease(3072)["leases"][0]["lease"], 1))
    at.happens(events.Aborted(CLIENT, reply))
    assert "all new" in at.answer(send(at, submits(batch(batch=2))))["error"]
    at.open("job-0002", batch(batch=2), request_id="request-0", client=8)
    assert code(at.answer(send(at, submits(batch(batch=2))))) == "busy"


@pytest.mark.parametrize("held", [instructions.ReserveNames, instructions.Append])
def test_a_second_seal_frees_its_slot(held: type) -> None:
    at = stage()
    at.hold = {held}
    reply = send(at, submits(batch(), ODD))
    seal(at, reply, 2)
    seal(at, reply, 2)
    at.hold = set()
    while at.held:
        i = at.held.popleft()
        if isinstance(i, instructions.ReserveNames):
            at.happens(events.NamesReserved(i.job_id, at.names(i)))
        else:
            at.happens(events.Journaled(i.job_id))
    while at.dispatched:
        at.finish()
    assert at.farm.slots.used_bytes == at.farm.slots.leased_bytes == 0
