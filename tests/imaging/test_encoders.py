"""The one door: every format, odd sizes, and metadata that may fail without taking the picture along."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from luna_farm.core.messages import FORMATS
from luna_farm.errors import EncodeError, InvalidRequest
from luna_farm.imaging import metadata_exif, metadata_png
from luna_farm.imaging.encoders import encode, webp
from luna_farm.imaging.metadata import NOTHING, embed

SIZES = [(1, 1), (1, 7), (9, 1), (33, 65)]
MODULES = {"jxl": "imagecodecs", "exr": "OpenEXR", "heic": "pillow_heif"}


def _decode(name, file):
    if name == "exr":
        exr = pytest.importorskip("OpenEXR", reason="EXR is read and written by OpenEXR")
        (channel,) = exr.File(io.BytesIO(file)).channels().values()
        return channel.pixels
    if name == "heic":
        heif = pytest.importorskip("pillow_heif", reason="HEIC is read and written by pillow-heif")
        return np.asarray(heif.open_heif(file))
    if name == "jxl":
        imagecodecs = pytest.importorskip("imagecodecs", reason="JPEG XL is read and written by imagecodecs")
        return imagecodecs.jpegxl_decode(file)
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_every_size_and_channel_count(options, task, picture, name, channels):
    if name in MODULES:
        pytest.importorskip(MODULES[name], reason=f"{name} needs this optional package")
    for height, width in SIZES:
        for embedded in (NOTHING, embed(options(), task())):
            encoded = encode(picture(height, width, channels), name, options(), embedded)
            decoded = _decode(name, b"".join(encoded.buffers))
            assert decoded.shape[:2] == (height, width)
            assert encoded.sidecar is None


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["png", "tiff"])
def test_lossless_formats_return_the_same_pixels(options, task, picture, name, channels):
    for height, width in SIZES:
        pixels = picture(height, width, channels)
        file = b"".join(encode(pixels, name, options(), embed(options(), task())).buffers)
        assert np.array_equal(_decode(name, file).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("name", FORMATS)
def test_the_pixels_are_read_and_left_alone(options, picture, name):
    if name in MODULES:
        pytest.importorskip(MODULES[name], reason=f"{name} needs this optional package")
    pixels = picture(40, 30, 4)
    before = pixels.copy()
    pixels.flags.writeable = False
    encode(pixels, name, options(), NOTHING)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float64),
        np.zeros((4, 4, 3), np.dtype(np.uint16).newbyteorder()),  # not the order of this machine
        np.zeros((4, 8, 3), np.uint8)[:, ::2],
    ],
)
def test_other_pixels_are_refused(options, pixels):
    with pytest.raises(InvalidRequest, match=r"pixels: .* is not allowed"):
        encode(pixels, "png", options(), NOTHING)


def test_an_unknown_format_is_refused(options, picture):
    with pytest.raises(InvalidRequest, match=r"format: 'gif'.*png, webp, jpeg"):
        encode(picture(2, 2, 3), "gif", options(), NOTHING)


@pytest.mark.parametrize(
    ("name", "module"), [("png", metadata_png), ("webp", metadata_exif), ("tiff", metadata_exif)]
)
def test_metadata_that_fails_is_left_out_and_the_picture_saved(
    options, task, picture, monkeypatch, name, module
):
    genuine = {
        function: getattr(module, function)
        for function in ("chunks", "block", "sidecar")
        if hasattr(module, function)
    }

    def break_unless_empty(function):
        def broken(embedded):
            if embedded.empty:
                return genuine[function](embedded)
            raise RuntimeError("no way")

        return broken

    for function in genuine:
        monkeypatch.setattr(module, function, break_unless_empty(function))
    encoded = encode(picture(8, 8, 3), name, options(), embed(options(), task()))
    assert _decode(name, b"".join(encoded.buffers)).shape == (8, 8, 3)
    assert "left out" in encoded.warnings[0]
    assert "no way" in encoded.warnings[0]


def test_warnings_about_the_metadata_reach_the_report(options, task, picture):
    job = options(prompt="{")
    assert "prompt is not readable" in encode(picture(2, 2, 3), "png", job, embed(job, task())).warnings[0]


def test_a_codec_that_fails_is_an_encode_error(options, task, picture, monkeypatch):
    def broken(*_):
        raise OSError("broken data stream")

    monkeypatch.setattr(webp, "compress", broken)
    with pytest.raises(EncodeError, match=r"2x3x3 .* as webp: broken data stream"):
        encode(picture(2, 3, 3), "webp", options(), embed(options(), task()))


@pytest.mark.parametrize(("name", "limit"), [("jpeg", 65_500), ("webp", 16_383)])
def test_a_picture_too_large_for_its_format_is_refused_in_words(options, name, limit):
    with pytest.raises(EncodeError, match=rf"at most {limit} .* {limit + 1} x 1; allowed: .*png"):
        encode(np.zeros((limit + 1, 1, 1), np.uint8), name, options(), NOTHING)


def test_a_worker_that_writes_png_loads_no_image_library():
    code = """
import sys, numpy as np
from luna_farm.core.messages import SaveOptions
from luna_farm.imaging import quality
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.metadata import NOTHING
encode(np.zeros((4, 4, 3), np.uint8), "png", SaveOptions(output_dir="/out"), NOTHING)
print([name for name in ("PIL", "simplejpeg", "imagecodecs", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["png", "webp", "jpeg", "tiff"])
def test_a_sidecar_is_always_written_where_it_is_wanted(options, task, picture, name):
    job = options(sidecar="always")
    encoded = encode(picture(4, 4, 3), name, job, embed(job, task()))
    assert encoded.sidecar is not None
    read = json.loads(encoded.sidecar)
    assert read["workflow"] == json.loads(job.extra_pnginfo)["workflow"]
    assert read["parameters"].startswith("a café at night")
    assert encode(picture(4, 4, 3), name, options(embed="none", sidecar="always"), NOTHING).sidecar is None


@pytest.mark.parametrize("name", ["png", "jpeg"])
def test_what_is_too_deep_or_too_much_for_a_file_goes_beside_it(options, task, picture, name):
    deep = "[" * 400 + "]" * 400
    job = options(custom_metadata=deep, extra_pnginfo=json.dumps({f"k{n}": n for n in range(250)}))
    encoded = encode(picture(4, 4, 3), name, job, embed(job, task()))
    assert encoded.sidecar is not None
    read = json.loads(encoded.sidecar)
    assert read["custom_metadata"] == deep
    assert read["k249"] == 249
    assert sum(".json beside" in warning for warning in encoded.warnings) == 2
    never = options(custom_metadata=deep, sidecar="never")
    assert encode(picture(4, 4, 3), name, never, embed(never, task())).sidecar is None
