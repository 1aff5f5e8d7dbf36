"""When the catalogue is told of an image: once it is finished, after the journal."""

from __future__ import annotations

from stage import Disk, Stage, batch

from luna_farm.core import events, recovery
from luna_farm.core.instructions import Append, Catalogue, CatalogueFailed, Uncatalogue
from luna_farm.core.limits import DestinationLimits
from luna_farm.locations import parse

URL = "s3://bucket/shots"
STORE = DestinationLimits("store", parse("url", "s3://bucket"), 2, 7.0)


def spool_first(stage: Stage, *roots: str) -> None:
    """The image dispatched first lies in the spool, with its row."""
    targets = tuple({"spool": "/spool/0", "root": root, "name": "a.png"} for root in roots)
    stage.finish(uploads=targets, spool_bytes=10, row=b"row")


def upload_first(stage: Stage, **given: object) -> None:
    i = stage.uploads.popleft()
    known = {"name": "b.png", "bytes": 10, **given}
    stage.happens(events.UploadFinished(i.job_id, i.index, i.number, **known))  # type: ignore[arg-type]


def test_a_saved_image_comes_after_its_record_and_its_row_is_not_kept() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    done = stage.finish(row=b"row", scores={"blank": True})
    kinds = [type(i) for i in done]
    assert kinds.index(Append) < kinds.index(Catalogue)
    assert stage.catalogue == [Catalogue(b"row")]
    assert "row" not in stage.journal[-1]["result"]
    assert stage.journal[-1]["result"]["scores"] == {"blank": True}
    assert stage.told("image_saved")[0]["scores"] == {"blank": True}
    assert stage.farm.jobs["job-0001"].report()["images"][0]["scores"] == {"blank": True}


def test_without_a_catalogue_there_are_no_rows() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001")
    stage.finish()
    assert stage.catalogue == []


def test_an_image_that_goes_further_comes_once_every_destination_has_it() -> None:
    stage = Stage(destinations=(STORE,))
    stage.workers()
    stage.submit("job-0001", output_dir=URL, mirrors=("/mnt/nas",))
    spool_first(stage, URL, "/mnt/nas")
    upload_first(stage)
    assert stage.catalogue == []
    upload_first(stage)
    assert stage.catalogue == [Catalogue(b"row", f"{URL}/b.png")]
    assert stage.farm.jobs["job-0001"].images[0].result.row == b""


def test_the_row_of_an_upload_survives_a_restart() -> None:
    stage = Stage(destinations=(STORE,))
    stage.workers()
    stage.submit("job-0001", output_dir=URL)
    spool_first(stage, URL)
    after = stage.restarted(Disk(), destinations=(STORE,))
    after.tick()
    upload_first(after)
    assert after.catalogue == [Catalogue(b"row", f"{URL}/b.png")]


def test_an_image_that_failed_and_was_dismissed_leaves() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", filename="night")
    stage.finish(state="failed", code="encode", error="no")
    (failed,) = stage.catalogue
    assert isinstance(failed, CatalogueFailed)
    assert (failed.error, failed.options.filename, failed.task.index) == ("no", "night", 0)
    stage.ask("dismiss", "job-0001")
    assert stage.catalogue[1:] == [Uncatalogue("job-0001", 0)]


def test_an_upload_that_failed_comes_as_failed() -> None:
    stage = Stage(destinations=(STORE,))
    stage.workers()
    stage.submit("job-0001", output_dir=URL)
    spool_first(stage, URL)
    upload_first(stage, error="no such bucket", decision="fail")
    (failed,) = stage.catalogue
    assert isinstance(failed, CatalogueFailed)
    assert failed.error == "no such bucket"


def test_what_a_start_knows_of_finished_images() -> None:
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", batch(affix="A"), batch(affix="B"), batch(affix="C"))
    stage.finish(row=b"row", score=0.5, threshold=0.25, scores={"variance": 0.5, "phash": "00ff"})
    stage.finish(state="dropped", path="")
    after = stage.restarted()
    (row,) = recovery.catalogue_rows(after.farm.jobs.values())
    assert row["path"] == "/out/a_A_00001.png"
    assert (row["job_id"], row["index"], row["state"]) == ("job-0001", 0, "saved")
    assert (row["gate_score"], row["gate_threshold"], row["variance"], row["phash"]) == (
        0.5,
        0.25,
        0.5,
        "00ff",
    )
    assert row["timestamp"] == "2026-01-02T03:04:05"
