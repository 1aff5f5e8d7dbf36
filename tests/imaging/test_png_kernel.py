"""_png: what the compiled kernel promises png.py, looked at without it."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from luna_farm.imaging.encoders import png

kernel = pytest.importorskip(
    "luna_farm.imaging._png", reason="the PNG kernel was not built: no C compiler here"
)


def inflated(pixels: np.ndarray, level: int) -> np.ndarray:
    """The filtered rows [H, 1 + row bytes] that the kernel sent."""
    height, row = pixels.shape[0], pixels[0].nbytes
    step = pixels.shape[2] * pixels.itemsize
    out = bytearray(kernel.bound(height, row))
    written, adler = kernel.idat(pixels, height, row, step, pixels.itemsize, 0, height, level, out)
    data = bytes(out[8 : written - 4])
    assert zlib.crc32(b"IDAT" + data) == int.from_bytes(out[written - 4 : written], "big")
    assert adler == int.from_bytes(data[-4:], "big")
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, row + 1)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    wave = 120 + 60 * np.sin(x / 17) + 60 * np.cos(y / 23)
    noise = np.random.default_rng(1).normal(0, 2, (height, width, 3))
    return np.clip(wave[..., None] + noise, 0, 255).astype(np.uint8)


def test_level_0_stores_the_pixels_as_they_are() -> None:
    pixels = smooth(30, 40)
    rows = inflated(pixels, 0)
    assert not rows[:, 0].any()
    assert np.array_equal(rows[:, 1:], pixels.reshape(30, -1))


def test_each_row_may_have_a_filter_of_its_own() -> None:
    pixels = smooth(64, 64)
    pixels[:32] = np.random.default_rng(3).integers(0, 256, (32, 64, 3))
    filters = inflated(pixels, 4)[:, 0]
    assert set(filters[33:]) <= {2, 3, 4}  # a smooth picture: above, the average, or Paeth
    assert len(set(filters)) > 1


def test_higher_levels_write_less() -> None:
    pixels = smooth(256, 256) // 8 * 8
    sizes = [sum(len(part) for part in png.encode(pixels, level=level)) for level in (1, 4, 9)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_level_1_finds_what_repeats_only_in_long_strings() -> None:
    """Dots in rows that come again: short strings of them are everywhere, long ones far back."""
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 2, (8, 3000), np.uint8) * 9
    pixels = rows[rng.integers(0, 8, 300)][..., None].copy()
    sizes = []
    for level in (1, 4):
        out = bytearray(kernel.bound(300, 3000))
        sizes.append(kernel.idat(pixels, 300, 3000, 1, 1, 0, 300, level, out)[0])
    assert sizes[0] < 1.05 * sizes[1]


@pytest.mark.parametrize("level", range(1, 5))
def test_rare_bytes_side_by_side_are_sent_right(level: int) -> None:
    """Their codes have up to 15 bits, so eight of them, and a run behind them, do not fit one word."""
    rng = np.random.default_rng(6)
    residuals = rng.geometric(0.6, (500, 600)).astype(np.uint8) - 1
    for row in residuals:
        for start in rng.integers(0, 540, rng.integers(0, 2)):
            burst = rng.integers(1, 16)
            row[start : start + burst] = rng.integers(20, 236, burst)
            if rng.random() < 0.5:
                row[start + burst : start + burst + 40] = 0
    pixels = np.cumsum(residuals, 1, np.uint8)[..., None]
    rows = inflated(pixels, level)
    sub = rows[:, 0] == 1
    assert sub.any() or level == 1  # level 1 takes Paeth, which of a first row makes the same
    assert np.array_equal(rows[sub, 1:], residuals[sub])
    png_file = b"".join(png.encode(pixels, level=level))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_file))), pixels[..., 0])


def test_noise_is_never_larger_than_stored() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (400, 700, 3), np.uint8)
    for level in range(10):
        out = bytearray(kernel.bound(400, 2100))
        written, _ = kernel.idat(pixels, 400, 2100, 3, 1, 0, 400, level, out)
        assert written < 400 * 2101 * 1.001 + 100


def test_what_the_sample_misses_is_stored_rather_than_swollen() -> None:
    # Below level 5 the kernel counts 16 bytes of every 128 or 256. Those hold two values, all others noise.
    rng = np.random.default_rng(5)
    rows, width = 256, 1023  # 1024 bytes with the filter's number, so that pieces stand in columns
    sampled = (np.arange(width) + 1) // 16 % 8 == 0
    noise = rng.integers(0, 256, (rows, width), np.uint8)
    pixels = np.where(sampled, rng.integers(0, 2, (rows, width), np.uint8), noise)[..., None]
    for level in (1, 2, 3, 4):
        assert compressed_size(pixels, level) < rows * 1024 * 1.001 + 100


@pytest.mark.parametrize("level", [4, 5, 9])
def test_counts_that_halve_get_codes_within_the_limit(level: int) -> None:
    # The n-th likeliest step is half as likely as the one before, so a Huffman code would go beyond 15 bits.
    steps = np.random.default_rng(7).geometric(0.5, 120_000).astype(np.uint8)
    pixels = np.cumsum(steps, dtype=np.uint8).reshape(-1, 1, 1)
    rows = inflated(pixels, level)
    assert np.array_equal(rows[:, 1][rows[:, 0] >= 2][1:], steps[rows[:, 0] >= 2][1:])


@pytest.mark.parametrize("level", range(1, 10))
def test_no_run_reaches_back_beyond_the_first_byte_of_a_strip(level: int) -> None:
    # Rows of black and white at random are best left unfiltered. One that begins black is the filter's number
    # 0 and zeros: a run of the byte before, if there were one. The second strip stands after a white end.
    pixels = np.random.default_rng(9).integers(0, 2, (200, 600, 1), np.uint8) * 255
    pixels[(0, 100), :60] = 0
    pixels[99, -1] = 255
    adler, parts = 1, []
    for first, last in ((0, 100), (100, 200)):
        out = bytearray(kernel.bound(100, 600))
        written, sums = kernel.idat(pixels, 200, 600, 1, 1, first, last, level, out)
        adler = kernel.adler_join(adler, sums, 100 * 601)
        parts.append(bytes(out[8 : written - 4]))
    data = zlib.decompress(b"".join(parts) + adler.to_bytes(4, "big"))
    rows = np.frombuffer(data, np.uint8).reshape(200, 601)
    unfiltered = rows[:, 0] == 0
    assert np.array_equal(rows[unfiltered, 1:], pixels[unfiltered, :, 0])


@pytest.mark.parametrize("level", [0, 1])
def test_the_checksum_holds_for_long_bright_pictures(level: int) -> None:
    inflated(np.full((700, 1500, 1), 255, np.uint8), level)
    inflated(np.random.default_rng(8).integers(250, 256, (700, 1500, 1)).astype(np.uint8), level)


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (5, 70_000), (70_000, 131_072), (1, 10**7)])
def test_adlers_are_joined_as_if_of_one_piece(sizes: tuple[int, int]) -> None:
    first, second = (np.random.default_rng(n).bytes(n) for n in sizes)
    joined = kernel.adler_join(zlib.adler32(first), zlib.adler32(second), len(second))
    assert joined == zlib.adler32(first + second)


PIXELS = np.zeros((4, 5, 3), np.uint8)
GOOD = {"height": 4, "row": 15, "step": 3, "sample": 1, "first": 0, "last": 4, "level": 4}


@pytest.mark.parametrize(
    "bad",
    [
        {"height": 5},
        {"row": 16},
        {"row": 0},
        {"step": 0},
        {"step": 9},
        {"sample": 3},
        {"step": 3, "sample": 2},
        {"first": 4},
        {"last": 5},
        {"level": 10},
        {"level": -1},
        {"height": 2**63},
        {"row": 2**63},
    ],
)
def test_arguments_that_do_not_fit_the_buffers_are_refused(bad: dict[str, int]) -> None:
    out = bytearray(100_000)
    with pytest.raises(ValueError):
        kernel.idat(PIXELS, *(GOOD | bad).values(), out)


def test_a_destination_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="bound"):
        kernel.idat(PIXELS, *GOOD.values(), bytearray(kernel.bound(4, 15) - 1))


@pytest.mark.parametrize(("rows", "row_bytes"), [(0, 1), (1, 0), (2**62, 2**62), (2**40, 2)])
def test_bound_refuses_what_overflows(rows: int, row_bytes: int) -> None:
    with pytest.raises(ValueError, match="between"):
        kernel.bound(rows, row_bytes)


def test_drawings_keep_their_strings_at_every_level() -> None:
    tile = np.random.default_rng(6).integers(0, 256, (32, 32, 3), np.uint8)
    pixels = np.tile(tile, (16, 16, 1))
    for level in range(1, 10):
        assert compressed_size(pixels, level) < pixels.nbytes / 10


@pytest.mark.parametrize("level", [1, 4])
def test_text_below_a_photograph_on_a_narrow_strip_is_searched(level: int) -> None:
    """A few tiles show the photograph alone; the rest must not be taken for more of it."""
    pixels = smooth(1024, 90)
    page = pixels[717:]
    page[:] = 250
    rng = np.random.default_rng(5)
    glyphs = rng.integers(0, 2, (12, 12, 6, 1), np.uint8) * 230
    for y in range(4, len(page) - 16, 16):
        for x in range(4, 80, 8):
            page[y : y + 12, x : x + 6] -= glyphs[rng.integers(12)]
    pillow = io.BytesIO()
    Image.fromarray(pixels).save(pillow, "PNG", compress_level=4)
    assert compressed_size(pixels, level) <= pillow.tell() * (1.005 if level == 4 else 1.05)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [3, 4])
def test_gray_in_colours_is_searched_however_rough_it_is(channels: int, level: int) -> None:
    """Each pixel repeats an earlier one of its value, which a look for longer repetition does not see."""
    gray = np.random.default_rng(5).normal(128, 20, (200, 200, 1)).clip(0, 255).astype(np.uint8)
    pixels = np.repeat(gray, channels, axis=2)
    pixels[..., 3:] = 255
    pillow = io.BytesIO()
    Image.fromarray(pixels).save(pillow, "PNG", compress_level=4)
    assert sum(map(len, png.encode(pixels, level=level))) < pillow.tell()


def compressed_size(pixels: np.ndarray, level: int) -> int:
    out = bytearray(kernel.bound(pixels.shape[0], pixels[0].nbytes))
    written, _ = kernel.idat(pixels, pixels.shape[0], pixels[0].nbytes, 3, 1, 0, pixels.shape[0], level, out)
    return int(written)


def test_quantize_refuses_buffers_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="float32"):
        kernel.quantize(np.zeros(3, np.float32), np.zeros(4, np.uint8))


@pytest.mark.parametrize(
    ("pixels", "first", "count"), [(4, 0, 1), (3, -1, 1), (3, 0, -1), (3, 4, 0), (3, 2, 2)]
)
def test_quantize_planes_stays_within_its_buffers(pixels: int, first: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"planes|whole number"):
        kernel.quantize_planes(np.zeros((3, 3), np.float32), np.zeros((pixels, 3), np.uint8), first, count)
