"""The quality gate: is there anything on this image?

Luma is .299 R + .587 G + .114 B, scaled to 0..1; alpha is not looked at, gray is its own luma. Scores are
0..1:

  variance      min(1, variance / 0.0461), which is 3000 on the scale 0..255
  edge_density  min(1, (mean |row differences| + mean |column differences|) / 2 / 0.05)
  both          each must reach the threshold; the score is their mean

A mean over no differences (a single row or column) is 0. This module must never judge from a sample: every
pixel counts.

How it stays exact and fast: 299 R + 587 G + 114 B of 8-bit values is a whole number below 2^24, so float32
holds it without rounding, and so its differences. It runs in blocks of rows that fit a core's cache. 16-bit
values and floats are brought to the same scale first, floats clipped to 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luna_farm.core.options import GATES
from luna_farm.errors import InvalidRequest
from luna_farm.imaging.depth import Pixels

FULL_VARIANCE = 0.0461
FULL_EDGES = 0.05
SCALE = 255_000.0  # luma in thousandths of a level: 1.0 is 255 * 1000
_WEIGHTS = np.array([299, 587, 114, 0], np.float32)
_BLOCK_PIXELS = 64 * 1024
_FULL = {"uint16": 65535, "float16": 1, "float32": 1}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says: `score` 0..1 and the `threshold` it was held against, both None without a gate."""

    score: float | None
    threshold: float | None
    passed: bool


NOT_JUDGED = Verdict(None, None, True)


def judge(pixels: Pixels, gate: str, threshold: float) -> Verdict:
    """Judge one image.

    pixels: [H, W, C], C = 1, 3 or 4, uint8, uint16 or floats (1.0 is full). gate: one of GATES. threshold:
    0..1; a score equal to it passes. Raises InvalidRequest for an unknown gate.
    """
    if gate not in GATES:
        raise InvalidRequest.of("quality_gate", gate, ", ".join(GATES))
    if gate == "disabled":
        return NOT_JUDGED
    variance, edges = _measure(pixels)
    variance_score = min(1.0, variance / FULL_VARIANCE)
    edge_score = min(1.0, edges / FULL_EDGES)
    scores = {
        "variance": [variance_score],
        "edge_density": [edge_score],
        "both": [variance_score, edge_score],
    }[gate]
    return Verdict(sum(scores) / len(scores), threshold, all(score >= threshold for score in scores))


def _measure(pixels: Pixels) -> tuple[float, float]:
    """Return the variance of luma, and the mean of its mean absolute differences along rows and columns."""
    height, width = pixels.shape[:2]
    rows = max(1, _BLOCK_PIXELS // width)
    total = squares = down = across = 0.0
    origin: np.float32 | None = None
    above: NDArray[np.float32] | None = None
    for top in range(0, height, rows):
        luma = luma_of(pixels[top : top + rows])
        down += _absolute_sum(luma[1:] - luma[:-1])
        across += _absolute_sum(luma[:, 1:] - luma[:, :-1])
        if above is not None:
            down += _absolute_sum(luma[0] - above)
        above = luma[-1].copy()
        if origin is None:
            origin = luma[0, 0]
        # Sums around a value of the image itself: nothing cancels in a nearly flat one, and a flat one
        # gives 0.
        luma -= origin
        total += float(luma.sum(dtype=np.float64))
        np.square(luma, out=luma)
        squares += float(luma.sum(dtype=np.float64))
    pixel_count = height * width
    variance = max(0.0, squares / pixel_count - (total / pixel_count) ** 2) / SCALE**2
    mean_down = down / ((height - 1) * width) if height > 1 else 0.0
    mean_across = across / (height * (width - 1)) if width > 1 else 0.0
    return variance, (mean_down + mean_across) / 2 / SCALE


def luma_of(block: Pixels) -> NDArray[np.float32]:
    """Return thousandths of luma levels 0..255000, whole numbers of 8-bit values, shape [rows, W]."""
    values = block.reshape(-1, block.shape[2]).astype(np.float32)
    if block.dtype.kind == "f":
        np.clip(np.nan_to_num(values, copy=False), 0, 1, out=values)
    if block.dtype != np.uint8:
        values *= np.float32(255 / _FULL[block.dtype.name])
    if block.shape[2] < 3:
        gray: NDArray[np.float32] = (values[:, 0] * np.float32(1000)).reshape(block.shape[:2])
        return gray
    # A product with all channels of the pixels is one straight read of memory; alpha weighs nothing.
    luma: NDArray[np.float32] = (values @ _WEIGHTS[: block.shape[2]]).reshape(block.shape[:2])
    return luma


def _absolute_sum(differences: NDArray[np.float32]) -> float:
    np.abs(differences, out=differences)
    return float(differences.sum(dtype=np.float64))
