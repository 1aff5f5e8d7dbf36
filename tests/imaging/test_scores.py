"""Scores of images: near those of all pixels, the same for images that look alike, and cheap."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from luna_farm.catalogue.search import SIMILAR_BITS
from luna_farm.cli import images
from luna_farm.imaging import quality, scores

PHOTOGRAPHS = images.load([], 512).pixels


def bits(one: scores.Scores, other: scores.Scores) -> int:
    return (int(one.phash, 16) ^ int(other.phash, 16)).bit_count()


@pytest.mark.parametrize("number", range(len(PHOTOGRAPHS)))
def test_scores_are_near_those_of_all_pixels(number: int) -> None:
    pixels = PHOTOGRAPHS[number]
    found = scores.measure(pixels)
    exact = {gate: quality.judge(pixels, gate, 0.0).score for gate in ("variance", "edge_density")}
    assert found.variance == pytest.approx(exact["variance"], abs=0.03)
    assert found.edge_density == pytest.approx(exact["edge_density"], abs=0.03)
    clipped = ((pixels == 0) | (pixels == 255)).any(axis=2).mean()
    assert found.clipped == pytest.approx(clipped, abs=0.02)


def test_a_small_image_is_read_whole() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    found = scores.measure(pixels)
    assert found.variance == round(quality.judge(pixels, "variance", 0.0).score or 0.0, 4)
    assert found.edge_density == round(quality.judge(pixels, "edge_density", 0.0).score or 0.0, 4)


@pytest.mark.parametrize(
    "change",
    ["jpeg", "webp", "half", "larger", "noise", "brighter", "16 bits", "float", "alpha"],
)
def test_images_that_look_alike_have_near_hashes(change: str) -> None:
    near = 0
    for pixels in PHOTOGRAPHS:
        image = Image.fromarray(pixels)
        changed: Any
        if change in ("jpeg", "webp"):
            file = io.BytesIO()
            image.save(file, change, quality=70)
            changed = np.asarray(Image.open(file).convert("RGB"))
        elif change in ("half", "larger"):
            side = 256 if change == "half" else 700
            changed = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
        elif change == "noise":
            noise = np.random.default_rng(2).normal(0, 5, pixels.shape)
            changed = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        elif change == "brighter":
            changed = np.clip(pixels * 1.05 + 3, 0, 255).astype(np.uint8)
        elif change == "alpha":
            changed = np.dstack([pixels, np.full(pixels.shape[:2], 9, np.uint8)])
        else:
            changed = (
                pixels.astype(np.uint16) * 257 if change == "16 bits" else (pixels / 255).astype(np.float32)
            )
        near += bits(scores.measure(pixels), scores.measure(changed)) <= SIMILAR_BITS
    assert near >= len(PHOTOGRAPHS) - 1  # one is mirrored at its edges, which leaves little to compare


def test_different_images_have_distant_hashes() -> None:
    hashes = [scores.measure(pixels) for pixels in PHOTOGRAPHS]
    distances = [bits(a, b) for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(distances) > 2 * SIMILAR_BITS - 2


def test_blank_means_every_pixel() -> None:
    pixels = np.full((1024, 1024, 3), 200, np.uint8)
    found = scores.measure(pixels)
    assert (found.blank, found.variance, found.edge_density, found.phash) == (True, 0.0, 0.0, "0" * 16)
    pixels[1, 1, 1] = 201  # between all that is sampled
    assert not scores.measure(pixels).blank
    assert scores.measure(np.zeros((64, 64, 1), np.uint16)).blank


def test_clipped_pixels_are_those_with_a_channel_at_an_end() -> None:
    pixels = np.full((512, 512, 4), 128, np.uint8)
    pixels[..., 3] = 255  # alpha does not count
    assert scores.measure(pixels).clipped == 0.0
    pixels[:128, :, 1] = 255
    assert scores.measure(pixels).clipped == pytest.approx(0.25, abs=0.01)
    floats = np.full((64, 64, 3), 0.5, np.float32)
    floats[:32] = 1.5
    assert scores.measure(floats).clipped == pytest.approx(0.5, abs=0.02)


SHAPES = st.tuples(st.integers(1, 400), st.integers(1, 400), st.sampled_from([1, 3, 4]))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.sampled_from(["uint8", "uint16", "float16", "float32"]), st.data())
def test_every_shape_and_depth_has_scores(
    shape: tuple[int, int, int], dtype: str, data: st.DataObject
) -> None:
    fill = data.draw(arrays.from_dtype(np.dtype(dtype)))
    pixels = np.full(shape, fill, dtype)
    pixels[:: max(1, shape[0] // 3)] = data.draw(arrays.from_dtype(np.dtype(dtype)))
    found = scores.measure(pixels)
    assert 0 <= found.variance <= 1
    assert 0 <= found.edge_density <= 1
    assert 0 <= found.clipped <= 1
    assert len(found.phash) == 16


@pytest.mark.skipif(scores._png is None, reason="the PNG kernel was not built: no C compiler here")
@settings(max_examples=150, deadline=None)
@given(SHAPES, st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 40, 256]))
def test_the_kernel_reads_what_numpy_reads(shape: tuple[int, int, int], seed: int, levels: int) -> None:
    pixels = np.random.default_rng(seed).integers(256 - levels, 256, shape, dtype=np.uint8)
    fast, plain = scores._by_kernel(pixels), scores._by_numpy(pixels)
    assert fast.to_map() == pytest.approx(plain.to_map() | {"phash": fast.phash}, abs=2e-4)
    if min(shape[:2]) >= 16:  # in a few rows, frequencies are equal but for rounding
        assert bits(fast, plain) <= 4
