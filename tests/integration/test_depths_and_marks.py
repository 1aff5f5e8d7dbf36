"""Depth, colour, alpha, moving images and marks, from pixels in a program to files, through a real farm."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess, until
from PIL import Image

from luna_farm.errors import ArenaError, InvalidRequest
from luna_farm_client import JobReport, SaveImage, SaveRequest, save_here
from luna_farm_client.mapped import MappedSegments

sys.path.insert(0, str(Path(__file__).parents[1] / "imaging"))

Save = Callable[..., JobReport]


@pytest.fixture(params=["farm", "here"])
def save(request: pytest.FixtureRequest, shared_farm: FarmProcess, tmp_path: Path) -> Save:
    """Save by a farm, and in this process."""

    def by(*images: SaveImage, **fields: Any) -> JobReport:
        made = SaveRequest(images, output_dir=tmp_path, **{"filename": "a", **fields})
        if request.param == "here":
            return save_here(made)
        with shared_farm.client() as farm:
            return farm.wait(farm.submit(made), timeout=120)

    return by


def read(report: JobReport, index: int = 0) -> bytes:
    assert report.images[index].state == "saved", report.images[index].error
    return Path(report.images[index].path).read_bytes()


def ramp(dtype: str, channels: int = 3, height: int = 40, width: int = 60) -> Any:
    values = np.linspace(0, 1, height * width * channels).reshape(height, width, channels)
    if np.dtype(dtype).kind == "f":
        return (values * 4 - 1).astype(dtype)
    return np.floor(values * np.iinfo(dtype).max).astype(dtype)


def test_16_bits_are_kept(save: Save) -> None:
    decode = pytest.importorskip("imagecodecs", reason="16-bit colour is read by imagecodecs")
    pixels = ramp("uint16")
    report = save(*[SaveImage(pixels, format=form) for form in ("png", "tiff", "jxl", "webp")])
    assert np.array_equal(decode.png_decode(read(report, 0)), pixels)
    assert np.array_equal(decode.tiff_decode(read(report, 1)), pixels)
    assert decode.jpegxl_decode(read(report, 2)).dtype == np.uint16
    assert "16-bit values were scaled" in report.images[3].warnings[0]


def test_floats_are_rounded_to_16_bits_on_request(save: Save) -> None:
    decode = pytest.importorskip("imagecodecs", reason="16-bit colour is read by imagecodecs")
    pixels = np.random.default_rng(0).random((40, 60, 3), np.float32)
    report = save(SaveImage(pixels), bit_depth="16")
    expected = np.floor(pixels * np.float32(65535) + np.float32(0.5)).astype(np.uint16)
    assert np.array_equal(decode.png_decode(read(report)), expected)


@pytest.mark.parametrize(("depth", "dtype"), [("half", "float16"), ("float", "float32")])
def test_floats_beyond_the_range_survive(save: Save, depth: str, dtype: str) -> None:
    decode = pytest.importorskip("imagecodecs", reason="float TIFF is read by imagecodecs")
    exr = pytest.importorskip("OpenEXR", reason="EXR needs OpenEXR")
    pixels = ramp("float32")
    report = save(SaveImage(pixels, format="exr"), SaveImage(pixels, format="tiff"), bit_depth=depth)
    (channel,) = exr.File(io.BytesIO(read(report, 0))).channels().values()
    assert np.array_equal(channel.pixels, pixels.astype(dtype))
    assert np.array_equal(decode.tiff_decode(read(report, 1)), pixels.astype(dtype))


def test_one_bad_image_of_a_batch_is_saved_and_flagged(save: Save) -> None:
    batch = np.full((3, 200, 300, 3), 0.5, np.float32)
    batch[1, 7, 8] = (np.nan, np.inf, -np.inf)
    report = save(SaveImage(batch))
    assert [image.state for image in report.images] == ["saved"] * 3
    assert [bool(image.warnings) for image in report.images] == [False, True, False]
    assert report.images[1].warnings[0].startswith("3 values were NaN or infinite")
    with Image.open(report.images[1].path) as image:
        assert np.asarray(image)[7, 8].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((8, 8, 3), 200.0, np.float32), "floats up to 200 are not allowed; allowed: 0 to 1"),
        (np.zeros((8, 8, 3), np.int32), "uint16"),
        (np.zeros((8, 8, 3), np.uint32), "uint16"),
    ],
)
def test_other_ranges_are_refused_in_words(save: Save, tmp_path: Path, pixels: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        save(SaveImage(pixels))
    assert not list(tmp_path.glob("*.png"))


def test_bool_is_black_and_white(save: Save) -> None:
    with Image.open(io.BytesIO(read(save(SaveImage(np.eye(20, dtype=bool)))))) as image:
        assert np.array_equal(np.asarray(image), np.eye(20, dtype=np.uint8) * 255)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_mask_becomes_alpha(save: Save, channels: int) -> None:
    pixels = np.full((2, 30, 40, channels), 0.5, np.float32)
    mask = np.zeros((30, 40), np.float32)
    mask[:, 20:] = 1  # transparent
    report = save(
        SaveImage(pixels, mask=mask), SaveImage((pixels * 255).astype(np.uint8), mask=mask[:15, :20])
    )
    for index in (0, 1):
        with Image.open(report.images[index].path) as image:
            seen = np.asarray(image)
        assert seen.shape == (30, 40, 4)
        assert (seen[..., :3] == 127).all()
        assert (seen[:, :20, 3] == 255).all()
        assert (seen[:, 20:, 3] == 0).all()


def test_transparency_is_laid_on_the_background_in_jpeg(save: Save) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., 0] = 255  # hidden red
    report = save(SaveImage(pixels, format="jpeg"), background="#0000ff")
    with Image.open(report.images[0].path) as image:
        assert np.abs(np.asarray(image)[8, 8].astype(int) - (0, 0, 255)).max() < 4
    assert "laid on #0000ff" in report.images[0].warnings[0]


@pytest.mark.parametrize("form", ["webp", "png"])
def test_a_batch_becomes_one_moving_image(save: Save, form: str) -> None:
    frames = np.stack([np.full((20, 30, 3), value / 10, np.float32) for value in range(6)])
    report = save(SaveImage(frames, format=form), animation={"fps": 10, "loop": 2}, lossless_webp=True)
    assert len(report.images) == 1
    with Image.open(report.images[0].path) as image:
        assert (image.n_frames, image.info["loop"]) == (6, 2)  # type: ignore[attr-defined]
        for index in range(6):
            image.seek(index)
            assert image.convert("RGB").getpixel((3, 3)) == (int(255 * np.float32(index / 10)),) * 3
            assert image.info["duration"] == 100


@pytest.mark.parametrize("form", ["webp", "png", "avif"])
def test_frames_last_as_long_as_each_of_them_shall(save: Save, form: str) -> None:
    frames = np.stack([np.full((20, 30, 3), 40 * n, np.uint8) for n in range(4)])
    lasts = [20, 1000, 40, 300]
    (image,) = save(SaveImage(frames, format=form), animation={"ms": lasts}).images
    with Image.open(image.path) as moving:
        found = []
        for index in range(4):
            moving.seek(index)
            moving.load()
            found.append(moving.info["duration"])
    assert found == lasts
    with pytest.raises(InvalidRequest, match=r"2 durations.*4, one for each frame"):
        save(SaveImage(frames, format=form), animation={"ms": [10, 20]})


@pytest.mark.parametrize("animation", [{"fps": 0}, {"speed": 3}, {"fps": 10, "loop": -1}, 24])
def test_other_animations_are_refused(save: Save, animation: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"animation|loop|fps"):
        save(SaveImage(np.zeros((2, 4, 4, 3), np.uint8), format="webp"), animation=animation)
    with pytest.raises(InvalidRequest, match="a format of png, webp, avif"):
        save(SaveImage(np.zeros((2, 4, 4, 3), np.uint8), format="jpeg"), animation={"fps": 10})


def test_presets_fill_in_what_is_left_at_its_default(save: Save) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (128, 128, 3)).astype(np.uint8)
    web, mine = (
        len(read(save(SaveImage(noise, format="jpeg"), preset="web", **fields)))
        for fields in ({}, {"lossy_quality": 99})
    )
    assert web < mine / 2
    exact = save(SaveImage(noise, format="webp"), preset="archive")
    with Image.open(exact.images[0].path) as image:
        assert np.array_equal(np.asarray(image), noise)
    with pytest.raises(InvalidRequest, match=r"fast \| balanced"):
        save(SaveImage(noise), preset="best")


def test_xmp_says_how_it_was_made(save: Save) -> None:
    report = save(
        SaveImage(ramp("uint8")), provenance="xmp", source_type="composite", aigc={"ProduceID": "x-1"}
    )
    file = read(report)
    assert b"compositeWithTrainedAlgorithmicMedia" in file
    assert b'"ProduceID":"x-1"' in file
    assert b"DigitalSourceType" not in read(save(SaveImage(ramp("uint8")), filename="b"))


def test_an_image_is_kept_until_its_key_is_mended(
    start_farm: Callable[..., FarmProcess], tmp_path: Path
) -> None:
    c2pa = pytest.importorskip("c2pa", reason="C2PA needs c2pa-python")
    from certificates import make

    chain, key = make(tmp_path / "keys")
    Path(key).rename(tmp_path / "away")
    farm = start_farm(c2pa_certificate=chain, c2pa_key=key, provenance="c2pa")
    with farm.client() as client:
        receipt = client.submit(SaveRequest([SaveImage(ramp("uint8"))], output_dir=tmp_path / "out"))
        held = until(
            lambda: [i for i in client.job(receipt.job_id).images if i.state == "held"], "the image is held"
        )
        assert "cannot be read" in held[0].error
        (tmp_path / "away").rename(key)
        report = client.wait(receipt.job_id, timeout=60)
    with c2pa.Reader("image/png", io.BytesIO(read(report))) as reader:
        assert reader.get_validation_state() == "Valid"
    assert "PRIVATE KEY" not in farm.log
    assert farm.log.count("Images are marked as generated from here on (provenance c2pa)") == 1


MARKS = """
import numpy as np

