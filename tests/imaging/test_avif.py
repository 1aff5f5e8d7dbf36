"""AVIF: the frontend finds the workflow, and a Pillow without the codec says so."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image, features

from luna_farm.errors import EncodeError
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.metadata import NOTHING, embed
from luna_farm.testing import readers

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")


@needs_avif
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_workflow_loads_in_the_frontend(options, task, picture, channels):
    job = options()
    pixels = picture(40, 24, channels)
    file = b"".join(encode(pixels, "avif", job, embed(job, task())).buffers)
    texts = readers.avif_texts(file)
    assert texts["workflow"] == json.loads(job.extra_pnginfo)["workflow"]
    assert texts["prompt"] == json.loads(job.prompt)
    with Image.open(io.BytesIO(file)) as image:
        decoded = np.asarray(image)
        assert readers.parameters(image.info["exif"].removeprefix(b"Exif\0\0")).startswith("a café")
    colours = np.repeat(pixels, 3, axis=2) if channels == 1 else pixels
    assert np.abs(decoded.astype(int) - colours).mean() < 6


@needs_avif
def test_none_writes_no_exif(options, picture):
    file = b"".join(encode(picture(16, 16, 3), "avif", options(), NOTHING).buffers)
    assert b"Exif" not in file


def test_a_pillow_without_the_codec_says_what_to_do(options, picture, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(EncodeError, match=r"no AVIF; allowed: pillow>=11\.3"):
        encode(picture(2, 2, 3), "avif", options(), NOTHING)
