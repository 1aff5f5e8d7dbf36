"""Several files of one image by a real farm: whole, once, under one stem, whatever dies on the way."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess, until
from PIL import Image

from luna_farm.errors import InvalidRequest
from luna_farm.imaging import resize
from luna_farm_client import Output, SaveImage, SaveRequest, save_here

Farm = Callable[..., FarmProcess]
OUTPUTS = [Output("png"), Output("webp", max_side=30, suffix="web", save_path="web"), Output.thumbnail(16)]
NAMES = ["a_RAW.png", "a_RAW_thumb.jpg", "web/a_RAW_web.webp"]


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


def request(**fields: Any) -> SaveRequest:
    # Mid gray on the left, white on the right: a smaller image has both.
    pixels = np.full((40, 60, 3), 128, np.uint8)
    pixels[:, 30:] = 255
    return SaveRequest([SaveImage(pixels, affix="RAW", outputs=OUTPUTS)], filename="a", **fields)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sides(folder: Path) -> list[tuple[int, int]]:
    found = []
    for name in files(folder):
        with Image.open(folder / name) as image:
            assert abs(int(np.asarray(image.convert("L"))[1, 1]) - 128) < 6
            found.append(image.size)
    return found


def test_all_files_of_an_image_are_there_under_one_stem(farm: Farm) -> None:
    one = farm().start()
    with one.client() as client:
        receipt = client.submit(request())
        report = client.wait(receipt, 300)
        assert files(one.out) == NAMES
        assert sides(one.out) == [(60, 40), (16, 11), (30, 20)]
        (found,) = report.images
        assert [row["path"] for row in found.outputs] == list(receipt.outputs[0])
        assert [row["state"] for row in found.outputs] == ["saved"] * 3
        sizes = [(one.out / name).stat().st_size for name in (NAMES[0], NAMES[2], NAMES[1])]
        assert [row["bytes"] for row in found.outputs] == sizes
        assert (found.path, found.bytes) == (str(one.out / "a_RAW.png"), sizes[0])
        (one.out / "a_RAW_thumb.jpg").unlink()
        (one.out / "a_RAW.png").unlink()
        again = client.wait(client.submit(request()), 60).images[0]
        assert Path(again.path).name == "a_RAW_00001.png", "one name is taken, so all get a number"
        assert files(one.out) == [
            "a_RAW_00001.png",
            "a_RAW_00001_thumb.jpg",
            "web/a_RAW_00001_web.webp",
            "web/a_RAW_web.webp",
        ]


def test_the_short_form_and_the_text_form(farm: Farm) -> None:
    one = farm().start()
    pixels = np.full((40, 60, 3), 128, np.uint8)
    with one.client() as client:
        for fields in ({"thumbnail": True}, {"outputs": "jpeg, png 20 small"}):
            job = client.submit(SaveRequest([SaveImage(pixels, format="jpeg")], filename="b", **fields))
            assert client.wait(job, 300).state == "done"
        with pytest.raises(InvalidRequest, match="outputs"):
            client.submit(SaveRequest([SaveImage(pixels)], outputs="gif"))
    assert files(one.out) == ["b.jpg", "b_00001.jpg", "b_00001_small.png", "b_thumb.jpg"]


def test_rejected_images_take_all_their_files_along(farm: Farm) -> None:
    one = farm().start()
    with one.client() as client:
        report = client.wait(
            client.submit(request(quality_gate="edge_density", min_quality_threshold=1.0)), 60
        )
    assert report.images[0].state == "discarded"
    assert files(one.out) == [
        "_discarded/a_RAW.png",
        "_discarded/a_RAW_thumb.jpg",
        "web/_discarded/a_RAW_web.webp",
    ]


def test_in_an_archive_the_files_of_an_image_are_one_sample(farm: Farm) -> None:
    one = farm().start()
    with one.client() as client:
        (found,) = client.wait(client.submit(request(archive="tar")), 60).images
    with tarfile.open(found.path) as tar:
        assert tar.getnames() == ["a_RAW.png", "a_RAW.web.webp", "a_RAW.thumb.jpg", "a_RAW.json"]
        member = tar.extractfile("a_RAW.web.webp")
        assert member is not None
        with Image.open(io.BytesIO(member.read())) as image:
            assert image.size == (30, 20)


def test_mirrors_get_all_files(farm: Farm, tmp_path: Path) -> None:
    one = farm().start()
    with one.client() as client:
        (found,) = client.wait(client.submit(request(mirrors=[tmp_path / "mirror"])), 60).images
    assert files(tmp_path / "mirror") == files(one.out) == NAMES
    assert len(found.outputs) == 6


def test_in_this_process(tmp_path: Path) -> None:
    (found,) = save_here(request(output_dir=tmp_path)).images
    assert files(tmp_path) == NAMES
    assert [row["state"] for row in found.outputs] == ["saved"] * 3


def test_files_of_one_size_are_made_smaller_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, bool]] = []

    def within(pixels: Any, max_side: int, *, linear: bool) -> Any:
        sizes.append((max_side, linear))
        return smaller(pixels, max_side, linear=linear)

    smaller = resize.within
    monkeypatch.setattr(resize, "within", within)
    outputs = "png, png 30 a, png 20 b, webp 30 c, jpeg 30 d linear"
    pixels = np.full((40, 60, 3), 128, np.uint8)
    given = SaveRequest([SaveImage(pixels)], outputs=outputs, filename="a", output_dir=tmp_path)
    assert save_here(given).state == "done"
    assert sizes == [(30, False), (20, False), (30, True)]
    with Image.open(tmp_path / "a_a.png") as first, Image.open(tmp_path / "a_c.webp") as second:
        assert first.size == second.size == (30, 20)


@pytest.mark.parametrize("point", ["writer.named:2", "writer.synced:3", "worker.encoded", "worker.reported"])
def test_killed_at_a_point_each_file_is_there_once(
    farm: Farm, point: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    once = tmp_path / "fired"
    once.mkdir()
    monkeypatch.setenv("LUNA_FARM_CRASH", point)
    monkeypatch.setenv("LUNA_FARM_CRASH_ONCE", str(once))
    one = farm(max_workers=1, min_workers=1).start()
    with one.client() as client:
        assert client.wait(client.submit(request()), 60).state == "done"
    until(lambda: list(once.iterdir()), "the point is reached")  # it may come behind the answer
    assert files(one.out) == NAMES
    assert sides(one.out) == [(60, 40), (16, 11), (30, 20)]


def test_a_disk_that_is_full_in_between_costs_no_second_file(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.touch()
    # Each try of the third file comes one point further, so that it stays refused for a while.
    points = ("created", "half_written", "written", "synced", "noted")
    crash = ",".join(f"writer.{point}:3:raise:ENOSPC" for point in points)
    monkeypatch.setenv("LUNA_FARM_CRASH", crash)
    monkeypatch.setenv("LUNA_FARM_CRASH_WHILE", str(full))
    one = farm(max_workers=1, min_workers=1).start()
    with one.client() as client:
        job = client.submit(request())
        held = until(
            lambda: [image for image in client.job(job).images if image.state == "held"],
            "the disk refuses the third file",
        )
        assert [row["state"] for row in held[0].outputs] == ["held", "saved", "saved"]
        full.unlink()
        one.kill()
        one.start()
        assert client.wait(job, 300).state == "done"
    assert files(one.out) == NAMES
