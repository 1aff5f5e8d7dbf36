"""A farm that saves beyond the local disk, whole: real processes, real servers, faults on the way."""

from __future__ import annotations

import io
import json
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import until
from fault_proxy import Fault, FaultProxy, s3_error
from PIL import Image
from servers import Server
from uploading_farm import UploadingFarm, pixels

from luna_farm.errors import FarmBusy, InvalidRequest
from luna_farm_client import SaveImage, SaveRequest

Make = Callable[..., UploadingFarm]


@pytest.fixture
def make(
    tmp_path: Path, start_server: Callable[[str], Server], proxied: Callable[[Server], FaultProxy]
) -> Iterator[Make]:
    """`make("moto", max_workers=2)`: a farm that is not started yet."""
    made: list[UploadingFarm] = []

    def of(name: str, **settings: Any) -> UploadingFarm:
        home = tmp_path / f"farm{len(made)}"
        home.mkdir()
        server = start_server(name)
        made.append(UploadingFarm(home, server, proxied(server), **settings))
        return made[-1]

    yield of
    for one in made:
        one.farm.destroy()


@pytest.mark.parametrize("name", ["moto", "seaweedfs", "azurite", "gcs", "sftp", "ftp", "webdav"])
def test_saved_at_a_destination_and_its_mirrors(make: Make, name: str, tmp_path: Path) -> None:
    one = make(name)
    mirror = tmp_path / "mirror"
    with one.start() as client:
        receipt = client.submit(
            SaveRequest(
                images=[SaveImage(pixels(1), affix="A"), SaveImage(pixels(2), affix="B", format="jpeg")],
                output_dir=one.url + "/",
                save_path="day",
                filename="x",
                mirrors=[mirror],
            )
        )
        assert receipt.paths == (f"{one.url}/day/x_A.png", f"{one.url}/day/x_B.jpg")
        report = client.wait(receipt.job_id, timeout=120)
        assert (report.state, [image.state for image in report.images]) == ("done", ["saved"] * 2)
        assert [image.path for image in report.images] == list(receipt.paths)
        first = report.images[0]
        assert [output["state"] for output in first.outputs] == ["saved", "saved"]
        assert first.outputs[1]["path"] == str(mirror / "day" / "x_A.png")
        again = client.submit(
            SaveRequest(
                images=[SaveImage(pixels(3), affix="A")], output_dir=one.url, save_path="day", filename="x"
            )
        )
        renamed = client.wait(again.job_id, timeout=120).images[0]
        assert renamed.path == f"{one.url}/day/x_A_00001.png"
        assert "next free name" in renamed.warnings[0]
        until(lambda: not one.spooled(), "the spool is empty")
        assert one.destination()["state"] == "ok"
    found = one.stored()
    assert sorted(found) == ["day/x_A.png", "day/x_A_00001.png", "day/x_B.jpg"]
    with Image.open(io.BytesIO(found["day/x_A.png"])) as image:
        assert np.array_equal(np.asarray(image), pixels(1))
    assert (mirror / "day" / "x_A.png").read_bytes() == found["day/x_A.png"]
    assert one.farm.stop() == 0


def test_local_folder_with_a_mirror_beyond_it(make: Make) -> None:
    one = make("moto")
    with one.start() as client:
        job = one.save(client, [0], output_dir=one.home / "out", mirrors=[one.url])
        (image,) = client.wait(job, timeout=120).images
    assert image.path == str(one.home / "out" / "a_I0.png")
    assert [output["path"] for output in image.outputs] == [image.path, f"{one.url}/a_I0.png"]
    assert one.stored() == {"a_I0.png": Path(image.path).read_bytes()}


