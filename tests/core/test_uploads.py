"""Images that go further than the local disk: from the spool to every destination, and what may go wrong."""

from __future__ import annotations

from typing import Any

import pytest
from stage import Disk, Stage, batch, code

from luna_farm.core import events, schema
from luna_farm.core.circuits import MAX_TRIES, OTHERS, UPLOADS, mount_at
from luna_farm.core.destinations import KEPT
from luna_farm.core.limits import DestinationLimits
from luna_farm.core.messages import ImageResult
from luna_farm.errors import InvalidRequest
from luna_farm.locations import parse

URL = "s3://bucket/shots"
STORE = DestinationLimits("store", parse("url", "s3://bucket"), 2, 7.0)


def stage(**changes: Any) -> Stage:
    made = Stage(destinations=(STORE,), **changes)
    made.workers()
    return made


def spooled(at: Stage, *roots: str, size: int = 10, **result: Any) -> None:
    """The image dispatched first lies in the spool, to go to `roots`."""
    task = at.dispatched[0].task
    name = task.path[len(task.root) + 1 :]
    spool = f"/spool/{task.job_id}-{task.index}"
    uploads = tuple({"spool": spool, "root": root, "name": name} for root in roots or (URL,))
    at.finish(**{"uploads": uploads, "spool_bytes": size, **result})


def answer(at: Stage, **given: Any) -> None:
    """The upload started first has ended: stored, or as given."""
    i = at.uploads.popleft()
    stored = {"name": i.name, "bytes": 10} if not given.get("error") and "decision" not in given else {}
    at.happens(events.UploadFinished(i.job_id, i.index, i.number, **{**stored, **given}))


def test_pixels_are_free_once_the_file_is_spooled_and_the_image_saved_once_it_is_confirmed() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    assert at.states("job-0001") == ["uploading"]
    assert at.farm.slots.used_bytes == 0
    assert at.farm.spool_used_bytes == 10
    assert at.journal[-1]["state"] == "uploading"
    assert at.journal[-1]["uploads"][0]["root"] == URL
    (started,) = at.uploads
    assert (started.again, started.bytes, started.timeout_s) == (False, 10, 7.0)
    assert at.told("image_uploading")
    assert not at.told("image_saved")
    report = at.farm.jobs["job-0001"].report()
    assert (report["state"], report["images"][0]["outputs"][0]["state"]) == ("running", "uploading")
    answer(at)
    assert at.states("job-0001") == ["saved"]
    assert at.removed == ["/spool/job-0001-0"]
    assert at.farm.spool_used_bytes == 0
    assert at.told("image_saved")[0]["path"].startswith(URL)
    assert at.farm.totals["images_saved"] == 1
    assert at.farm.taken == set()
    status = at.status()
    assert status["destinations"][0]["destination"] == "store"
    assert status["upload_spool"] == {"bytes": 2**32, "used_bytes": 0}


def sent(at: Stage, *, size: int = 7) -> None:
    """The worker of the image dispatched first has sent its file to its destination."""
    task = at.dispatched[0].task
    target = {"spool": "", "root": task.root, "name": task.path[len(task.root) + 1 :], "bytes": size}
    at.finish(path=task.path, bytes=size, uploads=(target,), row=b"row")


def test_what_a_worker_has_sent_is_saved_at_once() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    path = at.dispatched[0].task.path
    sent(at)
    assert at.states("job-0001") == ["saved"]
    assert (list(at.uploads), at.removed, at.farm.slots.used_bytes, at.farm.taken) == ([], [], 0, set())
    (image,) = at.farm.jobs["job-0001"].report()["images"]
    assert image["outputs"] == [{"path": path, "state": "saved", "bytes": 7, "error": ""}]
    assert (at.told("image_uploading"), at.told("image_saved")[0]["path"]) == ([], path)
    assert at.status()["destinations"][0]["state"] == "ok"
    assert at.farm.totals["images_saved"] == 1


def test_an_upload_whose_worker_may_have_sent_it_looks_for_it_first() -> None:
    """A worker that was lost may have stored the file before: the next attempt is spooled, and is no first
    try."""
    at = stage()
    at.submit("job-0001", output_dir=URL)
    lost = at.dispatched.popleft()
    at.happens(events.WorkerGone(lost.worker, "killed", (), blameless=True))
    at.workers()
    assert at.dispatched[0].task.recovered
    spooled(at)
    assert at.uploads[0].again


