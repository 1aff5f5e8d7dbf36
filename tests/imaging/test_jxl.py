"""JPEG XL: exact at 100, metadata in a box of its own, a sentence where the package is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from luna_farm.errors import EncodeError
from luna_farm.imaging.encoders import encode, jxl
from luna_farm.imaging.metadata import NOTHING, embed
from luna_farm.testing import readers


@pytest.fixture
def codec():
    return pytest.importorskip(
        "imagecodecs", reason="JPEG XL is read and written by the optional imagecodecs"
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bare", [True, False])
def test_quality_100_is_exact(codec, options, task, picture, channels, bare):
    pixels = picture(33, 20, channels)
    embedded = NOTHING if bare else embed(options(), task())
    file = b"".join(encode(pixels, "jxl", options(lossy_quality=100), embedded).buffers)
    assert np.array_equal(codec.jpegxl_decode(file).reshape(pixels.shape), pixels)


def test_less_is_smaller_and_close(codec, options, picture):
    pixels = picture(64, 64, 3)
    sizes = []
    for quality in (70, 90, 100):
        file = b"".join(encode(pixels, "jxl", options(lossy_quality=quality), NOTHING).buffers)
        assert np.abs(codec.jpegxl_decode(file).astype(int) - pixels).mean() < 6
        sizes.append(len(file))
    assert sizes == sorted(sizes)


def test_boxes(codec, options, task, picture):
    file = b"".join(encode(picture(8, 8, 3), "jxl", options(), embed(options(), task())).buffers)
    boxes, at = {}, 0
    while at < len(file):
        length = int.from_bytes(file[at : at + 4], "big")
        boxes[file[at + 4 : at + 8]] = file[at + 8 : at + length]
        at += length
    assert list(boxes) == [b"JXL ", b"ftyp", b"Exif", b"jxlc"]
    assert boxes[b"Exif"][:4] == bytes(4)
    assert readers.exif_texts(boxes[b"Exif"][4:])[0x010F].startswith("workflow:")


def test_distance_is_libjxls():
    assert jxl.distance(90) == pytest.approx(1.0)
    assert jxl.distance(70) == pytest.approx(2.8)
    assert jxl.distance(10) == pytest.approx(15.2667, abs=1e-3)


def test_a_missing_package_says_what_to_install(options, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(EncodeError, match=r"pip install \"luna-farm\[formats\]\""):
        encode(picture(2, 2, 3), "jxl", options(), NOTHING)
