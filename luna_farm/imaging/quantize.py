"""Floating point pixels to bytes, the way ComfyUI truncates them; bytes as they are.

One pass at memory speed with the GIL released, in several threads for more than a megapixel; floats without
the compiled kernel by numpy in cache-sized blocks. Must never round differently from
`np.clip(255. * x, 0, 255).astype(np.uint8)` in float32, and never allocate a full-size temporary.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache, partial
from itertools import chain, count
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from luna_farm import system

T = TypeVar("T")

try:
    from luna_farm.imaging import _png
except ImportError:  # no compiler when this was installed
    _png = None  # type: ignore[assignment]

ALONE = 3 * 2**20
"""Values that the caller does alone: waking others would take a tenth of the time."""
ALONE_FLOATS = 2**20 if system.usable_processors() > 4 else ALONE
"""The same for floats, which have four times the bytes: on 16 processors 3 * 2**20 of them took 0.90 ms
instead of 1.29. Where processors are few, one of them has the farm at work meanwhile."""
_PIECE = 3 * 2**18  # values of a piece of more: small, so that a thread which is held up holds up little
_THREADS = min(4, system.usable_processors())
LARGEST = 8.0
"""Floats beyond are no image of range 0..1 (values of 0..255, as a rule): they are looked at more closely."""
_BLOCK = 64 * 1024  # elements: 256 KB of float32, which stays in a core's second level cache


def quantize(src: NDArray[np.floating[Any]], dst: NDArray[np.uint8]) -> bool:
    """Fill `dst` with the bytes of `src`: truncate(255 * x), clipped to 0..255, NaN as 0. Return whether a
    value needs a closer look: NaN, infinite, or further from 0 than LARGEST.

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
        floats, out = src.reshape(-1), dst.reshape(-1)
        if floats.size <= ALONE_FLOATS or _inside():
            return _png.quantize(floats, out)
        pieces = [slice(at, at + _PIECE) for at in range(0, floats.size, _PIECE)]
        return _shared([partial(_png.quantize, floats[piece], out[piece]) for piece in pieces])
    return _in_blocks(src.reshape(-1), dst.reshape(-1))


def copy_bytes(src: NDArray[np.uint8], dst: NDArray[np.uint8]) -> None:
    """Fills `dst` with `src`. Both uint8, one-dimensional, C-contiguous and of the same size."""
    if src.size <= ALONE or _inside():
        np.copyto(dst, src)
        return
    pieces = [slice(at, at + _PIECE) for at in range(0, src.size, _PIECE)]
    _shared([partial(np.copyto, dst[piece], src[piece]) for piece in pieces])


def quantize_planes(src: NDArray[np.float32], dst: NDArray[np.uint8]) -> bool:
    """As `quantize`, from images whose channels lie in planes behind one another, as a VAE leaves them.

    src: float32 [B, 3, H, W], C-contiguous and aligned. dst: uint8 [B, H, W, 3], C-contiguous, writable.
    """
    pixels = src.shape[-2] * src.shape[-1]
    if _png is not None:
        if src.size <= ALONE_FLOATS or _inside():
            found = [_png.quantize_planes(*pair, 0, pixels) for pair in zip(src, dst, strict=True)]
            return any(found)
        step = _PIECE // 3
        return _shared(
            [
                partial(_png.quantize_planes, *pair, at, min(step, pixels - at))
                for pair in zip(src, dst, strict=True)
                for at in range(0, pixels, step)
            ]
        )
    odd = False
    plain = np.empty(src.shape[-1], np.uint8)
    for planes, out in zip(src, dst, strict=True):
        for channel, row in np.ndindex(planes.shape[:2]):
            odd |= _in_blocks(planes[channel, row], plain)
            out[row, :, channel] = plain
    return odd


def _shared(work: Sequence[Callable[[], bool | None]]) -> bool:
    return any(in_threads(work))


def in_threads(work: Sequence[Callable[[], T]]) -> list[T]:
    """Do all of the work, in several threads, and return what came of each. What calls this module from there
    does its part alone: the threads would wait for themselves. Raises what one of them raised, once all have
    ended."""
    left = iter(enumerate(work))

    def some() -> list[tuple[int, T]]:
        _here.inside = True
        return [(at, each()) for at, each in left]

    threads = [_pool().submit(some) for _ in range(min(_THREADS, len(work)))]
    wait(threads)
    done = dict(chain.from_iterable([thread.result() for thread in threads]))
    return [done[at] for at in range(len(work))]


_here = threading.local()


def _inside() -> bool:
    """Whether this is one of the threads."""
    return getattr(_here, "inside", False)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Of a thread for each processor, where they are few: left alone, a scheduler may put all of them on the
    one that woke them, and half a millisecond is too short for it to notice."""
    if system.usable_processors() > _THREADS:
        return ThreadPoolExecutor(_THREADS, "quantize")
    number = count()
    return ThreadPoolExecutor(_THREADS, "quantize", lambda: system.keep_to_processor(next(number)))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # its threads are in the other process


def round_to_16(src: NDArray[np.float32], dst: NDArray[np.uint16]) -> bool:
    """Fill `dst` with floor(65535 * x + 0.5), clipped to 0..65535, NaN as 0. Returns as `quantize` does.

    src: float32, any shape, C-contiguous. dst: uint16 of the same shape, any strides.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = src * np.float32(65535)
        odd = not max(abs(float(scaled.min())), abs(float(scaled.max()))) <= 65535 * LARGEST
        scaled += np.float32(0.5)
        np.fmin(np.fmax(scaled, 0, out=scaled), 65535, out=scaled)
    np.copyto(dst, scaled, casting="unsafe")
    return odd


def _in_blocks(src: NDArray[Any], dst: NDArray[np.uint8]) -> bool:
    odd = False
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
            # Both extremes are NaN if anything is, and NaN compares false.
            odd = odd or not max(abs(piece.min()), abs(piece.max())) <= 255 * LARGEST
        # fmax and fmin pass over NaN, so that it ends as 0; clip would keep it and the cast be undefined.
        np.fmin(np.fmax(piece, 0, out=piece), 255, out=piece)
        np.copyto(dst[start : start + piece.size], piece, casting="unsafe")
    return odd
