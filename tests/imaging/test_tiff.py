"""TIFF: read by Pillow (libtiff) pixel for pixel, metadata in ImageDescription."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from luna_farm.errors import EncodeError
from luna_farm.imaging.encoders import encode, tiff
from luna_farm.imaging.metadata import NOTHING, embed


def _open(pixels, options, embedded=NOTHING):
    return Image.open(io.BytesIO(b"".join(encode(pixels, "tiff", options, embedded).buffers)))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (700, 301), (3, 90_000), (2000, 1)])
def test_pixels_are_the_same_in_one_strip_or_many(options, picture, size, channels):
    pixels = picture(*size, channels)
    with _open(pixels, options()) as image:
        assert image.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_the_directory_begins_on_a_word(options, picture):
    for width in range(1, 20):
        file = b"".join(encode(picture(3, width, 3), "tiff", options(), NOTHING).buffers)
        assert int.from_bytes(file[4:8], "little") % 2 == 0


def test_the_standard_library_stands_in(options, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "zlib_ng", None)
    pixels = picture(40, 30, 3)
    with _open(pixels, options()) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_metadata_is_one_json_object(options, task, picture):
    job = options()
    with _open(picture(20, 20, 3), job, embed(job, task())) as image:
        read = json.loads(image.tag_v2[270])  # type: ignore[attr-defined]
    assert read["workflow"] == json.loads(job.extra_pnginfo)["workflow"]
    assert read["parameters"].startswith("a café at night")


def test_none_writes_no_description(options, picture):
    with _open(picture(20, 20, 3), options()) as image:
        assert 270 not in image.tag_v2  # type: ignore[attr-defined]


def test_more_than_the_format_addresses_is_refused(options, picture, monkeypatch):
    monkeypatch.setattr(tiff, "_LARGEST_FILE", 100)
    with pytest.raises(EncodeError, match="at most 4 GiB"):
        encode(picture(9, 9, 3), "tiff", options(), NOTHING)
