"""One image, one path: through a farm, or here when there is none."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess
from PIL import Image

import luna_farm
from luna_farm.errors import DiskError, EncodeError, InvalidRequest, NotInTime, NotPossible
from luna_farm_client import AsyncFarmClient, FarmClient, policy
from luna_farm_client.requests import request_for

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


@pytest.fixture
def no_farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which no farm runs: an unused port, an empty state folder."""
    monkeypatch.setenv("LUNA_FARM_PORT", "9")
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(tmp_path / "state"))


def test_through_a_farm(shared_farm: FarmProcess, tmp_path: Path) -> None:
    with shared_farm.client() as farm:
        path = farm.save(PIXELS, tmp_path / "new" / "x.png", png_compression=9)
        assert path == str(tmp_path / "new" / "x.png")
        assert farm.save(PIXELS, tmp_path / "new" / "x.png") == str(tmp_path / "new" / "x_00001.png")
    assert np.array_equal(np.asarray(Image.open(path)), PIXELS)


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: /proc is a folder that takes no file")
def test_a_folder_that_cannot_be_written_raises_and_the_farm_keeps_the_image(
    shared_farm: FarmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "HELD_S", 0.0)
    monkeypatch.setattr(policy, "HELD_STEP_S", 0.05)
    with shared_farm.client() as farm:
        with pytest.raises(DiskError, match=r"Cannot write /proc/nope/x[.]png: No such file") as refused:
            farm.save(PIXELS, "/proc/nope/x.png")
        job = farm.jobs(limit=1)[0]
        assert f"The farm keeps the image and goes on trying, as job {job.job_id};" in str(refused.value)
        assert not job.finished
        farm.cancel(job)


@pytest.fixture
def paused(shared_farm: FarmProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarmClient]:
    """A client of a farm that is paused."""
    monkeypatch.setattr(policy, "HELD_STEP_S", 0.05)
    with shared_farm.client() as farm:
        farm.pause()
        try:
            yield farm
        finally:
            farm.resume()


def test_a_paused_farm_keeps_the_image_and_no_caller(
    paused: FarmClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(policy, "HELD_S", 0.2)
    with pytest.raises(NotPossible, match=r"is paused: 1 image in its queue until `luna-farm resume") as told:
        paused.save(PIXELS, tmp_path / "x.png")
    job = paused.jobs(limit=1)[0]
    assert re.search(f"as job {job.job_id}; `luna-farm cancel .*{job.job_id}` gives it up", str(told.value))
    (warning,) = caplog.messages
    assert warning.startswith(f"Job {job.job_id} waits: The farm is paused")
    paused.resume()
    assert paused.wait(job, 60).paths == (str(tmp_path / "x.png"),)


def test_a_time_limit_ends_the_wait_and_not_the_job(paused: FarmClient, tmp_path: Path) -> None:
    with pytest.raises(NotInTime, match=r"x.png is not saved after 0.2 s. The farm is paused") as told:
        paused.save(PIXELS, tmp_path / "x.png", timeout=0.2)
    assert isinstance(told.value, TimeoutError)
    paused.resume()
    assert paused.wait(told.value.job_id, 60).paths == (str(tmp_path / "x.png"),)


def test_the_one_line_has_a_time_limit_too(
    paused: FarmClient, shared_farm: FarmProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(shared_farm.state))
    monkeypatch.setenv("LUNA_FARM_PORT", str(shared_farm.port))
    with pytest.raises(NotInTime) as told:
        luna_farm.save(PIXELS, tmp_path / "x.png", timeout=5e-1)
    paused.cancel(told.value.job_id)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "5", True])
