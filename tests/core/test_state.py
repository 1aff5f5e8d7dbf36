"""What the farm tells of itself."""

from __future__ import annotations

import pytest
from stage import Stage, batch

from luna_farm.core import events
from luna_farm.core.circuits import Upload, UploadState
from luna_farm.core.limits import Limits
from luna_farm.core.state import folder_of, left_places


def test_a_new_farm_is_empty_and_not_ready() -> None:
    status = Stage().status()
    assert status == {
        "queue": {"jobs": 0, "images": 0, "bytes": 0},
        "arena": {"bytes": 4 << 20, "reserved_bytes": 4 << 20, "used_bytes": 0},
        "totals": {
            "jobs": 0,
            "images_saved": 0,
            "images_discarded": 0,
            "images_failed": 0,
            "bytes_written": 0,
        },
        "ready": False,
        "draining": False,
        "encoders": {},
        "upload_spool": {"bytes": 2**32, "used_bytes": 0},
        "uploader": {"pid": 0},
        "destinations": [],
        "dead_letters": [],
        "incomplete_jobs": [],
        "archives": [],
        "open_jobs": [],
        "paused": False,
        "engines": [{"engine": "local", "state": "ok", "error": "", "since_s": 0.0}],
        "nodes": [],
    }


def test_the_queue_counts_what_is_accepted_and_not_what_is_only_leased() -> None:
    stage = Stage(max_workers=1)
    stage.workers()
    stage.lease(4096)
    stage.submit("job-0001", *[batch()] * 4)
    status = stage.status()
    assert status["queue"] == {"jobs": 1, "images": 4, "bytes": 4 * 3072}
    assert status["arena"]["used_bytes"] == 5 * 4096
    assert status["ready"]
    stage.happens(events.DrainRequested())
    assert stage.status()["draining"]


def test_a_job_that_is_not_kept_has_no_images() -> None:
    assert Stage().farm.image("job-9999", 0) is None


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/out/shots/a.png", "/out/shots"),
        ("/a.png", "/"),
        ("C:\\out\\a.png", "C:\\out"),
        ("C:\\out/x\\a.png", "C:\\out/x"),
    ],
)
def test_the_folder_of_a_path_of_any_platform(path: str, folder: str) -> None:
    stage = Stage()
    stage.submit("job-0001")
    image = stage.farm.jobs["job-0001"].images[0]
    image.task = type(image.task).from_map({**image.task.to_map(), "path": path})
    assert folder_of(image) == folder


def test_what_a_stop_leaves_is_for_the_places_that_wait() -> None:
    stage = Stage()
    stage.submit("job-0001")
    image = stage.farm.jobs["job-0001"].images[0]
    assert left_places(image) == [folder_of(image)]
    image.uploads = [
        Upload("job-0001", 0, n, "/spool/a", root, "a.png") for n, root in enumerate(("/nas", "s3://b"))
    ]
    image.uploads[0].state = UploadState.SAVED
    assert left_places(image) == ["s3://b"]


def test_a_request_is_judged_by_the_bounds_of_the_farm() -> None:
    assert Limits(5, max_images=6, max_pixels=7).of_request() == {
        "max_images": 6,
        "max_pixels": 7,
        "arena_bytes": 5,
    }
