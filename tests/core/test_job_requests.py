"""Commands on one image, and giving up what failed: what moves, what is kept, what is refused."""

from __future__ import annotations

import pytest
from stage import CLIENT, Stage, batch, code

from luna_farm.core import events, instructions, recovery
from luna_farm.core.limits import DestinationLimits
from luna_farm.core.messages import ImageResult
from luna_farm.locations import parse

URL = "s3://bucket/shots"
STORE = DestinationLimits("store", parse("url", "s3://bucket"), uploads=2, timeout_s=5.0)
BIG = batch(height=512, width=256)


def failed(stage: Stage, *, images: int = 1) -> None:
    """A job whose images all failed."""
    stage.workers()
    stage.submit("job-0001", *[batch()] * images)
    for _ in range(images):
        stage.finish(state="failed", code="encode", error="no")


def test_one_image_of_a_job_is_cancelled() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.pause()
    stage.submit("job-0001", BIG, BIG, BIG)
    report = stage.ask("cancel", "job-0001", index=2)
    assert report is not None
    assert [image["state"] for image in report["images"]] == ["queued", "queued", "cancelled"]
    stage.pause(False)
    refused = stage.ask("cancel", "job-0001", index=0)
    assert refused is not None
    assert refused["error"] == "Image 0 of job job-0001 is running: it cannot be cancelled any more."
    assert code(refused) == "not_possible"


def test_one_failed_image_of_a_job_is_tried_again() -> None:
    stage = Stage()
    failed(stage, images=2)
    stage.ask("retry", "job-0001", index=1)
    assert stage.states("job-0001") == ["failed", "running"]
    assert stage.farm.totals["images_failed"] == 1
    refused = stage.ask("retry", "job-0001", index=1)
    assert refused is not None
    assert refused["error"] == "Image 1 of job job-0001 is running: it has not failed."


@pytest.mark.parametrize("command", ["cancel", "retry", "dismiss"])
def test_an_image_that_the_job_does_not_have_is_refused(command: events.JobCommand) -> None:
    stage = Stage()
    failed(stage)
    refused = stage.ask(command, "job-0001", index=1)
    assert code(refused) == "invalid"
    assert refused is not None
    assert refused["details"]["field"] == "index"


def test_a_dismissed_image_is_cancelled_its_dead_letter_removed_and_its_reason_kept() -> None:
    stage = Stage()
    failed(stage, images=2)
    done = stage.happens(events.JobRequested(CLIENT, 99, "dismiss", "job-0001", index=0))
    kinds = [type(instruction) for instruction in done]
    assert instructions.Forget("npy:/dead/job-0001-0.npy") in done
    assert kinds.index(instructions.Append) < kinds.index(instructions.Forget), (
        "a crash between costs nothing"
    )
    assert stage.states("job-0001") == ["cancelled", "failed"]
    report = stage.answer(99)
    assert (report["state"], report["images"][0]["error"]) == ("failed", "no")
    assert [letter["index"] for letter in stage.status()["dead_letters"]] == [1]
    assert stage.farm.totals["images_failed"] == 1
    stage.ask("dismiss", "job-0001")
    assert [event["index"] for event in stage.told("image_dismissed")] == [0, 1]
    assert stage.farm.jobs["job-0001"].state == "cancelled"
    assert stage.told("save_job_done")[-1]["state"] == "cancelled"
    assert stage.farm.segment_users.total() == 0
    assert code(stage.ask("dismiss", "job-0001")) == "not_possible"


def test_what_was_never_handed_over_cannot_be_tried_again_but_dismissed() -> None:
    stage = Stage()
    reply = stage.open("job-0001", batch(batch=3))
    stage.seal(reply, (stage.lease(3072)["leases"][0]["lease"], 1))
    stage.happens(events.ClientGone(CLIENT, False))
    stage.workers()
    stage.finish()
    refused = stage.ask("retry", "job-0001")
    assert refused is not None
    assert "2 images never handed over, so the farm has no pixels" in refused["error"]
    assert "luna-farm dismiss job-0001" in refused["error"]
    refused = stage.ask("retry", "job-0001", index=0)
    assert refused is not None
    assert "Image 0 of job job-0001 is saved: it has not failed." in refused["error"]
    stage.ask("dismiss", "job-0001")
    assert stage.states("job-0001") == ["saved", "cancelled", "cancelled"]
    assert (stage.status()["totals"]["images_failed"], stage.status()["incomplete_jobs"]) == (0, [])
    assert stage.catalogue[-2:] == [instructions.Uncatalogue("job-0001", n) for n in (1, 2)]


def test_a_dismissed_image_stays_dismissed_after_a_restart() -> None:
    stage = Stage()
    failed(stage)
    stage.ask("dismiss", "job-0001")
    recovered = recovery.read(stage.journal, stage.reports)
    assert [image.state.value for image in recovered.jobs["job-0001"].images] == ["cancelled"]


def uploaded(stage: Stage, *roots: str) -> None:
    """An image whose first upload fails for good while the others are stored."""
    targets = tuple({"spool": f"/spool/{n}", "root": root, "name": "a.png"} for n, root in enumerate(roots))
    stage.workers()
    d = stage.dispatched.popleft()
    path = "" if d.task.root.startswith("s3:") else d.task.path
    result = ImageResult("saved", path=path, bytes=10, uploads=targets, spool_bytes=10)
    stage.happens(events.ImageFinished(d.worker, d.task.job_id, d.task.index, result))
    while stage.uploads:
        i = stage.uploads.popleft()
        error = "name too long" if i.number == 0 else ""
        decision = "fail" if error else ""
        finished = events.UploadFinished(i.job_id, i.index, i.number, i.name, 10, error, decision)
        stage.happens(finished)


def test_an_image_whose_destination_is_given_up_is_cancelled() -> None:
    stage = Stage(destinations=(STORE,))
    stage.submit("job-0001", output_dir=URL, mirrors=("/mnt/nas",))
    uploaded(stage, URL, "/mnt/nas")
    assert stage.states("job-0001") == ["failed"]
    stage.ask("dismiss", "job-0001")
    assert stage.states("job-0001") == ["cancelled"]
    assert stage.removed == ["/spool/0", "/spool/1"]
    assert stage.farm.spool_used_bytes == 0


def test_an_image_that_only_lacks_a_copy_is_saved_without_it() -> None:
    stage = Stage(destinations=(STORE,))
    stage.submit("job-0001", mirrors=("/mnt/nas",))
    uploaded(stage, "/mnt/nas")
    assert stage.states("job-0001") == ["failed"]
    report = stage.ask("dismiss", "job-0001")
    assert report is not None
    (image,) = report["images"]
    assert (report["state"], image["state"], image["error"]) == ("done", "saved", "")
    assert image["warnings"] == ["Its copy at /mnt/nas/a.png was given up: name too long"]
    assert stage.farm.totals["images_saved"] == 1
    assert stage.told("image_saved")[0]["path"].endswith(".png")
    assert stage.farm.spool_used_bytes == 0
