"""Scores of an image that judge nothing: contrast, edges, clipping, blankness, and a perceptual hash.

They are computed for every image, so they must cost little beside the fastest encoder. Of large images,
pieces of rows and a grid of pixels are read, so a score may differ from that of all pixels by some
hundredths; `blank` is exact. The quality gate (`quality.py`) reads every pixel.

The compiled kernel (`kernel/scores.h`) does it for 8-bit pixels in a fifth of the time; numpy does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from luna_farm.imaging.depth import Pixels
from luna_farm.imaging.quality import FULL_EDGES, FULL_VARIANCE, SCALE, luma_of

try:
    from luna_farm.imaging import _png
except ImportError:  # no compiler when this was installed
    _png = None  # type: ignore[assignment]

SAMPLED_PIXELS = 16 * 1024
"""An image that has more is not read whole."""
PAIRS, PIECES, PIECE = 32, 8, 32
"""Pairs of rows, pieces of a row and pixels of a piece that the edges of a larger image are measured in."""
GRID = 64
"""Rows and columns of the grid that all other scores of a larger image are made of."""
_FREQUENCIES = 11
"""In each direction: enough for the 64 lowest but the mean."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What one image looks like.

    `variance` and `edge_density`: 0..1, on the scales of the quality gate. `clipped`: share 0..1 of pixels
    with a channel (not alpha) that is 0 or full. `blank`: every pixel is the same. `phash`: 64 bits as 16
    hexadecimal digits; images that look alike differ in few bits.
    """

    variance: float
    edge_density: float
    clipped: float
    blank: bool
    phash: str

    def to_map(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return {
            "variance": self.variance,
            "edge_density": self.edge_density,
            "clipped": self.clipped,
            "blank": self.blank,
            "phash": self.phash,
        }


def measure(pixels: Pixels) -> Scores:
    """Return the scores of one image, [H, W, C], C = 1, 3 or 4, uint8, uint16 or floats (1.0 is full)."""
    if _png is not None and pixels.dtype == np.uint8 and pixels.flags.c_contiguous:
        return _by_kernel(pixels)
    return _by_numpy(pixels)


def _by_kernel(pixels: Pixels) -> Scores:
    height, width, channels = pixels.shape
    cosines = _cosines(min(height, GRID)), _cosines(min(width, GRID))
    variance, edges, clipped, blank, bits = _png.scores(pixels, height, width, channels, *cosines)
    return _scores(variance / SCALE**2, edges / SCALE, clipped, blank, bits)


def _by_numpy(pixels: Pixels) -> Scores:
    height, width = pixels.shape[:2]
    whole = height * width <= SAMPLED_PIXELS or min(height, width) < 2 * PAIRS
    grid = pixels if max(height, width) <= GRID else _grid(pixels)
    luma = luma_of(grid)
    blank = _blank(pixels, grid)
    bits = 0 if blank else _hash(luma)
    if whole:
        luma = luma if grid is pixels else luma_of(pixels)
        down, across = luma[1:] - luma[:-1], luma[:, 1:] - luma[:, :-1]
    else:
        down, across = _differences(pixels)
    edges = (_mean_size(down) + _mean_size(across)) / 2 / SCALE
    luma -= np.float32(luma.sum(dtype=np.float64) / luma.size)
    variance = float(np.vdot(luma, luma)) / luma.size / SCALE**2
    return _scores(variance, edges, _clipped(grid), blank, bits)


def _scores(variance: float, edges: float, clipped: float, blank: bool, bits: int) -> Scores:
    return Scores(
        variance=_rounded(variance / FULL_VARIANCE),
        edge_density=_rounded(edges / FULL_EDGES),
        clipped=_rounded(clipped),
        blank=blank,
        phash=f"{bits:016x}",
    )


def _differences(pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how luma differs downwards and across in pieces of two rows that are spread evenly."""
    height, width, channels = pixels.shape
    places = (PAIRS, height // PAIRS), (PIECES, width // PIECES)
    (pairs, row_step), (pieces, step) = places
    length = min(PIECE, step)
    down, across, along = pixels.strides
    pieces_of_two_rows = as_strided(
        pixels[(row_step - 1) // 2 :, (step - length) // 2 :],
        (pairs, 2, pieces, length, channels),
        (row_step * down, down, step * across, across, along),
        writeable=False,
    )
    luma = luma_of(np.ascontiguousarray(pieces_of_two_rows).reshape(-1, length, channels))
    luma = luma.reshape(pairs, 2, pieces, length)
    return luma[:, 1] - luma[:, 0], luma[..., 1:] - luma[..., :-1]


def _grid(pixels: Pixels) -> Pixels:
    """Return evenly spread pixels, [128, 128, C] at most."""
    rows = pixels.take(_places(pixels.shape[0]), axis=0)
    size = rows.dtype.itemsize * rows.shape[2]
    # All channels of a pixel at once: by elements it takes four times as long.
    whole = np.ascontiguousarray(rows).view(f"V{size}")[..., 0]
    picked = np.ascontiguousarray(whole.take(_places(pixels.shape[1]), axis=1))
    grid: Pixels = picked.view(rows.dtype).reshape(*picked.shape, rows.shape[2])
    return grid


@lru_cache(maxsize=64)
def _places(length: int) -> NDArray[np.intp]:
    count = min(length, GRID)
    places: NDArray[np.intp] = ((np.arange(count) + 0.5) * (length / count)).astype(np.intp)
    return places


def _hash(luma: NDArray[np.float32]) -> int:
    """Return the perceptual hash of luma, [h, w], as an unsigned number of 64 bits.

    The 64 lowest frequencies of the cosine transform but the mean, each compared with their median (after
    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
    """
    down, across = _cosines(luma.shape[0]), _cosines(luma.shape[1])
    frequencies = (down @ (luma - luma.sum() / luma.size) @ across.T).ravel()[_LOWEST]
    return int.from_bytes(np.packbits(frequencies > np.partition(frequencies, 31)[31]).tobytes(), "big")


@lru_cache(maxsize=64)
def _cosines(length: int) -> NDArray[np.float32]:
    places = (np.arange(length) + 0.5) * np.pi / length
    return np.cos(np.arange(_FREQUENCIES)[:, None] * places).astype(np.float32)


def _lowest() -> NDArray[np.intp]:
    """Return where the 64 lowest frequencies but the mean stand, the lowest first."""
    order = sorted(
        (row + column, row, column) for row in range(_FREQUENCIES) for column in range(_FREQUENCIES)
    )
    return np.array([row * _FREQUENCIES + column for _, row, column in order[1:65]], np.intp)


_LOWEST = _lowest()


def _clipped(grid: Pixels) -> float:
    whole = grid.dtype.kind == "u"  # there full wraps around to 0
    ends = grid + grid.dtype.type(1) <= 1 if whole else (grid <= 0) | (grid >= 1)
    clipped = ends[..., 0]
    for channel in range(1, min(3, grid.shape[2])):
        clipped = clipped | ends[..., channel]
    return float(np.count_nonzero(clipped)) / clipped.size


def _blank(pixels: Pixels, grid: Pixels) -> bool:
    """Whether all pixels are equal. Two of them, or the grid, show of most that they are not."""
    if (grid[0, 0] != grid[-1, -1]).any():
        return False
    return bool((grid == grid[0, 0]).all() and (pixels == pixels[0, 0]).all())


def _mean_size(differences: NDArray[np.float32]) -> float:
    return float(np.abs(differences, out=differences).sum()) / differences.size if differences.size else 0.0


def _rounded(value: float) -> float:
    return round(min(1.0, value), 4)
