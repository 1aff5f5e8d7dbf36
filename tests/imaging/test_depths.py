"""Every format in every depth and number of channels, read back by decoders of other people."""

from __future__ import annotations

import numpy as np
import pytest
from decoders import comparable, of

from luna_farm.core import formats
from luna_farm.core.formats import BIT_DEPTHS, DEPTHS, DTYPES, TABLE, depth_warning, stored_depth, wire_dtype
from luna_farm.core.messages import SaveOptions
from luna_farm.imaging import depth as depths
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.metadata import NOTHING, embed

DTYPE = {"8": "uint8", "10": "uint16", "16": "uint16", "half": "float16", "float": "float32"}
MODULES = {"avif": "imagecodecs", "jxl": "imagecodecs", "exr": "OpenEXR", "heic": "pillow_heif"}
CASES = [
    (row.name, depth, channels)
    for row in TABLE
    for depth in row.depths
    for channels in (1, 3, 4)
    if channels < 4 or row.alpha
]
LOSSY = {"jpeg": 6, "heic": 6}
"""Formats without an exact mode -> the most that a value of 8 bits may be off at quality 100."""


def _image(depth, channels, height=50, width=61):
    rng = np.random.default_rng((channels, len(depth)))
    rows, columns = np.mgrid[0:height, 0:width]
    base = 0.5 + 0.3 * np.sin(columns / 17) + 0.1 * np.cos(rows / 9)
    values = np.stack([np.roll(base, 5 * c, 1) for c in range(channels)], axis=2)
    values = np.clip(values + rng.normal(0, 0.01, values.shape), 0, 1)
    dtype = np.dtype(DTYPE[depth])
    if dtype.kind == "f":
        return (values * 3 - 1).astype(dtype)  # beyond 0..1 on both sides
    return np.floor(values * np.iinfo(dtype).max).astype(dtype)


def _needs(name):
    if name in MODULES:
        pytest.importorskip(MODULES[name], reason=f"{name} needs this optional package")


@pytest.mark.parametrize("texts", [False, True], ids=["bare", "with texts"])
@pytest.mark.parametrize(("name", "depth", "channels"), CASES)
def test_two_decoders_read_the_same_pixels(options, task, name, depth, channels, texts):
    _needs(name)
    pixels = _image(depth, channels)
    job = options(
        lossy_quality=100, lossless_webp=True, bit_depth=depth if depth in ("half", "float") else "auto"
    )
    file = b"".join(encode(pixels, name, job, embed(job, task()) if texts else NOTHING).buffers)
    expected = depths.to_bits(pixels, 10) if depth == "10" else pixels
    read = []
    for title, decode in of(name, depth, channels).items():
        try:
            decoded = decode(file)
        except (ImportError, FileNotFoundError):
            continue
        if depth == "10" and decoded.max() > 1023:  # a tool that writes 16 bits
            decoded = depths.to_bits(decoded, 10)
        decoded = comparable(decoded, *pixels.shape)
        assert decoded.shape == pixels.shape, title
        off = np.abs(decoded.astype(np.float64) - expected.astype(np.float64)).max()
        assert off <= LOSSY.get(name, 0) * (4 if depth == "10" else 1), title
        read.append(title)
    if not read:
        pytest.skip(f"no decoder of {name} is installed here")


