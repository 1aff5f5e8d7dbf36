"""Smaller images: no colour from under transparent pixels, no darkening in linear light, every depth."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from luna_farm.imaging import resize


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [((768, 1024), 256, (192, 256)), ((1024, 768), 256, (256, 192)), ((10, 5000), 100, (1, 100))],
)
def test_the_longer_side_decides(size, most, expected):
    assert resize.size_within(*size, most) == expected
    assert resize.within(np.zeros((*size, 3), np.uint8), most).shape == (*expected, 3)


def test_nothing_is_enlarged_or_copied(picture):
    pixels = picture(30, 40, 3)
    assert resize.within(pixels, 40) is pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_opaque_8_bits_are_pillows(picture, channels):
    pixels = picture(90, 120, channels)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    expected = np.asarray(image.resize((60, 45), Image.Resampling.LANCZOS)).reshape(45, 60, channels)
    assert np.array_equal(resize.within(pixels, 60), expected)


@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_depths_agree_with_8_bits(picture, dtype, channels):
    eight = picture(90, 120, channels)
    eight[..., 3:] = 255
    deep = eight.astype(np.uint16) * 257 if dtype == "uint16" else (eight / 255).astype(dtype)
    small = resize.within(deep, 60)
    assert (small.dtype, small.shape) == (np.dtype(dtype), (45, 60, channels))
    scale = 257 if dtype == "uint16" else 1 / 255
    assert np.abs(small.astype(float) / scale - resize.within(eight, 60).astype(float)).max() < 1.2


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_hidden_colours_do_not_bleed(dtype):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (255, 0, 0, 0)  # hidden red
    pixels[:, 32:] = (0, 0, 255, 255)
    if dtype == "uint16":
        pixels = pixels.astype(np.uint16) * 257
    if dtype == "float32":
        pixels = (pixels / 255).astype(np.float32)
    small = resize.within(pixels, 21)
    full = 255 if dtype == "uint8" else 65535 if dtype == "uint16" else 1
    seen = small[small[..., 3] > full * 0.05]
    assert seen[:, 0].max() <= full * 0.02
    assert seen[:, 2].min() >= full * 0.98
    assert small[..., 3].min() == 0
    assert small[..., 3].max() == full


def test_linear_light_keeps_the_brightness_of_fine_structure():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 255  # half of the light, which is 188 in sRGB
    assert abs(int(resize.within(pixels, 16)[8, 8, 0]) - 128) <= 2
    assert abs(int(resize.within(pixels, 16, linear=True)[8, 8, 0]) - 188) <= 2


def test_floats_beyond_the_range_survive():
    pixels = np.full((40, 40, 3), 7.5, np.float32)
    assert resize.within(pixels, 20) == pytest.approx(7.5)
