"""Arrays of a program into bytes of a slot, block by block: one pass, no full-size temporary.

Values are not judged here beforehand: what looks odd on the way (NaN, infinite, far above 1) is inspected
afterwards, at a cost that only odd images pay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.errors import InvalidRequest
from luna_farm.imaging.quantize import LARGEST, copy_bytes, quantize, quantize_planes, round_to_16

_BLOCK = 128 * 1024  # elements: 512 KB of float32, which stays in a core's second level cache

Flaws = dict[int, int]
"""Index of an image in its batch -> how many of its values were NaN or infinite."""


def blocks(shape: tuple[int, ...], largest: int) -> Iterator[tuple[slice, ...]]:
    """Cut a shape into pieces of at most `largest` elements, contiguous where the array is C-contiguous."""
    inner = math.prod(shape[1:])
    if inner > largest:
        for index in range(shape[0]):
            for rest in blocks(shape[1:], largest):
                yield (slice(index, index + 1), *rest)
    else:
        step = largest // inner
        for start in range(0, shape[0], step):
            yield (slice(start, start + step),)


def from_array(src: NDArray[Any], dst: NDArray[np.uint8], *, bfloat: bool = False) -> bool:
    """Convert block by block, so that each stays in cache. `bfloat`: `src` holds the bits of bfloat16.

    src: any strides. dst: the same shape, C-contiguous or one channel of what is: it can be flattened.
    Returns whether a value needs a closer look: NaN, infinite, or beyond LARGEST.
    """
    if src.flags.c_contiguous:
        src, dst = src.reshape(-1), dst.reshape(-1)
    elif src.ndim > 2 and abs(src.strides[-1]) > abs(src.strides[-2]):
        # Channels first in memory, which is how ComfyUI's VAEs hand images out. Plane by plane, floats are
        # read in order and only bytes are interleaved, in half the time.
        planes = np.moveaxis(src, -1, -3)
        whole = planes.flags.c_contiguous and planes.flags.aligned
        if whole and src.dtype == np.float32 and src.shape[-1] == 3:
            height, width = src.shape[-3:-1]
            batch = planes.reshape(-1, 3, height, width)
            return quantize_planes(batch, dst.reshape(-1, height, width, 3))
        odd = False
        for block in blocks(src.shape[:-1], _BLOCK):
            for channel in range(src.shape[-1]):
                odd |= from_array(src[block][..., channel], dst[block][..., channel], bfloat=bfloat)
        return odd
    if src.dtype == np.uint8:
        if src.ndim == 1 and src.flags.c_contiguous and dst.flags.c_contiguous:
            copy_bytes(src, dst)
        else:
            np.copyto(dst, src)
        return False
    if src.dtype == np.float32 and src.flags.c_contiguous and dst.flags.c_contiguous:
        return quantize(src, dst)
    native, straight, odd = src.dtype.newbyteorder("="), dst.flags.c_contiguous, False
    with np.errstate(invalid="ignore", over="ignore"):
        for block in blocks(src.shape, _BLOCK):
            # A strided or byte-swapped block becomes a small plain one; a plain one stays a view.
            piece = np.ascontiguousarray(src[block], native)
            if straight:
                odd |= _convert(piece, dst[block], bfloat)
            else:
                plain = np.empty(piece.shape, np.uint8)
                odd |= _convert(piece, plain, bfloat)
                dst[block] = plain
    return odd


def _convert(src: NDArray[Any], dst: NDArray[np.uint8], bfloat: bool) -> bool:
    """Convert one block; both are C-contiguous. Returns as `from_array` does."""
    if src.dtype.itemsize == 2:
        # Sixteen bits have few values: looking each up is exact, and thirteen times as fast as half floats
        # in numpy. Without their sign they sort as the numbers do, with infinity and NaN last.
        bits = src.view(np.uint16)
        np.take(_table(bfloat), bits, out=dst, mode="clip")  # "raise" would copy the whole of dst first
        return int((bits & 0x7FFF).max()) > (0x4100 if bfloat else 0x4800)  # LARGEST in their formats
    if src.dtype.itemsize == 4:
        return quantize(src, dst)
    product = np.multiply(src, 255.0)
    odd = not max(abs(product.min()), abs(product.max())) <= 255.0 * LARGEST  # NaN compares false
    np.fmin(np.fmax(product, 0, out=product), 255, out=product)
    np.copyto(dst, product, casting="unsafe")
    return odd


def at_depth(src: NDArray[Any], dst: NDArray[Any], bfloat: bool) -> Flaws:
    """Convert to uint16, float16 or float32, block by block, and look for NaN and infinities."""
    if src.dtype.kind == "u" and not bfloat:
        np.copyto(dst, src)
        return {}
    odd = False
    largest = np.finfo(dst.dtype).max if dst.dtype.kind == "f" else None
    with np.errstate(invalid="ignore", over="ignore"):
        for block in blocks(src.shape, _BLOCK):
            piece = floats(src[block], bfloat)
            if largest is None:
                odd |= round_to_16(piece, dst[block])
            else:
                odd |= not np.isfinite(piece).all()
                held = np.nan_to_num(piece, nan=0.0, posinf=float(largest), neginf=-float(largest))
                dst[block] = np.clip(held, -largest, largest)
    return inspected(src, bfloat, limited=largest is None) if odd else {}


def floats(src: NDArray[Any], bfloat: bool) -> NDArray[np.float32]:
    """Return floats as C-contiguous float32. `bfloat`: `src` holds the bits of bfloat16."""
    if bfloat:
        return (np.ascontiguousarray(src, np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(src, np.float32)


def inspected(src: NDArray[Any], bfloat: bool, *, limited: bool) -> Flaws:
    """Look closer at floats of which some are odd: count NaN and infinities per image.

    Raises InvalidRequest if `limited` and the largest number is beyond LARGEST.
    """
    flaws: Flaws = {}
    images = src[None] if src.ndim < 4 else src
    for index, image in enumerate(images):
        bad, most = 0, 0.0
        for block in blocks(image.shape, _BLOCK):
            piece = floats(image[block], bfloat)
            finite = np.isfinite(piece)
            bad += piece.size - int(np.count_nonzero(finite))
            most = max(most, float(np.max(piece, where=finite, initial=0.0)))
        if limited and most > LARGEST:
            raise InvalidRequest(
                f"pixels: floats up to {most:g} are not allowed; allowed: 0 to 1 (up to {LARGEST:g} is "
                "clipped to 1, as ComfyUI does). Divide values of 0..255 by 255; high dynamic range is kept "
                "by format exr, or tiff with bit_depth half or float.",
                "pixels",
                f"{most:g}",
                "floats from 0 to 1",
            )
        if bad:
            flaws[index] = bad
    return flaws


@lru_cache(maxsize=2)
def _table(bfloat: bool) -> NDArray[np.uint8]:
    """Return the byte for each of the 65,536 values of a 16-bit float."""
    bits = np.arange(65536, dtype=np.uint32)
    values: NDArray[Any] = (
        (bits << 16).view(np.float32) if bfloat else bits.astype(np.uint16).view(np.float16)
    )
    with np.errstate(all="ignore"):
        # In float16 the product is rounded to float16 before it is truncated, as ComfyUI's is.
        clipped = np.clip(values.dtype.type(255) * values, 0, 255)
        table: NDArray[np.uint8] = np.nan_to_num(clipped, nan=0.0).astype(np.uint8)
    return table
