"""Floating point pixels to bytes, the way ComfyUI truncates them; bytes as they are.

One pass at memory speed with the GIL released, in several threads for more than a megapixel; floats without
the compiled kernel by numpy in cache-sized blocks. Must never round differently from
`np.clip(255. * x, 0, 255).astype(np.uint8)` in float32, and never allocate a full-size temporary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm import system

try:
    from luna_farm.imaging import _png
except ImportError:  # no compiler when this was installed
    _png = None  # type: ignore[assignment]

_SHARE = 2**20  # pixels of a thread at least: waking one up takes a tenth of what they take
_THREADS = min(4, system.usable_processors())
_BLOCK = 64 * 1024  # elements: 256 KB of float32, which stays in a core's second level cache


def quantize(src: NDArray[np.floating[Any]], dst: NDArray[np.uint8]) -> bool:
    """Fills `dst` with the bytes of `src`: truncate(255 * x), clipped to 0..255. Returns whether there was a
    NaN, which becomes 0.

    src: any shape, C-contiguous, float16, float32 or float64 (computed in float32, as ComfyUI does).
    dst: uint8, the same shape, C-contiguous, writable. Infinities are clipped.
    Raises ValueError for anything else.
    """
    if src.dtype.kind != "f" or dst.dtype != np.uint8:
        raise ValueError(f"quantize takes floats into uint8, not {src.dtype} into {dst.dtype}")
    if src.shape != dst.shape:
        raise ValueError(f"quantize takes arrays of one shape, not {list(src.shape)} and {list(dst.shape)}")
    if not (src.flags.c_contiguous and dst.flags.c_contiguous and dst.flags.writeable):
        raise ValueError("quantize takes C-contiguous arrays and a writable destination")
    if _png is not None and src.dtype == np.float32 and src.flags.aligned:
        floats, out, step = src.reshape(-1), dst.reshape(-1), 3 * _SHARE
        starts = range(0, floats.size, step)
        return _shared([partial(_png.quantize, floats[at : at + step], out[at : at + step]) for at in starts])
    return _in_blocks(src.reshape(-1), dst.reshape(-1))


def copy_bytes(src: NDArray[np.uint8], dst: NDArray[np.uint8]) -> None:
    """Fills `dst` with `src`. Both uint8, one-dimensional, C-contiguous and of the same size."""
    step = 3 * _SHARE
    if src.size <= step:  # the usual case, a tenth faster
        np.copyto(dst, src)
        return
    starts = range(0, src.size, step)
    _shared([partial(np.copyto, dst[at : at + step], src[at : at + step]) for at in starts])


def quantize_planes(src: NDArray[np.float32], dst: NDArray[np.uint8]) -> bool:
    """As `quantize`, from pictures whose channels lie in planes behind one another, as a VAE leaves them.

    src: float32 [B, 3, H, W], C-contiguous and aligned. dst: uint8 [B, H, W, 3], C-contiguous, writable.
    """
    pixels = src.shape[-2] * src.shape[-1]
    if _png is not None:
        starts = range(0, pixels, _SHARE)
        return _shared(
            [
                partial(_png.quantize_planes, planes, out, at, min(_SHARE, pixels - at))
                for planes, out in zip(src, dst, strict=True)
                for at in starts
            ]
        )
    found_nan = False
    plain = np.empty(src.shape[-1], np.uint8)
    for planes, out in zip(src, dst, strict=True):
        for channel, row in np.ndindex(planes.shape[:2]):
            found_nan |= _in_blocks(planes[channel, row], plain)
            out[row, :, channel] = plain
    return found_nan


def _shared(work: Sequence[Callable[[], bool | None]]) -> bool:
    """Do all of the work, in this thread and in as many others as that is worth; returns whether any found
    something."""
    left = iter(work)

    def some() -> bool:
        found = [each() for each in left]
        return any(found)

    others = [_pool().submit(some) for _ in range(min(_THREADS, len(work)) - 1)]
    mine = some()
    return any([mine, *(other.result() for other in others)])


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _THREADS - 1), "quantize")


def _in_blocks(src: NDArray[Any], dst: NDArray[np.uint8]) -> bool:
    found_nan = False
    block = np.empty(min(_BLOCK, src.size), np.float32)
    for start in range(0, src.size, _BLOCK):
        piece = block[: min(_BLOCK, src.size - start)]
        # Overflow to infinity is clipped below, like every other large value.
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(
                src[start : start + piece.size],
                np.float32(255),
                out=piece,
                dtype=np.float32,
                casting="same_kind",
            )
        found_nan = found_nan or bool(np.isnan(piece.min()))  # a minimum is NaN if anything is
        # fmax and fmin pass over NaN, so that it ends as 0; clip would keep it and the cast be undefined.
        np.fmin(np.fmax(piece, 0, out=piece), 255, out=piece)
        np.copyto(dst[start : start + piece.size], piece, casting="unsafe")
    return found_nan