def test_a_name_that_was_taken_there_is_told() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    answer(at, name="a_RAW_00009.png")
    image = at.farm.jobs["job-0001"].images[0]
    assert image.report()["path"] == f"{URL}/a_RAW_00009.png"
    assert "store already" in image.result.warnings[0]


def test_every_place_has_a_state_of_its_own_and_the_job_ends_with_the_last() -> None:
    at = stage()
    at.submit("job-0001", mirrors=(URL, "/mnt/nas", "sftp://nas/x"))
    spooled(at, URL, "/mnt/nas", "sftp://nas/x")
    assert len(at.uploads) == 3
    answer(at)
    outputs = at.farm.jobs["job-0001"].report()["images"][0]["outputs"]
    assert [output["state"] for output in outputs] == ["saved", "saved", "uploading", "uploading"]
    assert outputs[0]["path"].startswith("/out/")
    answer(at)
    assert at.states("job-0001") == ["uploading"]
    answer(at)
    assert at.states("job-0001") == ["saved"]
    assert at.farm.jobs["job-0001"].images[0].result.path.startswith("/out/")
    assert {row["destination"] for row in at.status()["destinations"]} == {
        "store",
        "/mnt/nas",
        "sftp://nas",
    }


def test_each_copy_belongs_on_the_disk_that_its_mirror_is_on_also_after_a_restart() -> None:
    at = stage()
    at.disks = ("/mnt/nas", "/mnt/usb")
    at.submit("job-0001", output_dir="/mnt/usb/out", mirrors=(URL, "/mnt/nas/a", "/home/a"))
    assert at.dispatched[0].task.mount == "/mnt/usb"
    spooled(at, URL, "/mnt/nas/a", "/home/a")
    assert [upload.mount for upload in at.uploads] == ["", "/mnt/nas", ""]
    after = at.restarted()
    after.workers()
    assert [upload.mount for upload in after.uploads] == ["", "/mnt/nas", ""]


@pytest.mark.parametrize(
    ("name", "mount"),
    [
        ("a.png", "/mnt/nas"),
        ("usb/a.png", "/mnt/nas/m/usb"),
        ("usb/deep/a.png", "/mnt/nas/m/usb"),
        ("usb2/a.png", "/mnt/nas"),
        ("here/a.png", ""),
    ],
)
def test_a_file_belongs_on_the_nearest_disk_above_it(name: str, mount: str) -> None:
    disks = {"/mnt/nas/m": "/mnt/nas", "/mnt/nas/m/usb": "/mnt/nas/m/usb", "/mnt/nas/m/here": ""}
    assert mount_at(disks, "/mnt/nas/m", name) == mount
    assert mount_at(disks, "/home", name) == ""


def test_a_destination_that_fails_is_told_once_and_everything_is_sent_when_it_works() -> None:
    at = stage()
    at.submit("job-0000", output_dir=URL)
    spooled(at)
    answer(at, error="refused", decision="hold")
    for n in (1, 2):
        at.submit(f"job-000{n}", output_dir=URL)
        spooled(at)
    assert not at.uploads
    assert len(at.told("destination_failing")) == 1
    assert not at.uploads
    at.farm.draining = True
    assert at.farm.drained, "a stop does not wait for it: the next start goes on"
    at.farm.draining = False
    for _ in range(20):
        at.tick(10)
        while at.uploads:
            answer(at)
    assert len(at.told("destination_recovered")) == 1
    assert at.states("job-0000") + at.states("job-0001") + at.states("job-0002") == ["saved"] * 3


def test_uploads_are_ordered_ahead_so_that_the_uploader_waits_for_no_answer() -> None:
    at = stage(max_jobs=100)
    for n in range(10):
        at.submit(f"job-000{n}", output_dir=URL)
        spooled(at)
    assert len(at.uploads) == 2 * STORE.uploads
    (row,) = at.status()["destinations"]
    assert (row["uploading"], row["waiting"]) == (STORE.uploads, 10 - STORE.uploads)
    assert {i.place for i in at.uploads} == {"store"}
    answer(at, error="reset", decision="retry")
    answer(at, error="reset", decision="retry")
    assert len(at.uploads) == STORE.uploads, "only so many at a time may fail"


