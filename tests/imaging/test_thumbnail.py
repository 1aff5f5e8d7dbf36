"""Small, of the right shape, recognisable."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from luna_farm.imaging.thumbnail import thumbnail


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
