"""Archives by a real farm: what common programs read, and that no member is lost or there twice."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess, until
from PIL import Image

from luna_farm.errors import InvalidRequest
from luna_farm_client import FarmClient, JobReport, SaveImage, SaveRequest, save_here

Farm = Callable[..., FarmProcess]
OF_MANY = {"shard_images": 3, "shard_idle_s": 0.3}


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """`farm(max_workers=2)`: a farm that is not started yet."""
    made: list[FarmProcess] = []

    def make(**settings: Any) -> FarmProcess:
        made.append(FarmProcess(tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        one.destroy()


def image(number: int) -> SaveImage:
    pixels = np.full((16, 16, 3), number, np.uint8)
    return SaveImage(pixels, affix=f"I{number}", subdir=False, metadata={"seed": number})


def members(path: str | Path) -> dict[str, bytes]:
    """Everything in an archive, by the standard library; a name that is there twice fails."""
    if str(path).endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            found = {name: archive.read(name) for name in names}
    else:
        with tarfile.open(path) as tar:
            names = tar.getnames()
            found = {name: tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    assert len(found) == len(names)
    return found


def numbers(found: dict[str, bytes]) -> list[int]:
    """Which images are in an archive; each has its pixels and its metadata."""
    seen = []
    for name, data in found.items():
        if name.endswith(".json"):
            continue
        with Image.open(io.BytesIO(data)) as opened:
            number = int(np.asarray(opened)[0, 0, 0])
        beside = json.loads(found[name.partition(".")[0] + ".json"])
        assert beside["generation_metadata"] == {"seed": number}
        seen.append(number)
    return sorted(seen)


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_images_of_a_job_are_in_one_archive(farm: Farm, kind: str) -> None:
    one = farm().start()
    with one.client() as client:
        receipt = client.submit(
            SaveRequest([image(n) for n in range(6)], archive=kind, save_path="day", filename="a")
        )
        path = str(one.out / "day" / f"a_00001.{kind}")
        assert receipt.paths == (path,) * 6
        report = client.wait(receipt, 300)
        assert (report.state, report.paths) == ("done", (path,) * 6)
        assert [found.member for found in report.images] == [f"a_I{n}.png" for n in range(6)]
        (output,) = report.images[2].outputs
        assert (output["path"], output["member"], output["state"]) == (path, "a_I2.png", "saved")
        assert output["bytes"] == len(members(path)["a_I2.png"])
        again = client.wait(
            client.submit(SaveRequest([image(9)], archive=kind, save_path="day", filename="a"))
        )
        assert again.paths == (str(one.out / "day" / f"a_00002.{kind}"),)
    assert numbers(members(path)) == list(range(6))
    program = ["unzip", "-tqq"] if kind == "zip" else ["tar", "-tf"]
    if shutil.which(program[0]):
        subprocess.run([*program, path], check=True, capture_output=True)
    assert one.stop() == 0
    assert files(one.out) == [f"day/a_00001.{kind}", f"day/a_00002.{kind}"]


def test_webdataset_reads_the_shards_of_many_jobs(farm: Farm) -> None:
    pytest.importorskip("webdataset", reason="NOT TESTED: needs the package webdataset")
    one = farm().start()
    with one.client() as client:
        jobs = [
            client.submit(SaveRequest([image(n)], archive="tar", filename="set", shard_images=4))
            for n in range(10)
        ]
        reports = [client.wait(job, 300) for job in jobs]
        assert {report.state for report in reports} == {"done"}
        until(lambda: len(client.status()["archives"]) == 1, "full shards are published")
    assert one.stop() == 0, "a stop publishes the open shard"
    assert files(one.out) == [f"set_0000{n}.tar" for n in (1, 2, 3)]
    for n, report in enumerate(reports):
        (found,) = report.images
        with Image.open(io.BytesIO(members(found.path)[found.member])) as opened:
            assert int(np.asarray(opened)[0, 0, 0]) == n, "the report says where it is"
    code = f"""
import json, warnings
warnings.simplefilter("ignore")
import webdataset
shards = {str(one.out / "set_{00001..00003}.tar")!r}
found = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
print(json.dumps(sorted(json.loads(s["json"])["generation_metadata"]["seed"] for s in found if "png" in s)))
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(ran.stdout) == list(range(10))


