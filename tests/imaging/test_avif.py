"""AVIF: the frontend finds the workflow, and a Pillow without the codec says so."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image, features

from luna_farm.errors import EncodeError
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.metadata import NOTHING, embed
from luna_farm.testing import readers

STRIPES = np.zeros((32, 32, 3), np.uint8)
STRIPES[:, ::2, 0] = STRIPES[:, 1::2, 2] = 255  # red and blue columns of one pixel
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")


@needs_avif
@pytest.mark.parametrize("by", ["imagecodecs", "Pillow"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_workflow_loads_in_the_frontend(options, task, picture, channels, by, monkeypatch):
    if by == "Pillow":
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
    job = options()
    pixels = picture(40, 24, channels)
    file = b"".join(encode(pixels, "avif", job, embed(job, task())).buffers)
    texts = readers.avif_texts(file)
    assert texts["workflow"] == json.loads(job.extra_pnginfo)["workflow"]
    assert texts["prompt"] == json.loads(job.prompt)
    with Image.open(io.BytesIO(file)) as image:
        decoded = np.asarray(image)
        assert readers.parameters(image.info["exif"].removeprefix(b"Exif\0\0")).startswith("a café")
    # Pillow 12 and later keep gray in one channel.
    assert np.abs(decoded.reshape(40, 24, -1).astype(int) - pixels).mean() < 6


@needs_avif
@pytest.mark.parametrize("quality", [70, 89, 90, 99, 100])
def test_colour_is_kept_whole_from_90_on(options, quality):
    if quality == 100:
        pytest.importorskip("imagecodecs", reason="exact AVIF is written by imagecodecs")
    file = b"".join(encode(STRIPES, "avif", options(lossy_quality=quality), NOTHING).buffers)
    with Image.open(io.BytesIO(file)) as image:
        off = np.abs(np.asarray(image).astype(int) - STRIPES).max()
    assert off == 0 if quality == 100 else (off < 60) == (quality >= 90)


@needs_avif
def test_none_writes_no_exif(options, picture):
    file = b"".join(encode(picture(16, 16, 3), "avif", options(), NOTHING).buffers)
    assert b"Exif" not in file


def test_a_pillow_without_the_codec_says_what_to_do(options, picture, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(EncodeError, match=r"no AVIF; allowed: pillow>=11\.3"):
        encode(picture(2, 2, 3), "avif", options(), NOTHING)