def test_places_that_are_done_with_are_forgotten() -> None:
    at = stage(max_jobs=1000)
    for n in range(2 * KEPT):
        at.submit(f"job-{n:04d}", output_dir=URL if n in (0, 1) else f"s3://bucket-{n}/x")
        spooled(at, URL if n in (0, 1) else f"s3://bucket-{n}/x")
        if n == 1:
            answer(at, error="refused", decision="hold")
        else:
            answer(at)
    places = {row["destination"] for row in at.status()["destinations"]}
    assert len(places) <= KEPT
    assert "store" in places, "what fails, and what is configured, stays"


def test_a_stop_waits_for_uploads_that_run() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    at.farm.draining = True
    assert not at.farm.drained
    answer(at)
    assert at.farm.drained


def test_an_uploader_that_ends_costs_nothing() -> None:
    at = stage()
    at.happens(events.UploaderReady(77, 5.0))
    assert at.journal[-1] == {"r": "worker", "pid": 77, "created": 5.0}
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    answer(at, decision="interrupted")
    assert at.uploads[0].again
    answer(at)
    assert at.states("job-0001") == ["saved"]


def test_an_upload_that_can_never_work_fails_and_may_be_tried_again() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL, mirrors=("/mnt/nas",))
    spooled(at, URL, "/mnt/nas")
    answer(at, error="name too long", decision="fail")
    assert at.states("job-0001") == ["uploading"], "the other one still runs"
    answer(at)
    assert at.states("job-0001") == ["failed"]
    assert at.told("image_failed")[0]["error"] == "name too long"
    assert (at.removed, at.farm.spool_used_bytes) == ([], 10)
    at.ask("retry", "job-0001")
    assert [i.root for i in at.uploads] == [URL], "what is stored is not sent again"
    answer(at)
    assert at.states("job-0001") == ["saved"]


def test_an_upload_that_fails_while_others_get_through_is_given_up() -> None:
    at = stage(max_jobs=100)
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    for n in range(MAX_TRIES + 1):
        answer(at, error="403", decision="retry")
        if n < OTHERS:
            at.submit(f"job-1{n:03d}", output_dir=URL)
            spooled(at)
            while at.uploads[0].job_id == "job-0001":
                at.uploads.rotate(1)
            answer(at)
        while not at.uploads and at.states("job-0001") == ["uploading"]:
            at.tick(60)
    assert at.states("job-0001") == ["failed"]


def test_a_job_for_a_wrong_destination_can_be_cancelled() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    answer(at, error="s3://bucket has no such bucket", decision="hold")
    at.ask("cancel", "job-0001")
    assert at.states("job-0001") == ["cancelled"]
    assert (at.removed, at.farm.spool_used_bytes, at.farm.taken) == (["/spool/job-0001-0"], 0, set())
    assert at.journal[-1]["state"] == "cancelled"
    assert at.status()["destinations"][0]["state"] == "ok", "nothing waits for it"
    at.tick(100)
    assert not at.uploads
    assert code(at.ask("cancel", "job-0001")) == "not_possible"


@pytest.mark.parametrize("end", [{}, {"error": "reset", "decision": "retry"}, {"decision": "interrupted"}])
def test_an_upload_that_runs_is_tried_no_more_once_its_job_is_cancelled(end: dict[str, str]) -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    at.ask("cancel", "job-0001")
    assert at.states("job-0001") == ["uploading"]
    assert at.journal[-1]["uploads"][0]["given_up"]
    answer(at, **end)
    assert at.states("job-0001") == ["cancelled" if end else "saved"]
    assert at.farm.spool_used_bytes == 0
    assert not at.farm.open_jobs


def test_cancelling_gives_up_the_copies_of_an_image_that_is_saved() -> None:
    at = stage()
    at.submit("job-0001", mirrors=(URL, "/mnt/nas"))
    spooled(at, URL, "/mnt/nas")
    answer(at, error="no such bucket", decision="retry")
    answer(at)
    at.ask("cancel", "job-0001")
    (image,) = at.farm.jobs["job-0001"].report()["images"]
    assert image["state"] == "saved"
    assert "no such bucket" in image["warnings"][0]
    assert [output["state"] for output in image["outputs"]] == ["saved", "failed", "saved"]