def test_an_open_shard_ends_by_its_size_or_when_nothing_comes(farm: Farm) -> None:
    one = farm().start()
    with one.client() as client:
        noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
        for n in range(4):
            request = SaveRequest(
                [SaveImage(noise, affix=f"I{n}")], archive="zip", filename="b", shard_bytes=26_000
            )
            assert client.wait(client.submit(request), 60).state == "done"
        until((one.out / "b_00001.zip").exists, "a shard of two images")
        request = SaveRequest([image(1)], archive="zip", filename="c", shard_idle_s=0.2)
        assert client.wait(client.submit(request), 60).state == "done"
        until((one.out / "c_00001.zip").exists, "the idle shard")
    assert one.stop() == 0
    assert [len(members(one.out / f"b_0000{n}.zip")) // 2 for n in (1, 2)] == [2, 2]


def test_rejected_images_are_in_an_archive_of_their_own(farm: Farm) -> None:
    one = farm().start()
    with one.client() as client:
        noise = np.random.default_rng(1).integers(0, 255, (16, 16, 3), np.uint8)
        request = SaveRequest(
            [SaveImage(noise), image(3)], archive="tar", filename="a", quality_gate="variance"
        )
        report = client.wait(client.submit(request), 60)
    assert [found.state for found in report.images] == ["saved", "discarded"]
    assert report.paths == (str(one.out / "a_00001.tar"), str(one.out / "_discarded" / "a_00001.tar"))
    assert numbers(members(report.paths[1])) == [3]


def test_an_archive_never_replaces_a_file(farm: Farm) -> None:
    one = farm().start()
    one.out.mkdir(exist_ok=True)
    (one.out / "a_00003.tar").write_bytes(b"other")
    with one.client() as client:
        request = SaveRequest([image(1)], archive="tar", filename="a", shard_images=2)
        report = client.wait(client.submit(request), 60)
        assert report.paths == (str(one.out / "a_00004.tar"),)
        (one.out / "a_00004.tar").write_bytes(b"other, too")
        client.submit(SaveRequest([image(2)], archive="tar", filename="a", shard_images=2))
        until((one.out / "a_00005.tar").exists, "the next free number")
        until(lambda: not client.status()["archives"], "it is published")
        (found,) = client.job(report.job_id).images
        assert found.path == str(one.out / "a_00005.tar")
        assert "next free name" in found.warnings[-1]
    assert (one.out / "a_00004.tar").read_bytes() == b"other, too"


@pytest.mark.parametrize(
    ("point", "bounds"),
    [
        *((point, OF_MANY) for point in ("upload.spooled:2", "archive.adding:2", "archive.image_written:2")),
        *(
            (point, OF_MANY)
            for point in ("archive.synced:2", "archive.linked", "supervisor.result_received:3")
        ),
        *((point, {}) for point in ("archive.ended", "archive.linked", "supervisor.result_journaled:9")),
    ],
)
def test_killed_at_a_point_every_member_is_in_one_archive(
    farm: Farm, point: str, bounds: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    once = tmp_path / "fired"
    once.mkdir()
    monkeypatch.setenv("LUNA_FARM_CRASH", point)
    monkeypatch.setenv("LUNA_FARM_CRASH_ONCE", str(once))
    one = farm().start()
    with one.kept_alive(), one.client(timeout=60, restart_s=60) as client:
        jobs = [
            client.submit(
                SaveRequest([image(2 * n), image(2 * n + 1)], archive="tar", filename="a", **bounds)
            )
            for n in range(4)
        ]
        reports = [client.wait(job, 300) for job in jobs]
        assert {report.state for report in reports} == {"done"}
        until(lambda: not client.status()["archives"], "all archives are published")
    assert [path.name for path in once.iterdir()] == [point.partition(":")[0]], "the point was reached"
    _check(one, reports)


@pytest.mark.parametrize("point", ["", "archive.spooling", "upload.stored:2"])
def test_an_archive_has_copies_at_its_mirrors(
    farm: Farm, point: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever ends meanwhile, each place has it once, and no file of another program is replaced."""
    once, mirror = tmp_path / "fired", tmp_path / "mirror"
    once.mkdir()
    (mirror / "d").mkdir(parents=True)
    (mirror / "d" / "a_00001.tar").write_bytes(b"other")
    if point:
        monkeypatch.setenv("LUNA_FARM_CRASH", point)
        monkeypatch.setenv("LUNA_FARM_CRASH_ONCE", str(once))
    one = farm().start()
    with one.kept_alive(), one.client(timeout=60, restart_s=60) as client:
        images = [image(n) for n in range(3)]
        given = {"archive": "tar", "filename": "a", "save_path": "d", "mirrors": [mirror]}
        report = client.wait(client.submit(SaveRequest(images, **given)), 60)
        assert report.state == "done"
        until(lambda: not list((one.state / "uploads").iterdir()), "the spool is empty")
    assert [path.name for path in once.iterdir()] == [point.partition(":")[0]] * bool(point)
    places = [one.out / "d" / "a_00001.tar", mirror / "d" / "a_00001_00001.tar"]
    for n, saved in enumerate(report.images):
        assert saved.path == str(places[0])
        assert [(each["path"], each["state"]) for each in saved.outputs] == [
            (str(place), "saved") for place in places
        ]
        assert saved.member == f"a_I{n}.png"
    assert places[0].read_bytes() == places[1].read_bytes()
    assert numbers(members(places[0])) == [0, 1, 2]
    assert (mirror / "d" / "a_00001.tar").read_bytes() == b"other"
    assert len(list(one.out.rglob("*.*"))) + len(list(mirror.rglob("*.*"))) == 3


def _check(one: FarmProcess, reports: list[JobReport]) -> None:
    """Every image is in exactly one archive, where its report says, and nothing else is left."""
    found = {name: members(one.out / name) for name in files(one.out)}
    assert sorted(n for inside in found.values() for n in numbers(inside)) == list(range(8))
    for report in reports:
        for saved in report.images:
            assert saved.member in found[os.path.basename(saved.path)]
    until(lambda: not list((one.state / "uploads").iterdir()), "the spool is empty")
    assert not [path for path in one.out.iterdir() if path.name.startswith(".")]


def test_what_an_archive_cannot_be_combined_with_is_refused(farm: Farm, tmp_path: Path) -> None:
    one = farm().start()
    with one.client() as client:
        for fields, word in (
            ({"if_exists": "overwrite"}, "if_exists"),
            ({"mirrors": [tmp_path / "m"], "if_exists": "skip"}, "if_exists"),
            ({"archive": "rar"}, "archive"),
            ({"archive": "none", "shard_images": 5}, "archive"),
        ):
            with pytest.raises(InvalidRequest, match=word):
                client.submit(SaveRequest([image(1)], **{"archive": "zip", **fields}))
    with pytest.raises(InvalidRequest, match="running farm"):
        save_here(SaveRequest([image(1)], archive="zip", output_dir=tmp_path / "here"))
    assert not (tmp_path / "here").exists()


def test_the_command_line_makes_one_archive_of_many_files(farm: Farm, tmp_path: Path) -> None:
    one = farm().start()
    names = []
    for n in range(3):
        names.append(str(tmp_path / f"photo {n}.png"))
        Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(names[-1])
    command = [sys.executable, "-m", "luna_farm", "save", *names, "--archive", "zip", "--port", str(one.port)]
    ran = subprocess.run(
        [*command, "--state-dir", str(one.state)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert f"{one.out / 'images_00001.zip'}: images_photo 1.png" in ran.stdout
    found = members(one.out / "images_00001.zip")
    assert sorted(name for name in found if name.endswith(".png")) == [
        f"images_photo {n}.png" for n in range(3)
    ]


def test_a_shard_whose_file_is_gone_is_told(farm: Farm) -> None:
    one = farm().start()
    client: FarmClient
    with one.client() as client:
        request = SaveRequest([image(1)], archive="tar", filename="a", shard_idle_s=8)
        assert client.wait(client.submit(request), 60).state == "done"
        (temp,) = one.out.glob(".luna-*")
        temp.unlink()
        until(lambda: not client.status()["archives"], "it is given up")
    until(lambda: "gone or damaged" in one.log, "it is told")
    assert files(one.out) == []