def test_what_is_no_time_limit_is_refused(tmp_path: Path, limit: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^timeout: .* allowed: seconds, more than 0"):
        FarmClient(timeout=limit)
    with pytest.raises(InvalidRequest, match=r"^timeout: .* allowed: seconds, more than 0"):
        luna_farm.save(PIXELS, tmp_path / "x.png", timeout=limit)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: /proc is a folder that takes no file")
@pytest.mark.usefixtures("no_farm")
def test_without_a_farm_a_folder_that_cannot_be_written_is_the_same_error() -> None:
    with pytest.raises(DiskError, match=r"^Cannot write /proc/nope/x[.]png: No such file"):
        luna_farm.save(PIXELS, "/proc/nope/x.png")


@pytest.mark.usefixtures("no_farm")
def test_what_is_no_file_in_the_end_says_why(tmp_path: Path) -> None:
    path = luna_farm.save(PIXELS, tmp_path / "x.png")
    assert luna_farm.save(PIXELS, tmp_path / "x.png", if_exists="skip") == path, "the file is there"
    with pytest.raises(EncodeError, match=r"the quality gate rejected it \(0.00 is below 0.30\)"):
        luna_farm.save(PIXELS * 0, tmp_path / "y.png", quality_gate="both", on_reject="drop")


@pytest.mark.usefixtures("no_farm")
@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), {}, r"FarmClient.submit saves a batch"),
        (PIXELS, {"lossy_qualty": 3}, "did you mean lossy_quality"),
        (None, {}, "^pixels: None is not allowed"),
        ([[1, 2]], {}, r"^pixels: \[\[1, 2\]\] is not allowed; .*numpy.asarray"),
    ],
)
def test_what_cannot_be_saved_as_one_image_is_refused_in_a_sentence(
    tmp_path: Path, pixels: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        luna_farm.save(pixels, tmp_path / "x.png", **options)
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.usefixtures("no_farm")
def test_without_a_farm(tmp_path: Path) -> None:
    path = luna_farm.save(PIXELS, tmp_path / "x.webp", lossless_webp=True)
    assert path == str(tmp_path / "x.webp")
    assert np.array_equal(np.asarray(Image.open(path)), PIXELS)


@pytest.mark.parametrize("path", ["x", "x.gif", ".png", 5, "png"])
def test_a_path_says_what_it_must_be(path: object) -> None:
    with pytest.raises(InvalidRequest, match="path"):
        luna_farm.save(PIXELS, path)


def test_a_path_may_be_a_url() -> None:
    request = request_for(PIXELS, "S3://bucket/a/b/x.webp", {})
    assert (request.output_dir, request.filename) == ("s3://bucket/a/b", "x")
    assert request.images[0].format == "webp"
    assert request_for(PIXELS, "ftp://nas/x.png", {}).output_dir == "ftp://nas"
    with pytest.raises(InvalidRequest, match="s3://BUCKET"):
        request_for(PIXELS, "s3:/bucket/x.png", {})


@pytest.mark.usefixtures("no_farm")
def test_without_a_farm_a_url_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="only a running farm"):
        luna_farm.save(PIXELS, "ftp://nas/x.png")


def test_what_the_path_says_is_no_option(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="the path says it"):
        luna_farm.save(PIXELS, tmp_path / "x.png", filename="y")


async def test_the_asynchronous_client_has_the_same_methods(shared_farm: FarmProcess, tmp_path: Path) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in vars(kind).items()
            if not name.startswith("_")
        }

    assert methods(AsyncFarmClient) == methods(FarmClient)
    async with AsyncFarmClient("127.0.0.1", shared_farm.port, shared_farm.token) as farm:
        assert await farm.save(PIXELS, tmp_path / "x.png") == str(tmp_path / "x.png")
        assert await farm.ping() > 0


@pytest.mark.parametrize("wrong", [5, "x.png", [], None, {"images": []}])
def test_what_is_no_request_is_told_in_a_sentence(shared_farm: FarmProcess, wrong: object) -> None:
    with shared_farm.client() as farm, pytest.raises(InvalidRequest, match="an array or tensor"):
        farm.submit(wrong)  # type: ignore[arg-type]


def test_an_array_may_be_submitted_and_a_receipt_waited_for(shared_farm: FarmProcess, tmp_path: Path) -> None:
    from luna_farm_client import SaveImage

    with shared_farm.client() as farm:
        for given in (SaveImage(PIXELS), [SaveImage(PIXELS)], PIXELS):
            assert farm.wait(farm.submit(given)).state == "done"  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="job"):
            farm.wait(5)  # type: ignore[arg-type]