def narrow(pixels):
    return pixels[:, ::2]

def endless(pixels):
    while True:
        pixels += 1
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("narrow", "watermark narrow returned uint8 [48, 32, 3]; allowed: uint8 [48, 64, 3]"),
        ("endless", "It ended its worker 3 times (last: no progress for 1 s). The watermark endless runs in"),
    ],
)
def test_an_image_is_kept_when_its_watermark_does_not_come(
    start_farm: Callable[..., FarmProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    said: str,
) -> None:
    package = tmp_path / "site" / "bad_marks-1.dist-info"
    package.mkdir(parents=True)
    (tmp_path / "site" / "bad_marks.py").write_text(MARKS)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-marks\nVersion: 1\n")
    points = "".join(f"{one} = bad_marks:{one}\n" for one in ("narrow", "endless"))
    (package / "entry_points.txt").write_text(f"[luna_farm.watermarks]\n{points}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    deadline = {"worker_deadline": 0.5} if name == "endless" else {}
    farm = start_farm(watermark=name, min_workers=1, max_workers=1, **deadline)
    pixels = ramp("uint8", height=48, width=64)
    with farm.client() as client:
        report = client.wait(client.submit(SaveRequest([SaveImage(pixels)], tmp_path / "out")), timeout=60)
    assert said in report.images[0].error
    assert not list((tmp_path / "out").glob("**/*.*"))
    farm.stop()
    del farm.settings["watermark"]
    farm.settings.pop("worker_deadline", None)
    farm.start()
    with farm.client() as client:
        client.retry(report.job_id)
        saved = client.wait(report.job_id, timeout=60)
    with Image.open(saved.images[0].path) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_depth_travels_without_shared_memory_too(
    shared_farm: FarmProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = pytest.importorskip("imagecodecs", reason="16-bit colour is read by imagecodecs")
    pixels = ramp("uint16", height=300, width=400)

    def elsewhere(*_: object) -> None:
        raise ArenaError("another host")

    monkeypatch.setattr(MappedSegments, "arena", elsewhere)
    with shared_farm.client() as farm:
        report = farm.wait(farm.submit(SaveRequest([SaveImage(pixels)], output_dir=tmp_path)), timeout=60)
    assert np.array_equal(decode.png_decode(read(report)), pixels)
