"""_png called from Python with anything: every argument is taken or refused, never a crash."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

kernel = pytest.importorskip(
    "luna_farm.imaging._png", reason="the PNG kernel was not built: no C compiler here"
)

EDGES = [
    0,
    1,
    2,
    3,
    7,
    8,
    255,
    2**15,
    2**16,
    2**30,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**63,
    2**64 - 1,
    2**64,
    -1,
]
NUMBERS = st.sampled_from(EDGES) | st.integers(-3, 40)
BUFFERS = st.builds(bytearray, st.integers(0, 5000)) | st.builds(bytes, st.integers(0, 5000))
ANYTHING = NUMBERS | BUFFERS | st.none() | st.floats() | st.text(max_size=3)
REFUSED = (ValueError, TypeError, OverflowError, BufferError)


def call(function: Any, *arguments: Any) -> None:
    with contextlib.suppress(REFUSED):
        function(*arguments)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_is_asked_of_the_kernel_is_done_or_refused(data: st.DataObject) -> None:
    draw = data.draw
    call(kernel.bound, draw(ANYTHING), draw(ANYTHING))
    call(kernel.adler_join, draw(ANYTHING), draw(ANYTHING), draw(ANYTHING))
    call(kernel.quantize, draw(ANYTHING), draw(ANYTHING))
    call(kernel.quantize_planes, draw(ANYTHING), draw(ANYTHING), draw(NUMBERS), draw(NUMBERS))
    pixels, out = draw(BUFFERS), bytearray(draw(st.sampled_from([0, 100, 6000, 40_000])))
    call(kernel.idat, pixels, *(draw(NUMBERS) for _ in range(7)), out)
    call(kernel.idat, pixels, *(draw(NUMBERS) for _ in range(7)), out, draw(NUMBERS))
    call(kernel.filter, pixels, *(draw(NUMBERS) for _ in range(7)), out)
    call(kernel.sample, pixels, *(draw(NUMBERS) for _ in range(4)))
    call(kernel.idat, *(draw(ANYTHING) for _ in range(draw(st.integers(0, 10)))))
    call(kernel.scores, pixels, *(draw(NUMBERS) for _ in range(3)), draw(ANYTHING), draw(ANYTHING))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([1, 2, 3, 4, 6, 8]),
    st.integers(0, 9),
    st.integers(0, 5),
)
def test_what_fits_is_done(height: int, width: int, step: int, level: int, chosen: int) -> None:
    pixels = np.random.default_rng(height * width).integers(0, 3, height * width * step, np.uint8)
    row = width * step
    out = bytearray(kernel.bound(height, row))
    assert kernel.idat(pixels, height, row, step, 1, 0, height, level, out)[0] <= len(out)
    kernel.filter(pixels, height, row, step, 1, 0, height, chosen, bytearray(height * (row + 1)))
    assert kernel.sample(pixels, height, row, step, 1)[0] in (0, 1, 2, 4, 5)


@pytest.mark.parametrize("chosen", range(5))
def test_the_filter_that_is_asked_for_is_that_of_all_rows(chosen: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 9, (40, 90), np.uint8)
    out = bytearray(kernel.bound(40, 90))
    written = kernel.idat(pixels, 40, 90, 3, 1, 0, 40, 6, out, chosen)[0]
    assert set(zlib.decompress(out[8 : written - 4])[::91]) == {chosen}


def test_a_filter_that_png_does_not_have_is_refused() -> None:
    for chosen in (-1, 7):
        with pytest.raises(ValueError, match="filter is"):
            kernel.idat(bytes(30), 1, 30, 3, 1, 0, 1, 6, bytearray(kernel.bound(1, 30)), chosen)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.sampled_from([1, 2, 3, 4]), st.integers(-1, 1))
def test_scores_are_of_pixels_and_cosines_that_fit(height: int, width: int, channels: int, more: int) -> None:
    cosines = [np.zeros(11 * min(side, 64), np.float32) for side in (height, width)]
    pixels = bytes(max(0, height * width * channels + more))
    fits = more == 0 and height and width and channels != 2
    if fits:
        assert kernel.scores(pixels, height, width, channels, *cosines)[3]
    else:
        with pytest.raises(ValueError, match=r"pixels are height|channels are"):
            kernel.scores(pixels, height, width, channels, *cosines)
    if fits:
        with pytest.raises(ValueError, match="11 aligned float32"):
            kernel.scores(pixels, height, width, channels, cosines[0][1:], cosines[1])


def test_a_size_that_overflows_does_not_end_the_interpreter() -> None:
    ask = "try: _png.bound(1, 2**64 - 1)\nexcept ValueError: print('refused')"
    code = f"from luna_farm.imaging import _png\n{ask}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_a_strip_beyond_what_a_chunk_holds_is_refused() -> None:
    assert kernel.bound(1, 2**30 - 1) > 2**30 - 1
    for rows, row_bytes in ((1, 2**30), (2**20, 2**10), (1, 2_400_000_000)):
        with pytest.raises(ValueError, match="2\\*\\*30"):
            kernel.bound(rows, row_bytes)


def test_the_destination_may_not_be_the_pixels() -> None:
    both = bytearray(kernel.bound(10, 30))
    with pytest.raises(ValueError, match="overlaps"):
        kernel.idat(both, 10, 30, 3, 1, 0, 10, 4, both)
    with pytest.raises(ValueError, match="overlaps"):
        kernel.filter(memoryview(both)[: 10 * 30], 10, 30, 3, 1, 0, 10, 0, memoryview(both)[5 : 5 + 10 * 31])
