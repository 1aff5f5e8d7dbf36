"""png.py: whatever goes in comes out of a foreign decoder, at every level."""

from __future__ import annotations

import io
import itertools
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from luna_farm.imaging.encoders import png, png_library


def decoded(pixels: np.ndarray, level: int, chunks: tuple[bytes, ...] = ()) -> Image.Image:
    image = Image.open(io.BytesIO(b"".join(png.encode(pixels, level=level, chunks=chunks))))
    image.load()
    return image


def picture(height: int, width: int, channels: int, content: str) -> np.ndarray:
    """Test contents by name: what an encoder meets at its best and at its worst."""
    rng = np.random.default_rng(height * 7919 + width * 31 + channels)
    shape = (height, width, channels)
    if content == "noise":
        return rng.integers(0, 256, shape, np.uint8)
    if content == "flat":
        return np.full(shape, 200, np.uint8)
    if content == "smooth":
        y, x = np.mgrid[:height, :width]
        wave = 120 + 60 * np.sin(x / 17) + 60 * np.cos(y / 23)
        return np.clip(wave[..., None] + rng.normal(0, 2, shape), 0, 255).astype(np.uint8)
    if content == "gradient":
        y, x = np.mgrid[:height, :width]
        return np.stack([x // 4 + y * channel // 3 for channel in range(channels)], -1).astype(np.uint8)
    if content == "tiles":
        tile = rng.integers(0, 256, (16, 16, channels), np.uint8)
        return np.tile(tile, (height // 16 + 1, width // 16 + 1, 1))[:height, :width].copy()
    if content == "black":
        return np.zeros(shape, np.uint8)
    if content == "dots":
        return np.where(rng.random(shape) < 0.01, rng.integers(1, 256, shape), 0).astype(np.uint8)
    return np.repeat(rng.integers(0, 2, (height, width, 1), np.uint8) * 255, channels, axis=2)  # "lines"


CONTENTS = ("noise", "flat", "smooth", "gradient", "tiles", "black", "dots", "lines")


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_level_and_channel_count_decodes_to_the_same_pixels(level: int, channels: int) -> None:
    for content in CONTENTS:
        pixels = picture(67, 45, channels, content)
        assert np.array_equal(np.asarray(decoded(pixels, level)).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("content", CONTENTS)
def test_pictures_of_several_blocks_decode_to_the_same_pixels(level: int, content: str) -> None:
    pixels = picture(400, 250, 3, content)
    assert np.array_equal(np.asarray(decoded(pixels, level)), pixels)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 300), st.integers(1, 4), st.integers(0, 9), st.sampled_from(CONTENTS)
)
def test_any_size_decodes_to_the_same_pixels(
    height: int, width: int, channels: int, level: int, content: str
) -> None:
    pixels = picture(height, width, channels, content)
    assert np.array_equal(np.asarray(decoded(pixels, level)).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("level", range(10))
def test_sixteen_bit_gray_survives(level: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 2**16, (33, 21, 1)).astype(np.uint16)
    assert np.array_equal(np.asarray(decoded(pixels, level)), pixels[..., 0])


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("content", CONTENTS)
def test_a_picture_in_strips_is_the_same_picture(
    level: int, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(211, 97, 3, content)
    monkeypatch.setattr(png, "_strip_count", lambda picture_bytes: 7)
    assert np.array_equal(np.asarray(decoded(pixels, level)), pixels)
    monkeypatch.setattr(png, "_strip_count", lambda picture_bytes: 1000)
    assert np.array_equal(np.asarray(decoded(pixels, level)), pixels)


def test_only_large_pictures_are_shared_and_no_strip_passes_the_limit() -> None:
    assert png._strip_count(1024 * 1024 * 3) == 1
    assert 1 <= png._strip_count(8192 * 8192 * 3) <= png._THREADS
    assert png._strip_count(100 * 2**30) == 200


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_without_a_compiler_the_library_writes_the_same_pixels(
    level: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "_png", None)
    assert png.backend() == "library"
    for content in CONTENTS:
        pixels = picture(67, 45, channels, content)
        assert np.array_equal(np.asarray(decoded(pixels, level)).reshape(pixels.shape), pixels)
    deep = np.random.default_rng(2).integers(0, 2**16, (33, 21, 1)).astype(np.uint16)
    assert np.array_equal(np.asarray(decoded(deep, level)), deep[..., 0])


@pytest.mark.parametrize("missing", ["zlib_ng", "isal", "deflate"])
def test_without_the_quick_libraries_the_standard_one_serves(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "_png", None)
    monkeypatch.setitem(sys.modules, missing, None)
    pixels = picture(67, 45, 3, "smooth")
    for level in range(10):
        assert np.array_equal(np.asarray(decoded(pixels, level)), pixels)


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("content", ["noise", "smooth", "gradient", "tiles", "flat"])
@pytest.mark.parametrize(("height", "width"), [(1, 300_001), (2, 200_003), (300_001, 1)])
def test_very_long_and_very_high_images_decode_to_the_same_pixels(
    height: int, width: int, content: str, level: int
) -> None:
    pixels = picture(height, width, 3, content)
    assert np.array_equal(np.asarray(decoded(pixels, level)), pixels)


def drawings() -> dict[str, np.ndarray]:
    """What is drawn, rendered or computed: flat areas, edges, patterns, one colour."""
    y, x = np.mgrid[:512, :512]
    disc = (np.hypot(x - 250, y - 260) < 130) * 255
    bands = np.hypot(x - 100, y - 60) // 7 % 5 * 40
    edges = np.hypot(x - 250, y - 260) % 37 < 1.2
    cells = np.random.default_rng(4).integers(0, 12, (64, 64)).repeat(8, 0).repeat(8, 1) * 20
    planes = {"disc": disc, "bands": bands, "edges": edges * 255, "cells": cells, "white": x * 0 + 255}
    return {name: np.repeat(plane[..., None], 3, 2).astype(np.uint8) for name, plane in planes.items()}


@pytest.mark.parametrize("name", drawings())
def test_drawings_are_about_as_small_as_pillow_makes_them(name: str) -> None:
    pixels, file = drawings()[name], io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=4)
    assert sum(len(part) for part in png.encode(pixels, level=4)) <= 1.1 * file.tell() + 100


@pytest.mark.parametrize("shape", [(60_000, 1), (30_000, 2), (4_000, 3), (1, 60_000), (2, 30_000)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("content", ["one colour", "stripes", "tiles"])
def test_what_repeats_itself_is_found_however_narrow_the_image(
    shape: tuple[int, int], channels: int, content: str
) -> None:
    """Of rows of a few bytes, a few rows show nothing."""
    high, wide = shape
    y, x = np.mgrid[:high, :wide]
    cell = np.random.default_rng(8).integers(0, 256, (8, 8, channels), np.uint8)
    pixels = {"one colour": cell[y * 0, x * 0], "stripes": cell[(y + x) % 7, 0], "tiles": cell[y % 8, x % 8]}[
        content
    ]
    assert np.array_equal(np.asarray(decoded(pixels, 4)), pixels if channels > 1 else pixels[..., 0])
    assert sum(len(part) for part in png.encode(pixels, level=4)) <= 0.06 * pixels.nbytes + 300


@given(seed=st.integers(0, 2**32), side=st.integers(60, 400), quality=st.integers(70, 92))
@settings(max_examples=40, deadline=None)
def test_decoded_jpeg_is_sent_with_shorter_runs_and_decodes_to_the_same_pixels(
    seed: int, side: int, quality: int
) -> None:
    """Its flat areas are frayed: runs of five to seven are what levels 3 and 4 gain over level 2."""
    rng, file = np.random.default_rng(seed), io.BytesIO()
    grain = rng.normal(128, 4, (side // 12 + 2, side // 12 + 2, 3)).astype(np.uint8)
    soft = np.asarray(Image.fromarray(grain).resize((side, side), Image.Resampling.BICUBIC))
    noisy = soft + rng.normal(0, 2, (side, side, 1))
    Image.fromarray(noisy.astype(np.uint8)).save(file, "JPEG", quality=quality)
    pixels = np.asarray(Image.open(file))
    assert np.array_equal(np.asarray(decoded(pixels, 4)), pixels)
    sizes = [sum(len(part) for part in png.encode(pixels, level=level)) for level in (2, 4)]
    assert sizes[1] <= sizes[0] * 1.01 + 50


@pytest.mark.parametrize("side", [48, 130, 400])
def test_noise_on_even_ground_is_left_unfiltered(side: int) -> None:
    """The difference of two noisy pixels is noisier than either."""
    noise = np.random.default_rng(5).normal(150, 1.2, (side, side, 3)).astype(np.uint8)
    rows = np.concatenate([np.zeros((side, 1), np.uint8), noise.reshape(side, -1)], axis=1).tobytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    unfiltered = len(packer.compress(rows) + packer.flush())
    assert sum(len(part) for part in png.encode(noise, level=4)) <= 1.02 * unfiltered + 100


@pytest.mark.parametrize("side", [128, 256, 400, 640])
def test_a_photograph_in_the_middle_of_a_page_does_not_hide_the_page(side: int) -> None:
    """Whatever small places are looked at: five sixths of the image are a few letters again and again."""
    rng = np.random.default_rng(6)
    letters = np.full((4, 16, 16, 3), 250, np.uint8)
    letters[:, 5:12, 5:12] = rng.integers(0, 2, (4, 7, 7, 1), np.uint8) * 200
    text = letters[rng.integers(0, 4, (side // 16, side // 16))]
    page = np.ascontiguousarray(text.swapaxes(1, 2)).reshape(side // 16 * 16, -1, 3)
    middle = slice(side * 3 // 10, side * 7 // 10)
    page[middle, middle] = rng.integers(0, 256, page[middle, middle].shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(page).save(file, "PNG", compress_level=4)
    assert sum(len(part) for part in png.encode(page, level=4)) <= 1.05 * file.tell()


@pytest.mark.parametrize("level", [1, 4])
@pytest.mark.parametrize("side", [400, 512])
def test_a_photograph_beside_text_costs_no_more_than_with_pillow(side: int, level: int) -> None:
    """A quarter is a photograph, the rest enlarged text on white, which few small places show."""
    pytest.importorskip("luna_farm.imaging._png", reason="the PNG kernel was not built")
    rng = np.random.default_rng(1)
    letters = rng.integers(0, 2, (26, 8, 6)) * 200
    letters[:, 7:] = letters[:, :, 5:] = 0
    page = np.full((side, side), 245)
    for top in range(6, side - 8, 28):
        line = letters[rng.integers(0, 26, (side - 16) // 6)]
        page[top : top + 8, 8 : 8 + 6 * len(line)] -= np.concatenate(line, 1)
    drawn = Image.fromarray(page.astype(np.uint8)).resize((side * 13 // 10,) * 2, Image.Resampling.BICUBIC)
    pixels = np.array(drawn.convert("RGB").crop((0, 0, side, side)))
    half = side // 2
    noise = Image.fromarray(rng.integers(0, 256, (half, half, 3), np.uint8)).filter(
        ImageFilter.GaussianBlur(2)
    )
    photograph = (np.array(noise, float) - 128) * 8 + 128 + rng.normal(0, 1.5, (half, half, 3))
    pixels[half - 20 : 2 * half - 20, half : 2 * half] = np.clip(photograph, 0, 255)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=4)
    found = b"".join(png.encode(pixels, level=level))
    assert len(found) <= 1.02 * file.tell()
    assert np.array_equal(np.array(Image.open(io.BytesIO(found))), pixels)


@pytest.mark.parametrize("name", ["bands", "edges", "cells"])
def test_the_highest_level_is_as_small_as_the_best_filter_and_libdeflate(name: str) -> None:
    deflate = pytest.importorskip("deflate")
    pixels = drawings()[name][:200, :200].copy()
    best = min(
        len(deflate.zlib_compress(png_library._filtered(pixels, (chosen,)).tobytes(), 12))
        for chosen in range(5)
    )
    assert sum(len(part) for part in png.encode(pixels, level=9)) <= 1.02 * best + 100


@pytest.mark.parametrize("level", [8, 9])
@pytest.mark.parametrize("name", sorted(drawings()))
def test_the_highest_levels_find_what_noise_leaves(name: str, level: int) -> None:
    """Of black with noise half is black, so there are matches left, which reach further than a sample."""
    deflate = pytest.importorskip("deflate")
    pixels = np.tile(drawings()[name], (2, 2, 1))[:600, :600]
    noise = np.random.default_rng(2).normal(0, 1.2, pixels.shape)
    pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    best = min(
        len(deflate.zlib_compress(png_library._filtered(pixels, (chosen,)).tobytes(), 12))
        for chosen in range(5)
    )
    assert sum(len(part) for part in png.encode(pixels, level=level)) <= 1.02 * best


def pixel_art(side: int) -> NDArray[np.uint8]:
    """Squares of 4x4 pixels in six colours, of which many repeat the one to their left."""
    dice = np.random.default_rng(5)
    squares = dice.integers(0, 6, (side // 4, side // 4))
    squares = np.where(dice.random(squares.shape) < 0.7, np.roll(squares, 1, 1), squares)
    return dice.integers(0, 256, (6, 3), np.uint8)[squares].repeat(4, 0).repeat(4, 1)


def test_the_first_level_with_a_library_is_no_larger_than_the_one_without() -> None:
    pytest.importorskip("luna_farm.imaging._png", reason="the PNG kernel was not built")
    four, five = (sum(map(len, png.encode(pixel_art(800), level=level))) for level in (4, 5))
    assert five <= four


def test_what_repeats_from_afar_is_found() -> None:
    """A quicker level would choose a filter after which the highest one leaves 14 % more."""
    deflate = pytest.importorskip("deflate")
    pytest.importorskip("zlib_ng")
    rows = png_library._filtered(pixel_art(800), (0,)).tobytes()
    size = sum(map(len, png.encode(pixel_art(800), level=9)))
    assert size <= 1.02 * len(deflate.zlib_compress(rows, 12))


def soft_edged_colours(side: int) -> NDArray[np.uint8]:
    """Flat colours whose edges are blurred by enlarging, as in cel shading."""
    waves = np.random.default_rng(3).integers(0, 256, (14, 14, 3), np.uint8)
    half = (side // 2,) * 2
    smooth = np.asarray(Image.fromarray(waves).resize(half, Image.Resampling.BICUBIC)).astype(int)
    flat = (smooth * 6 // 256 * 51).astype(np.uint8)
    return np.asarray(Image.fromarray(flat).resize((side, side), Image.Resampling.BILINEAR))


def test_soft_edges_of_flat_colours_are_no_larger_than_pillows() -> None:
    pytest.importorskip("luna_farm.imaging._png", reason="the PNG kernel was not built")
    pixels, file = soft_edged_colours(864), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=4)
    assert np.array_equal(np.asarray(decoded(pixels, 4)), pixels)
    assert sum(len(part) for part in png.encode(pixels, level=4)) <= file.tell()


@pytest.mark.parametrize("name", sorted(drawings()))
def test_level_6_is_nearly_as_small_as_the_best_filter_and_zlib_ng(name: str) -> None:
    zlib_ng = pytest.importorskip("zlib_ng.zlib_ng")
    pixels = np.tile(drawings()[name], (3, 2, 1))[:640, :500].copy()
    best = min(
        len(zlib_ng.compress(png_library._filtered(pixels, (chosen,)).tobytes(), 6)) for chosen in (0, 2, 4)
    )
    assert sum(len(part) for part in png.encode(pixels, level=6)) <= 1.03 * best + 100


@pytest.mark.parametrize("level", range(5, 10))
def test_without_zlib_ng_libdeflate_serves_the_higher_levels(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zlib_ng", None)
    for pixels in (*drawings().values(), np.zeros((300, 300, 3), np.uint8)):
        assert np.array_equal(np.asarray(decoded(pixels, level)), pixels)


@pytest.mark.parametrize("shape", [(1024, 1024, 3), (700, 1100, 4), (900, 1600, 1)])
def test_black_is_one_run_from_beginning_to_end(shape):
    """The kernel filters it piece by piece, and the file shows nothing of that."""
    if png.backend() != "kernel":
        pytest.skip("NOT APPLICABLE: a library compresses the whole")
    pixels = np.zeros(shape, np.uint8)
    rows = bytes(shape[0] * (shape[1] * shape[2] + 1))
    assert sum(map(len, png.encode(pixels, level=4))) <= len(zlib.compress(rows, 9)) + 64


@pytest.mark.parametrize("sigma", [0, 1.2])
@pytest.mark.parametrize("name", ["bands", "edges", "cells", "white"])
def test_a_higher_level_is_never_much_larger(name: str, sigma: float) -> None:
    pytest.importorskip("deflate", reason="needs libdeflate")
    pixels = drawings()[name][:300]
    noise = np.random.default_rng(2).normal(0, sigma, pixels.shape)
    pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    sizes = [sum(len(part) for part in png.encode(pixels, level=level)) for level in (4, 5, 6, 7, 8, 9)]
    for lower, higher in itertools.pairwise(sizes):
        assert higher <= 1.02 * lower + 20, sizes


def test_a_row_longer_than_the_kernel_counts_is_refused() -> None:
    pixels = np.broadcast_to(np.zeros(4, np.uint8), (1, 600_000_000, 4))
    with pytest.raises(ValueError, match="2400000000 bytes"):
        png.encode(pixels, level=4)


def test_chunks_stand_between_header_and_data() -> None:
    text = png.chunk(b"tEXt", b"prompt\0{}")
    data = b"".join(png.encode(np.zeros((2, 3, 3), np.uint8), level=4, chunks=[text]))
    assert data.startswith(png.SIGNATURE)
    kinds, position = [], 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        assert struct.unpack_from(">I", data, position + 8 + length)[0] == zlib.crc32(
            data[position + 4 : position + 8 + length]
        )
        kinds.append(kind)
        position += 12 + length
    assert kinds[:2] == [b"IHDR", b"tEXt"]
    assert kinds[-1] == b"IEND"
    assert set(kinds[2:-1]) == {b"IDAT"}
    assert decoded(np.zeros((2, 3, 3), np.uint8), 4, (text,)).info["prompt"] == "{}"


@pytest.mark.parametrize(
    ("pixels", "level", "says"),
    [
        (np.zeros((2, 2, 3), np.float32), 4, "float32"),
        (np.zeros((2, 2, 5), np.uint8), 4, r"\[2, 2, 5\]"),
        (np.zeros((2, 2), np.uint8), 4, r"\[2, 2\]"),
        (np.zeros((0, 2, 3), np.uint8), 4, "0 x 2"),
        (np.zeros((4, 4, 3), np.uint8)[:, ::2], 4, "ascontiguousarray"),
        (np.zeros((2, 2, 3), np.uint8), 10, "10"),
        (np.zeros((2, 2, 3), np.uint8), True, "True"),
    ],
)
def test_what_it_cannot_write_it_refuses_by_name(pixels: np.ndarray, level: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        png.encode(pixels, level=level, chunks=[])


@pytest.mark.parametrize("kind", [b"tEX", b"t3Xt", "tEXt".encode("utf-16")])
def test_a_chunk_type_is_four_letters(kind: bytes) -> None:
    with pytest.raises(ValueError, match="four ASCII letters"):
        png.chunk(kind, b"")


def mottled(channels: int, side: int) -> NDArray[np.uint8]:
    """Like a photograph of 8 bits: waves with noise that has a peak."""
    y, x = np.mgrid[:side, : side + 1]
    waves = [100 + 50 * np.sin(x / (17 + 9 * c) + c) + 40 * np.cos(y / (23 + c)) for c in range(channels)]
    noise = np.random.default_rng(5).laplace(0, 1, (side, side + 1, channels))
    return np.clip(np.dstack(waves) + noise, 0, 255).astype(np.uint8)


def written(pixels: NDArray[np.uint8] | NDArray[np.uint16], level: int) -> bytes:
    file = b"".join(png.encode(pixels, level=level))
    if pixels.dtype == np.uint16:
        assert np.array_equal(_rows_of(file, pixels.shape), pixels)
    return file


@pytest.mark.skipif(png.backend() != "kernel", reason="no compiled kernel here")
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("factor", [257, 256])
@pytest.mark.parametrize("side", [100, 300])
def test_8_bits_that_are_stored_as_16_take_little_more_room(channels: int, factor: int, side: int) -> None:
    pixels = mottled(channels, side)
    size = len(written(pixels, 4))
    for level in (1, 4):
        assert len(written(pixels.astype(np.uint16) * np.uint16(factor), level)) < 1.55 * size


@pytest.mark.skipif(png.backend() != "kernel", reason="no compiled kernel here")
def test_few_values_of_16_bits_are_found_where_high_and_low_bytes_have_nothing_in_common() -> None:
    curve = np.round((np.arange(256) / 255) ** 2.2 * 65535).astype(np.uint16)
    deep = curve[mottled(3, 300) // 4 * 4]
    assert len(written(deep, 4)) < 0.7 * len(written(deep + mottled(3, 300) % 4, 4))


def test_16_bits_that_are_noise_are_never_larger_for_a_search() -> None:
    noise = np.random.default_rng(3).integers(0, 2**16, (256, 256, 3)).astype(np.uint16)
    assert len(written(noise, 4)) <= 1.001 * len(written(noise, 0))


def _rows_of(file: bytes, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs a decoder of 16-bit colours")
    decoded_by_libpng: NDArray[np.uint16] = imagecodecs.png_decode(file)
    return decoded_by_libpng.reshape(shape)