def test_what_waits_for_a_destination_survives_everything(make: Make) -> None:
    one = make("moto")
    one.proxy.refuse = True
    client = one.start()
    jobs = [one.save(client, [n]) for n in range(6)]
    until(lambda: one.destination().get("state") == "failing", "the circuit is open")
    until(lambda: len(one.spooled()) == 6, "all are in the spool")
    row = one.destination()
    assert "s3://luna" in row["error"]
    assert row["since_s"] >= 0
    waits = {("uploading", "waiting"), ("uploading", "uploading")}  # one may be tried at this moment

    def states() -> set[tuple[str, str]]:
        return {(i.state, i.outputs[0]["state"]) for job in jobs for i in client.job(job).images if i.outputs}

    until(lambda: ("uploading", "waiting") in states() <= waits, "they wait")
    client.close()
    one.farm.kill()
    client = one.start()
    until(lambda: one.destination().get("state") == "failing", "it is open again")
    one.proxy.refuse = False
    reports = one.wait(client, jobs)
    assert [report.state for report in reports] == ["done"] * 6
    one.check(6)
    client.close()
    until(lambda: "takes files again" in one.farm.log, "the log says so")
    assert one.farm.stop() == 0


@pytest.mark.parametrize(
    ("name", "point"),
    [("seaweedfs", ""), ("sftp", ""), ("moto", "archive.spooling"), ("moto", "upload.stored")],
)
def test_archives_are_stored_whole_and_once(make: Make, name: str, point: str) -> None:
    one = make(name)
    once = one.home / "fired"
    once.mkdir()
    client = one.start(**({"LUNA_FARM_CRASH": point, "LUNA_FARM_CRASH_ONCE": str(once)} if point else {}))
    with one.kept_alive(), client:
        jobs = [one.save(client, [n], archive="tar", shard_images=2) for n in range(4)]
        jobs.append(one.save(client, [4, 5], archive="zip"))
        reports = one.wait(client, jobs)
        assert [report.state for report in reports] == ["done"] * 5
        assert [path.name for path in once.iterdir()] == ([point] if point else []), "the point was reached"
        until(lambda: not one.spooled(), "the spool is empty")
    stored = one.stored()
    assert sorted(stored) == ["a_00001.tar", "a_00001.zip", "a_00002.tar"]
    found = []
    for report in reports:
        for image in report.images:
            data = stored[image.path[len(one.url) + 1 :]]
            member = _member(data, image.path.endswith(".zip"), image.member)
            found.append(int(np.asarray(Image.open(io.BytesIO(member)))[0, 0, 0]))
    assert found == list(range(6))
    assert not list((one.farm.state / "archives").iterdir())


def _member(archive: bytes, is_zip: bool, name: str) -> bytes:
    if is_zip:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            return opened.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


@pytest.mark.parametrize(
    "point",
    [
        "upload.half_spooled",
        "upload.spooled",
        "upload.sending",
        "upload.stored",
        "worker.encoded",
        "worker.reported",
        "supervisor.journaled",
        "supervisor.result_received",
        "supervisor.result_journaled",
    ],
)
def test_killed_at_a_point_everything_is_stored_once(make: Make, point: str) -> None:
    one = make("moto")
    once = one.home / "fired"
    once.mkdir()
    client = one.start(LUNA_FARM_CRASH=f"{point}:2", LUNA_FARM_CRASH_ONCE=str(once))
    with one.kept_alive(), client:
        jobs = [one.save(client, [n]) for n in range(4)]
        reports = one.wait(client, jobs)
        assert [path.name for path in once.iterdir()] == [point], "the point was reached"
        assert [report.state for report in reports] == ["done"] * 4
        one.check(4)


def test_stalled_uploads_end_with_the_supervisor_and_are_stored_once(make: Make) -> None:
    one = make("moto")
    client = one.start()
    one.proxy.fail(*[Fault("stall", 500)] * 8)
    jobs = [one.save(client, [n]) for n in range(8)]
    until(lambda: one.destination().get("uploading", 0) >= 4, "uploads hang")
    client.close()
    one.farm.kill()
    with one.start() as client:
        assert {report.state for report in one.wait(client, jobs)} == {"done"}
    one.check(8)


