"""When uploads start: several at a time, after pauses, one at a time while a destination fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.circuits import (
    LONGEST_WAIT_S,
    MAX_TRIES,
    OPENS_AFTER,
    OTHERS,
    Circuit,
    CircuitState,
    Upload,
    UploadState,
)

U = UploadState


def circuit(uploads: int, limit: int = 2) -> Circuit:
    made = Circuit("s3://bucket", limit)
    made.waiting.extend(
        Upload("job", n, 0, f"/spool/{n}", "s3://bucket/x/", f"{n}.png") for n in range(uploads)
    )
    return made


def take(at: Circuit, now: float) -> Upload:
    upload = at.take(now)
    assert upload is not None
    return upload


def test_so_many_at_a_time_and_no_more() -> None:
    at = circuit(3)
    first, second = take(at, 0), take(at, 0)
    assert at.take(0) is None
    assert not at.succeeded(first)
    assert take(at, 0).index == 2
    assert (first.state, second.state) == (U.SAVED, U.RUNNING)
    assert first.path == "s3://bucket/x/0.png"


def test_more_are_handed_out_ahead_until_one_fails() -> None:
    at = circuit(6, limit=2)
    at.ahead = 2
    first, second, *_ = [take(at, 0) for _ in range(4)]
    assert at.take(0) is None
    assert (at.status(0)["uploading"], at.status(0)["waiting"]) == (2, 4)
    at.succeeded(first)
    assert take(at, 0).index == 4
    at.failed(second, "reset", 0, hold=False, wait_s=0)
    assert at.take(0) is None
    assert (at.status(0)["uploading"], at.status(0)["waiting"]) == (2, 3)


def test_one_failure_waits_alone() -> None:
    at = circuit(2, limit=1)
    failing = take(at, 0)
    assert not at.failed(failing, "reset", 0, hold=False, wait_s=0)
    assert failing.again
    assert 0.25 <= failing.retry_at <= 0.75
    assert take(at, 0).index == 1, "the others go on"


def test_failures_in_a_row_open_the_circuit_and_one_probe_closes_it() -> None:
    at = circuit(OPENS_AFTER + 1, limit=8)
    running = [take(at, 0) for _ in range(OPENS_AFTER)]
    opened = [at.failed(upload, "503", 1.0, hold=False, wait_s=0) for upload in running]
    assert opened == [False] * (OPENS_AFTER - 1) + [True]
    assert at.take(1.0) is None
    assert at.status(3.0) == {
        "destination": "s3://bucket",
        "state": "failing",
        "error": "503",
        "since_s": 2.0,
        "retry_in_s": max(0.0, at.retry_at - 3.0),
        "uploading": 0,
        "waiting": OPENS_AFTER + 1,
    }
    probe = take(at, 2.0)
    assert at.take(2.0) is None, "one at a time"
    before = at.retry_at
    assert not at.failed(probe, "503", 2.0, hold=False, wait_s=0)
    assert at.retry_at > before
    other = take(at, at.retry_at)
    assert other is not probe, "they take turns"
    assert at.succeeded(other)
    assert at.status(9.0)["state"] == "ok"
    assert at.take(100.0) is not None
    assert at.take(100.0) is not None


def test_what_cannot_work_at_all_opens_at_once() -> None:
    at = circuit(2)
    assert at.failed(take(at, 0), "refused", 0, hold=True, wait_s=0)
    assert at.take(0) is None
    assert take(at, at.retry_at).state is U.RUNNING


def test_a_service_that_asks_to_wait_is_left_alone_so_long() -> None:
    at = circuit(2)
    assert at.failed(take(at, 0), "busy", 0, hold=False, wait_s=17)
    assert at.take(16.9) is None
    assert at.take(17) is not None
    patient = circuit(1)
    patient.failed(take(patient, 0), "busy", 0, hold=False, wait_s=1e9)
    assert patient.retry_at == LONGEST_WAIT_S


def test_an_upload_that_ran_when_the_circuit_opened_may_close_it() -> None:
    at = circuit(3)
    first, second = take(at, 0), take(at, 0)
    at.failed(first, "refused", 0, hold=True, wait_s=0)
    assert at.take(100) is None, "not while one still runs"
    assert at.succeeded(second)
    assert at.state is CircuitState.CLOSED


def test_failure_of_an_upload_that_ran_when_the_circuit_opened_changes_nothing() -> None:
    at = circuit(3)
    first, second = take(at, 0), take(at, 0)
    assert at.failed(first, "refused", 0, hold=True, wait_s=0)
    retry_at = at.retry_at
    assert not at.failed(second, "refused", 0.1, hold=True, wait_s=0)
    assert at.retry_at == retry_at


def test_uploader_that_ends_says_nothing_about_the_destination() -> None:
    at = circuit(1)
    upload = take(at, 0)
    at.interrupted(upload)
    assert (upload.again, upload.tries, at.failures) == (True, 0, 0)
    assert take(at, 0) is upload
    at.failed(upload, "refused", 0, hold=True, wait_s=0)
    probe = take(at, at.retry_at)
    at.interrupted(probe)
    assert at.state is CircuitState.OPEN


def test_upload_that_can_never_work_ends_and_lets_the_next_probe() -> None:
    at = circuit(2, limit=1)
    at.failed(take(at, 0), "refused", 0, hold=True, wait_s=0)
    probe = take(at, at.retry_at)
    at.refused(probe, "name too long")
    assert (probe.state, probe.error) == (U.FAILED, "name too long")
    assert at.take(1.0) is not None
    lone = circuit(1)
    lone.refused(take(lone, 0), "name")
    assert lone.state is CircuitState.CLOSED


def test_hopeless_only_while_others_get_through() -> None:
    at = circuit(1 + OTHERS, limit=1)
    bad = take(at, 0)
    now = 0.0
    for _ in range(MAX_TRIES):
        at.failed(bad, "403", now, hold=False, wait_s=0)
        at.waiting.remove(bad)
        at.waiting.appendleft(bad)
        now += 1000
        assert take(at, now) is bad
    assert not at.hopeless(bad), "perhaps it is the destination"
    at.running -= 1
    at.successes += OTHERS
    assert at.hopeless(bad)


def test_states_are_a_table() -> None:
    upload = circuit(1).waiting[0]
    with pytest.raises(AssertionError, match="cannot go from waiting to saved"):
        upload.move(U.SAVED)
    with pytest.raises(AssertionError, match="circuit s3://bucket cannot go from ok to probing"):
        circuit(1)._move(CircuitState.PROBING)


def test_what_is_told_of_an_upload() -> None:
    upload = circuit(1).waiting[0]
    assert upload.report() == {"path": "s3://bucket/x/0.png", "state": "waiting", "bytes": 0, "error": ""}
    record = {"spool": "/spool/0", "root": "s3://bucket/x/", "name": "0.png", "state": "waiting"}
    assert upload.record() == record
    upload.bytes, upload.error = 9, "e"
    assert upload.record() == record | {"bytes": 9, "error": "e"}


@given(st.lists(st.sampled_from(["ok", "retry", "hold", "wait", "gone", "fail"]), max_size=60))
def test_any_order_of_answers_ends_with_every_upload_finished(answers: list[str]) -> None:
    at = circuit(6, limit=3)
    uploads = list(at.waiting)
    now, running = 0.0, []
    for answer in [*answers, *["ok"] * 12]:
        now += 2000.0
        while (upload := at.take(now)) is not None:
            running.append(upload)
        assert len(running) == at.running <= 3
        if not running:
            break
        done = running.pop(0)
        if answer == "ok":
            at.succeeded(done)
        elif answer == "gone":
            at.interrupted(done)
        elif answer == "fail":
            at.refused(done, "never")
        else:
            at.failed(done, answer, now, hold=answer == "hold", wait_s=5.0 * (answer == "wait"))
    assert all(upload.state in (U.SAVED, U.FAILED) for upload in uploads)