def test_a_restart_knows_that_a_job_was_cancelled() -> None:
    before = stage()
    before.submit("job-0001", output_dir=URL)
    spooled(before)
    before.ask("cancel", "job-0001")
    after = before.restarted(destinations=(STORE,))
    after.workers()
    answer(after, error="reset", decision="retry")
    assert after.states("job-0001") == ["cancelled"]


def test_a_full_spool_refuses_requests_and_holds_images() -> None:
    at = Stage(destinations=(STORE,), spool_bytes=3000)
    at.submit("job-0001", output_dir=URL)
    at.submit("job-0002", output_dir=URL)
    at.workers()
    assert len(at.dispatched) == 1, "its pixels alone may fill the spool"
    refused = at.answer(at.submit("job-0003", output_dir=URL))
    assert code(refused) == "busy"
    assert "spool_bytes" in refused["error"]
    spooled(at, size=4000)
    assert not at.dispatched
    refused = at.answer(at.submit("job-0004", output_dir=URL))
    assert "store" in refused["error"]
    assert "0.50 s" in refused["error"]
    at.submit("job-0005")
    at.finish()
    assert at.states("job-0005") == ["saved"], "local folders are not affected"
    answer(at)
    spooled(at)
    assert at.states("job-0002") == ["uploading"]


def test_a_spool_that_is_full_because_its_destination_fails_says_why() -> None:
    at = Stage(destinations=(STORE,), spool_bytes=3000)
    at.workers()
    at.submit("job-0001", output_dir=URL)
    spooled(at, size=4000)
    answer(at, error="s3://bucket refuses connections. Is it running?", decision="hold")
    refused = at.answer(at.submit("job-0002", output_dir=URL))
    assert code(refused) == "busy"
    assert "s3://bucket refuses connections. Is it running?" in refused["error"]


def test_an_image_that_waits_for_room_in_the_spool_can_be_cancelled() -> None:
    at = Stage(destinations=(STORE,), spool_bytes=3000)
    at.submit("job-0001", output_dir=URL)
    at.submit("job-0002", output_dir=URL)
    at.workers()
    at.ask("cancel", "job-0002")
    assert at.states("job-0002") == ["cancelled"]
    assert not at.farm.spool_queue


def test_only_listed_destinations_count_where_folders_are_limited() -> None:
    at = stage(only_destinations=True)
    for fields in ({"output_dir": "s3://other/x"}, {"mirrors": ("gs://bucket",)}):
        refused = at.answer(at.submit("job-0001", **fields))
        assert code(refused) == "invalid"
        assert "s3://bucket" in refused["error"]
    assert at.answer(at.submit("job-0002", output_dir=URL))["success"]
    bare = Stage(only_destinations=True)
    assert "there is none" in bare.answer(bare.submit("job-0001", output_dir=URL))["error"]


@pytest.mark.parametrize("mirrors", [("/out",), ("/out/",), ("/a", "/a"), (URL, URL + "/")])
def test_a_place_gets_one_copy(mirrors: tuple[str, ...]) -> None:
    at = stage()
    refused = at.answer(at.submit("job-0001", mirrors=mirrors))
    assert (code(refused), "differ from one another" in refused["error"]) == ("invalid", True)


@pytest.mark.parametrize("fields", [{"output_dir": URL}, {"mirrors": (URL,)}])
def test_nothing_is_replaced_beyond_the_local_disk(fields: dict[str, Any]) -> None:
    at = stage()
    refused = at.answer(at.submit("job-0001", if_exists="overwrite", **fields))
    assert code(refused) == "invalid"
    assert "if_exists" in refused["error"]


def test_a_restart_goes_on_with_what_is_in_the_spool() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL, mirrors=("/mnt/nas",))
    spooled(at, URL, "/mnt/nas")
    at.submit("job-0002", output_dir=URL)
    spooled(at)
    answer(at, bytes=10, name="other.png")
    after = at.restarted(destinations=(STORE,))
    assert after.states("job-0001") == ["uploading"]
    assert after.farm.spool_used_bytes == 20
    after.workers()
    started = {(i.job_id, i.root): i.again for i in after.uploads}
    assert started == {("job-0001", "/mnt/nas"): True, ("job-0002", URL): True}
    while after.uploads:
        answer(after)
    assert after.states("job-0001") + after.states("job-0002") == ["saved"] * 2
    assert after.farm.jobs["job-0001"].images[0].result.path == f"{URL}/other.png"
    assert after.restarted().states("job-0001") == ["saved"]