def test_full_spool_means_busy(make: Make) -> None:
    one = make("moto", spool_bytes="1MiB")
    one.proxy.refuse = True
    with one.start() as client:
        noise = np.random.default_rng(1).integers(0, 255, (600, 700, 3), np.uint8)

        def submit() -> str:
            request = SaveRequest(images=[SaveImage(noise)], output_dir=one.url, filename="n")
            return client.submit(request).job_id

        job = submit()
        until(lambda: one.status()["upload_spool"]["used_bytes"] > 2**20, "it is in the spool")
        with one.client(timeout=8.0) as hasty:
            started = time.monotonic()
            with pytest.raises(FarmBusy, match="spool_bytes") as caught:
                hasty.submit(SaveRequest(images=[SaveImage(noise)], output_dir=one.url, filename="n"))
        assert "store" in str(caught.value)
        assert time.monotonic() - started < 60
        local = client.submit(SaveRequest(images=[SaveImage(noise)], output_dir=one.home / "out"))
        assert client.wait(local.job_id, timeout=120).state == "done", "a local folder is not affected"
        one.proxy.refuse = False
        assert client.wait(job, timeout=120).state == "done"
        assert client.wait(submit(), timeout=120).state == "done"


def test_upload_that_can_never_work_fails_alone_and_may_be_tried_again(make: Make) -> None:
    one = make("moto")
    with one.start() as client:
        one.proxy.fail(s3_error("400 Bad Request", "KeyTooLongError"))
        job = one.save(client, [0])
        report = client.wait(job, timeout=120)
        assert (report.state, report.images[0].code) == ("failed", "destination")
        assert "does not allow this name" in report.images[0].error
        assert client.wait(one.save(client, [1]), timeout=120).state == "done"
        until(lambda: len(one.spooled()) == 1, "only its own file is kept")
        client.retry(job)
        assert client.wait(job, timeout=120).state == "done"
    one.check(2)


def test_only_listed_destinations_count_where_folders_are_limited(make: Make, tmp_path: Path) -> None:
    one = make("moto", allowed_dirs=tmp_path)
    with one.start() as client:
        with pytest.raises(InvalidRequest, match="s3://luna"):
            one.save(client, [0], output_dir="s3://other/x")
        with pytest.raises(InvalidRequest, match="mirrors"):
            one.save(client, [0], output_dir=tmp_path / "out", mirrors=["s3://other/x"])
        with pytest.raises(InvalidRequest, match="mirrors"):
            one.save(client, [0], mirrors=["/elsewhere"])
        assert client.wait(one.save(client, [0]), timeout=120).state == "done"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gopher://x/y", ["gopher", "s3://", "sftp://"]),
        ("s3://AKIASECRET:sesame@b/x", ["[destinations.NAME]"]),
        ("az://c/x?sig=sesame", ["[destinations.NAME]"]),
        ("s3://b/" + "x" * 1100, ["bytes"]),
        ("s3://b/../x", [".."]),
    ],
)
def test_bad_urls_are_refused_with_a_sentence(make: Make, url: str, words: list[str]) -> None:
    one = make("moto")
    with one.start() as client, pytest.raises(InvalidRequest) as caught:
        one.save(client, [0], output_dir=url)
    assert all(word in str(caught.value) for word in words)
    assert "sesame" not in str(caught.value) + one.farm.log


def test_no_secret_is_ever_shown(make: Make) -> None:
    one = make("seaweedfs")
    toml = one.home / "luna-farm.toml"
    toml.write_text(toml.read_text().replace("luna-secret-key", "sesame-secret"))
    with one.start() as client:
        job = one.save(client, [0])
        until(lambda: one.destination().get("state") == "failing", "the circuit is open")
        shown = json.dumps([client.status(), repr(client.job(job))]) + one.farm.log
    assert "does not accept the credentials" in shown
    assert "sesame" not in shown
    assert "AWS4-HMAC" not in shown
