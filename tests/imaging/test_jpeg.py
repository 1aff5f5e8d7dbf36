"""JPEG: the same file by either encoder, full colour from 90 on, and more metadata than EXIF can hold."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from luna_farm.imaging import metadata_exif
from luna_farm.imaging.documents import Item
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.encoders.jpeg import LONGEST_EXIF
from luna_farm.imaging.metadata import NOTHING, Embedded, embed
from luna_farm.testing import readers


@pytest.fixture(params=["simplejpeg", "pillow"])
def either(request, monkeypatch):
    """Run a test with simplejpeg and, as where it is not installed, without."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg", reason="the optional encoder is not installed")
    else:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    return request.param


def _file(pixels, options, embedded=NOTHING):
    return b"".join(encode(pixels, "jpeg", options, embedded).buffers)


@pytest.mark.parametrize(("quality", "subsampling"), [(70, 2), (89, 2), (90, 0), (100, 0)])
def test_colour_is_kept_whole_from_90_on(either, options, picture, quality, subsampling):
    with Image.open(io.BytesIO(_file(picture(64, 64, 3), options(lossy_quality=quality)))) as image:
        assert JpegImagePlugin.get_sampling(image) == subsampling


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_it_looks_like_the_picture(either, options, picture, channels):
    pixels = picture(64, 48, channels)
    pixels[:, :, 3:] = 255
    with Image.open(io.BytesIO(_file(pixels, options(lossy_quality=97)))) as image:
        decoded = np.asarray(image).reshape(64, 48, -1)
    assert np.abs(decoded.astype(int) - pixels[:, :, : decoded.shape[2]]).mean() < 2


@pytest.mark.parametrize(("background", "under"), [("#ffffff", (255, 255, 255)), ("#204060", (32, 64, 96))])
def test_what_is_transparent_is_laid_on_the_background(either, options, background, under):
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[:, :16] = (255, 0, 0, 0)  # a hidden colour
    pixels[:, 16:32] = (200, 100, 0, 128)
    pixels[:, 32:] = (10, 200, 30, 255)
    encoded = encode(pixels, "jpeg", options(lossy_quality=100, background=background), NOTHING)
    assert encoded.warnings == [f"JPEG holds no transparency; the image was laid on {background}"]
    with Image.open(io.BytesIO(b"".join(encoded.buffers))) as image:
        decoded = np.asarray(image).astype(int)
    half = [round((200, 100, 0)[c] * 128 / 255 + under[c] * 127 / 255) for c in range(3)]
    for column, expected in ((8, under), (24, half), (40, (10, 200, 30))):
        assert np.abs(decoded[16, column] - expected).max() <= 2


def test_an_opaque_image_needs_no_background(either, options, picture):
    pixels = picture(8, 8, 4)
    pixels[:, :, 3] = 255
    assert encode(pixels, "jpeg", options(), NOTHING).warnings == []


def test_metadata_is_in_exif(either, options, task, picture):
    job = options()
    file = _file(picture(16, 16, 3), job, embed(job, task()))
    block = readers.jpeg_exif(file)
    texts = readers.exif_texts(block)
    assert json.loads(texts[0x0110].removeprefix("prompt:")) == json.loads(job.prompt)
    assert readers.parameters(block).startswith("a café at night")
    with Image.open(io.BytesIO(file)) as image:
        assert image.getexif()[0x0110] == texts[0x0110]
    assert [file[place : place + 2] for place in (0, 2, 20)] == [b"\xff\xd8", b"\xff\xe0", b"\xff\xe1"]


def test_none_writes_no_exif(either, options, picture):
    assert b"Exif" not in _file(picture(16, 16, 3), options())


def _of_size(total: int, parameters: str = "") -> Embedded:
    """Make metadata whose EXIF has this many bytes, the six of its name included."""
    without = len(metadata_exif.block(Embedded(graph=(Item("w", "x" * 10, False),), parameters=parameters)))
    text = "x" * (total - 6 - without + 10 + (total - 6 - without) % 2)
    return Embedded(graph=(Item("w", text, False),), parameters=parameters)


def test_exactly_as_much_as_fits_is_embedded(options, picture):
    # EXIF has an even length, so the largest is one below the limit.
    fits = encode(picture(4, 4, 3), "jpeg", options(), _of_size(LONGEST_EXIF - 1))
    assert fits.sidecar is None
    file = b"".join(fits.buffers)
    assert len(readers.jpeg_exif(file)) + 6 == LONGEST_EXIF - 1
    with Image.open(io.BytesIO(file)) as image:
        image.load()


def test_more_goes_beside_the_picture_and_the_report_says_so(options, picture):
    encoded = encode(picture(4, 4, 3), "jpeg", options(), _of_size(LONGEST_EXIF + 1, parameters="Steps: 1"))
    assert ".json" in encoded.warnings[0]
    assert encoded.sidecar is not None
    assert set(json.loads(encoded.sidecar)) == {"w", "parameters"}
    # What galleries read still fits and is not taken away.
    assert readers.parameters(readers.jpeg_exif(b"".join(encoded.buffers))) == "Steps: 1"


def test_parameters_too_long_for_exif_go_beside_it_too(options, picture):
    encoded = encode(picture(4, 4, 3), "jpeg", options(), Embedded(parameters="x" * 70_000))
    assert encoded.sidecar is not None
    assert readers.jpeg_exif(b"".join(encoded.buffers)) == b""


def _large(**sizes: int) -> Embedded:
    graph = tuple(Item(key, "x" * size, False) for key, size in sizes.items())
    return Embedded(graph=graph, parameters="Steps: 1", fields=(Item("image_type", "RAW", False),))


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ({"prompt": 50_000, "workflow": 50_000}, {"workflow", "image_type"}),
        ({"prompt": 50_000, "workflow": 70_000}, {"prompt", "image_type"}),
        ({"prompt": 20_000, "workflow": 30_000, "other": 40_000}, {"prompt", "workflow", "image_type"}),
        ({"prompt": 70_000, "workflow": 70_000, "other": 100}, {"other", "image_type"}),
    ],
)
def test_what_fits_stays_in_the_image_workflow_first(options, picture, sizes, kept):
    encoded = encode(picture(4, 4, 3), "jpeg", options(), _large(**sizes))
    block = readers.jpeg_exif(b"".join(encoded.buffers))
    assert {text.partition(":")[0] for text in readers.exif_texts(block).values()} == kept
    assert readers.parameters(block) == "Steps: 1"
    assert encoded.sidecar is not None
    assert set(json.loads(encoded.sidecar)) == {*sizes, "image_type", "parameters"}
    assert "all of it is in a .json file" in encoded.warnings[0]


def test_no_sidecar_where_none_is_wanted(options, picture):
    encoded = encode(picture(4, 4, 3), "jpeg", options(sidecar="never"), _large(workflow=70_000))
    assert encoded.sidecar is None
    assert "it was left out" in encoded.warnings[0]
