"""The gate against its formulas, written plainly in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from luna_farm.errors import InvalidRequest
from luna_farm.imaging.quality import Verdict, judge


def _by_the_formula(pixels):
    levels = pixels.astype(np.float64)
    if pixels.shape[2] == 1:
        luma = levels[:, :, 0] / 255
    else:
        luma = (0.299 * levels[:, :, 0] + 0.587 * levels[:, :, 1] + 0.114 * levels[:, :, 2]) / 255
    variance = min(1.0, luma.var() / 0.0461)
    rows, columns = np.abs(np.diff(luma, axis=0)), np.abs(np.diff(luma, axis=1))
    edges = min(1.0, ((rows.mean() if rows.size else 0) + (columns.mean() if columns.size else 0)) / 2 / 0.05)
    return variance, edges


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]))


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.uint8, shapes))
def test_scores_are_those_of_the_formulas(pixels):
    variance, edges = _by_the_formula(pixels)
    assert judge(pixels, "variance", 0).score == pytest.approx(variance, abs=1e-6)
    assert judge(pixels, "edge_density", 0).score == pytest.approx(edges, abs=1e-6)
    assert judge(pixels, "both", 0).score == pytest.approx((variance + edges) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("height", "width"), [(700, 300), (3, 70_000), (1, 200_000), (200_000, 1), (65, 1024)]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_blocks_join_without_a_seam(picture, height, width, channels):
    pixels = picture(height, width, channels)
    variance, edges = _by_the_formula(pixels)
    assert judge(pixels, "variance", 0).score == pytest.approx(variance, rel=1e-5)
    assert judge(pixels, "edge_density", 0).score == pytest.approx(edges, rel=1e-5)


def test_a_nearly_flat_picture_is_measured_not_rounded_away():
    pixels = np.full((512, 512, 3), 200, np.uint8)
    pixels[0, 0] = 201
    variance, _ = _by_the_formula(pixels)
    assert judge(pixels, "variance", 0).score == pytest.approx(variance, rel=1e-4)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1, 3), (64, 64, 1), (300, 400, 4)])
def test_flat_is_exactly_zero(level, shape):
    pixels = np.full(shape, level, np.uint8)
    for gate in ("variance", "edge_density", "both"):
        assert judge(pixels, gate, 0.3) == Verdict(0.0, 0.3, False)
        assert judge(pixels, gate, 0.0).passed


def test_alpha_is_not_looked_at(picture):
    pixels = picture(20, 20, 4)
    opaque = pixels.copy()
    opaque[:, :, 3] = 255
    assert judge(pixels, "both", 0.3) == judge(opaque, "both", 0.3)


def test_both_needs_each_of_the_two():
    columns = np.zeros((64, 64, 3), np.uint8)
    columns[:, 32:] = 255  # a single edge: much variance, few edges
    verdict = judge(columns, "both", 0.3)
    assert verdict.score is not None
    assert verdict.score > 0.3
    assert judge(columns, "variance", 0.3).passed
    assert not judge(columns, "edge_density", 0.3).passed
    assert not verdict.passed


def test_a_score_equal_to_the_threshold_passes(picture):
    pixels = picture(20, 20, 3)
    score = judge(pixels, "edge_density", 0).score
    assert score is not None
    assert judge(pixels, "edge_density", score).passed
    assert not judge(pixels, "edge_density", np.nextafter(score, 1)).passed


def test_disabled_judges_nothing(picture):
    assert judge(picture(2, 2, 3), "disabled", 0.9) == Verdict(None, None, True)


def test_an_unknown_gate_is_refused(picture):
    with pytest.raises(InvalidRequest, match=r"sharpness.*disabled, variance, edge_density, both"):
        judge(picture(2, 2, 3), "sharpness", 0.3)