def test_a_spooled_file_that_is_gone_is_reported_as_lost() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    after = at.restarted(Disk(gone=frozenset({"/spool/job-0001-0"})))
    assert after.states("job-0001") == ["lost"]
    assert "/spool/job-0001-0" in after.told("job_lost")[0]["error"]


def test_a_crash_between_the_last_answer_and_its_record_loses_nothing() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    at.journal[-1]["uploads"][0]["state"] = "saved"
    after = at.restarted()
    assert after.states("job-0001") == ["saved"]


def test_a_spooled_file_whose_result_was_not_journaled_is_taken_up() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    uploads = ({"spool": "/spool/job-0001-0", "root": URL, "name": "a.png"},)
    made = ImageResult("saved", path=f"{URL}/a.png", bytes=10, uploads=uploads, spool_bytes=10)
    after = at.restarted(Disk(pixels=False, made={("job-0001", 0): made}))
    assert after.states("job-0001") == ["uploading"]
    after.workers()
    answer(after)
    assert after.states("job-0001") == ["saved"]


def test_a_failed_upload_is_kept_over_a_restart() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at)
    answer(at, error="never", decision="fail")
    after = at.restarted()
    assert after.states("job-0001") == ["failed"]
    assert after.farm.spool_used_bytes == 10
    after.ask("retry", "job-0001")
    answer(after)
    assert after.states("job-0001") == ["saved"]


def test_a_destination_that_is_not_configured_has_the_usual_bounds() -> None:
    at = Stage()
    at.workers()
    at.submit("job-0001", output_dir="gs://other/x")
    spooled(at, "gs://other/x")
    assert at.uploads[0].timeout_s == 0.0
    (circuit,) = at.farm.circuits.values()
    assert (circuit.place, circuit.limit) == ("gs://other", UPLOADS)


def test_a_place_that_is_not_allowed_any_more_stops_no_start() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL)
    spooled(at, "ftp://nas:70000/x")  # as an older version accepted it
    after = at.restarted(destinations=(STORE,))
    after.workers()
    (started,) = after.uploads
    assert started.root == "ftp://nas:70000/x"
    answer(after, error="a port from 1 to 65535", decision="fail")
    assert after.states("job-0001") == ["failed"]


def test_the_uploader_is_fenced_off_as_workers_are() -> None:
    at = stage()
    at.happens(events.UploaderReady(77, 5.0))
    at.farm.uploader = (77, 5.0)
    from luna_farm.core import recovery

    assert (77, 5.0) in recovery.read(recovery.snapshot(at.farm)).workers
    assert at.status()["uploader"] == {"pid": 77}


@pytest.mark.parametrize("state", ["saved", "discarded"])
def test_rejected_images_go_there_as_well(state: str) -> None:
    at = stage()
    at.submit("job-0001", batch(), output_dir=URL)
    spooled(at, state=state)
    answer(at)
    assert at.states("job-0001") == [state]
    assert at.farm.totals["images_discarded"] == (state == "discarded")


def test_a_restart_sends_only_what_did_not_fail_for_good() -> None:
    at = stage()
    at.submit("job-0001", output_dir=URL, mirrors=("/mnt/nas",))
    spooled(at, URL, "/mnt/nas")
    answer(at, error="never", decision="fail")
    after = at.restarted()
    after.workers()
    assert [i.root for i in after.uploads] == ["/mnt/nas"]
    answer(after)
    assert after.states("job-0001") == ["failed"]


def test_places_are_urls_or_absolute_folders() -> None:
    assert schema.place({"output_dir": "S3://bucket/x/"}, "output_dir") == "s3://bucket/x"
    assert schema.mirrors({"mirrors": ["/mnt/nas", "s3://b"]}) == ("/mnt/nas", "s3://b")
    for wrong in ("/mnt", ["/mnt"] * 9, ["relative"], [3]):
        with pytest.raises(InvalidRequest, match="mirrors"):
            schema.mirrors({"mirrors": wrong})
