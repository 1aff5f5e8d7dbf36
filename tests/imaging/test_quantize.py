"""quantize.py: the bytes are ComfyUI's bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.imaging.quantize import copy_bytes, quantize, quantize_planes


def quantized(values: np.ndarray) -> np.ndarray:
    out = np.full(values.shape, 77, np.uint8)
    quantize(values, out)
    return out


def comfyui(values: np.ndarray) -> np.ndarray:
    return np.clip(np.float32(255) * values.astype(np.float32), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 65535, 65536, 65537, 200_003])
def test_the_bytes_are_those_of_clip_and_astype(dtype: type, size: int) -> None:
    values = np.random.default_rng(size).uniform(-0.5, 1.5, size).astype(dtype)
    assert np.array_equal(quantized(values), comfyui(values))


def test_every_step_and_its_neighbours_truncate_alike() -> None:
    steps = (np.arange(257) / 255).astype(np.float32)
    near = np.concatenate([steps, np.nextafter(steps, np.float32(0)), np.nextafter(steps, np.float32(2))])
    assert np.array_equal(quantized(near), comfyui(near))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=80))
def test_any_number_is_clipped_like_numpy_does(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    with np.errstate(over="ignore"):
        assert np.array_equal(quantized(values), comfyui(values))


def test_nan_is_black_and_infinities_are_clipped() -> None:
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e38, -1e38] * 9, np.float32)
    assert quantized(values).tolist() == [0, 0, 255, 0, 0, 255, 0] * 9


@pytest.mark.parametrize(
    ("src", "dst", "says"),
    [
        (np.zeros(3, np.int32), np.zeros(3, np.uint8), "int32"),
        (np.zeros(3, np.float32), np.zeros(3, np.int8), "int8"),
        (np.zeros(3, np.float32), np.zeros(4, np.uint8), r"\[3\] and \[4\]"),
        (np.zeros(6, np.float32)[::2], np.zeros(3, np.uint8), "C-contiguous"),
    ],
)
def test_what_it_cannot_convert_it_refuses(src: np.ndarray, dst: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        quantize(src, dst)


SIDES = [(1, 1), (3, 5), (64, 64), (65, 63), (1, 4097), (1100, 1000)]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("side", SIDES, ids=str)
def test_planes_become_the_same_bytes_interleaved(
    side: tuple[int, int], kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr("luna_farm.imaging.quantize._png", None)
    values = np.random.default_rng(side[1]).uniform(-0.5, 1.5, (3, 3, *side)).astype(np.float32)
    out = np.full((3, *side, 3), 77, np.uint8)
    assert not quantize_planes(values, out)
    assert np.array_equal(out, np.moveaxis(comfyui(values), 1, -1))


@pytest.mark.parametrize("shift", [0, 1, 16, 31])
@pytest.mark.parametrize("side", [(64, 64), (512, 513)], ids=str)
def test_bytes_are_the_same_wherever_they_begin(side: tuple[int, int], shift: int) -> None:
    """Large images go past the caches, where they begin at a multiple of 32 bytes."""
    values = np.random.default_rng(shift).uniform(-0.5, 1.5, (*side, 3)).astype(np.float32)
    memory = np.full(values.size + 64, 77, np.uint8)
    start = -memory.ctypes.data % 32 + shift
    out = memory[start : start + values.size].reshape(values.shape)
    assert not quantize(values, out)
    assert np.array_equal(out, comfyui(values))
    out[:] = 77
    assert not quantize_planes(np.moveaxis(values, -1, 0)[None].copy(), out[None])
    assert np.array_equal(out, comfyui(values))
    assert (memory[:start] == 77).all()
    assert (memory[start + values.size :] == 77).all()


@pytest.mark.parametrize("at", [0, 2**20 - 1, 2**20, 5 * 2**20, -1])
def test_a_nan_is_found_in_whichever_share_of_a_large_picture_it_lies(at: int) -> None:
    values = np.zeros((2, 3, 1000, 1100), np.float32)
    out = np.empty((2, 1000, 1100, 3), np.uint8)
    assert not quantize_planes(values, out)
    assert not quantize(values, np.empty(values.shape, np.uint8))
    values.reshape(-1)[at] = np.nan
    assert quantize_planes(values, out)
    assert quantize(values, np.empty(values.shape, np.uint8))


def test_a_nan_is_found_in_whichever_lane_it_lies() -> None:
    for at in range(100):
        values = np.zeros(100, np.float32)
        values[at] = np.nan
        assert quantize(values, np.empty(100, np.uint8)), at


@pytest.mark.parametrize("size", [0, 1, 3 * 2**20 - 1, 3 * 2**20, 3 * 2**20 + 1, 10_000_000])
def test_bytes_arrive_whole_in_however_many_shares(size: int) -> None:
    values = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    out = np.zeros(size, np.uint8)
    copy_bytes(values, out)
    assert np.array_equal(out, values)
