"""Small, of the right shape, recognisable."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from luna_farm.imaging.thumbnail import KEPT_SIDE, LIVE_SIDE, encode, of_file, sample


def thumbnail(pixels, side=LIVE_SIDE):
    return encode(sample(pixels), side)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1024, 1024, (160, 160)),
        (1024, 512, (80, 160)),
        (100, 60, (60, 100)),
        (1, 1, (1, 1)),
        (1, 5000, (160, 1)),
        (5000, 3, (1, 160)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_size(picture, height, width, channels, expected):
    with Image.open(io.BytesIO(thumbnail(picture(height, width, channels)))) as image:
        assert image.format == "JPEG"
        assert image.size == expected
        assert image.mode == ("L" if channels == 1 else "RGB")


def test_it_shows_the_picture():
    pixels = np.zeros((1000, 800, 3), np.uint8)
    pixels[:, 400:] = (250, 20, 20)
    with Image.open(io.BytesIO(thumbnail(pixels))) as image:
        assert np.allclose(image.getpixel((10, 80)), (0, 0, 0), atol=12)
        assert np.allclose(image.getpixel((120, 80)), (250, 20, 20), atol=12)


def test_a_sample_is_a_small_copy(picture):
    pixels = picture(2048, 4096, 3)
    taken = sample(pixels)
    assert taken.rows.nbytes < pixels.nbytes / 15
    before = encode(taken, KEPT_SIDE)
    pixels[:] = 0
    assert encode(taken, KEPT_SIDE) == before, "the slot of the pixels is free by then"
    small = picture(8, 8, 3)
    assert not np.shares_memory(sample(small).rows, small)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float16])
def test_other_depths_look_the_same(dtype):
    full = {np.uint16: 65535}.get(dtype, 1)
    pixels = np.zeros((600, 300, 3), dtype)
    pixels[:300] = full
    with Image.open(io.BytesIO(thumbnail(pixels, KEPT_SIDE))) as image:
        assert image.size == (128, 256)
        assert (image.getpixel((60, 60)), image.getpixel((60, 200))) == ((255, 255, 255), (0, 0, 0))


def test_fine_stripes_become_grey_and_not_a_pattern():
    pixels = np.zeros((1024, 1024, 3), np.uint8)
    pixels[:, ::2] = 255
    with Image.open(io.BytesIO(thumbnail(pixels, KEPT_SIDE))) as image:
        low, high = image.convert("L").getextrema()
    assert 120 < low <= high < 136


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
def test_a_file_has_the_same_thumbnail_as_its_pixels(picture, tmp_path, ending):
    pixels = picture(900, 600, 3)
    file = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(file)
    with file.open("rb") as opened:
        of_pixels, of_saved = thumbnail(pixels, KEPT_SIDE), of_file(opened, file.stat().st_size)
    with Image.open(io.BytesIO(of_pixels)) as one, Image.open(io.BytesIO(of_saved)) as other:
        assert one.size == other.size == (171, 256)
        assert np.abs(np.asarray(one, float) - np.asarray(other, float)).mean() < 12


def test_a_file_that_is_another_one_or_no_image_has_none(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"no image")
    with file.open("rb") as opened:
        assert of_file(opened, 8) == of_file(opened, 9) == b""