@pytest.mark.parametrize("name", [row.name for row in TABLE])
@pytest.mark.parametrize("bit_depth", BIT_DEPTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_was_asked_for_and_what_is_stored(dtype, bit_depth, name):
    stored = stored_depth(dtype, bit_depth, name)
    row = formats.FORMATS[name]
    assert stored in row.depths
    if bit_depth in row.depths:
        assert stored == bit_depth
    travels = wire_dtype(dtype, bit_depth, (name,))
    assert stored_depth(travels, bit_depth, name) == stored or travels == dtype
    if dtype in ("uint8", "uint16"):
        assert travels == dtype
        # Integers lose nothing by themselves where the format has room for them.
        assert bit_depth != "auto" or dtype == "uint8" or stored in ("16", "float") or "16" not in row.depths
    lost = bit_depth not in ("auto", "8") and DEPTHS.index(stored) < DEPTHS.index(bit_depth)
    lost |= bit_depth == "auto" and dtype == "uint16" and stored in ("8", "10")
    assert bool(depth_warning(dtype, bit_depth, name)) == lost


def test_the_warning_says_what_is_stored():
    said = depth_warning("uint16", "auto", "webp")
    assert said == "WebP holds at most 8 bits a channel here; the 16-bit values were scaled down to that."
    assert "half" not in depth_warning("float32", "float", "png")


def test_integers_are_rounded_to_fewer_bits():
    values = np.arange(65536, dtype=np.uint16).reshape(64, 1024, 1)
    exact = values.astype(np.float64)
    assert np.array_equal(depths.convert(values, "8"), np.floor(exact / 257 + 0.5).astype(np.uint8))
    assert np.array_equal(depths.to_bits(values, 10), np.floor(exact * 1023 / 65535 + 0.5).astype(np.uint16))
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    assert np.array_equal(depths.convert(levels, "16"), levels.astype(np.uint16) * 257)
    assert np.array_equal(depths.convert(depths.convert(levels, "16"), "8"), levels)


def test_floats_are_truncated_to_8_bits_and_rounded_to_16():
    values = np.random.default_rng(0).uniform(-0.2, 1.2, (40, 30, 3)).astype(np.float32)
    eight = np.clip(np.float32(255) * values, 0, 255).astype(np.uint8)
    sixteen = np.floor(np.clip(np.float32(65535) * values + np.float32(0.5), 0, 65535)).astype(np.uint16)
    assert np.array_equal(depths.convert(values, "8"), eight)
    assert np.array_equal(depths.convert(values, "16"), sixteen)


def test_integers_and_large_numbers_as_floats():
    assert depths.convert(np.full((1, 1, 1), 255, np.uint8), "half").item() == 1.0
    assert depths.convert(np.full((1, 1, 1), 65535, np.uint16), "float").item() == 1.0
    assert depths.convert(np.full((1, 1, 1), 1e6, np.float32), "half").item() == 65504.0


@pytest.mark.parametrize("name", ["webp", "jpeg"])
def test_16_bits_are_scaled_with_a_warning_where_a_format_holds_8(options, name):
    encoded = encode(_image("16", 3), name, options(), NOTHING)
    assert [warning for warning in encoded.warnings if "16-bit values were scaled" in warning]
    assert encode(_image("16", 3), name, options(bit_depth="8"), NOTHING).warnings == []


def test_pixels_of_the_right_depth_are_not_copied():
    pixels = _image("16", 3)
    assert depths.convert(pixels, "16") is pixels
    assert depths.to_floats(_image("half", 3), np.float16).dtype == np.float16


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", ["webp", "avif", "jxl"])
def test_lossless_is_lossless_in_each_format_that_it_names(name: str, dtype: str, channels: int) -> None:
    codecs = pytest.importorskip("imagecodecs", reason="AVIF and JPEG XL need imagecodecs")
    deepest = {"webp": 255, "avif": 1023, "jxl": 65_535}[name] if dtype == "uint16" else 255
    values = np.random.default_rng(0).integers(0, deepest + 1, (33, 31, channels))
    values[:5, :, 3:] = 0  # what is hidden is kept, too
    given = values if dtype == "uint8" else np.round(values * (65_535 / deepest))
    options = SaveOptions(output_dir="/", lossless_webp=True, lossy_quality=80)
    file = b"".join(encode(given.astype(dtype), name, options, NOTHING).buffers)
    decoded = getattr(codecs, {"jxl": "jpegxl"}.get(name, name) + "_decode")(file)
    decoded = decoded.reshape(33, 31, -1)[..., :channels]
    assert np.array_equal(decoded, values)
