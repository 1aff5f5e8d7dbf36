"""PNG compression without a compiler: filters in numpy, deflate by the best library at hand.

Used where the compiled kernel could not be built. zlib-ng, ISA-L and libdeflate are taken when installed,
else the standard library's zlib with the same filters, so nothing here can fail to import. Libraries are
imported on first use: a worker that runs the kernel never pays their memory. This module must never write
other pixels than it was given, and never hold more than one filtered copy of the picture.

What each level does, and why (sizes relative to Pillow level 4 on clean / noisy generated pictures):
    0     stored
    1-3   Up filter, ISA-L level 1                   1.08 / 1.11, the quickest
    4     Paeth filter, zlib-ng with run lengths     0.99 / 1.00: there, only filter and Huffman codes pay
    5     best of five filters a row, the same       0.99 / 0.98
    6-9   best of five, libdeflate 10 to 12          0.93 / 0.96: weighs each match by what it saves
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

# 32 rows of a 1024 pixel wide picture and its temporaries stay in a core's second level cache.
_BLOCK_BYTES = 96 * 1024
_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)
_LIBDEFLATE_LEVELS = {6: 10, 7: 10, 8: 11, 9: 12}

Bytes = NDArray[np.uint8]


def zlib_stream(pixels: NDArray[np.uint8] | NDArray[np.uint16], level: int) -> bytes:
    """The zlib stream of the filtered rows of `pixels` [H, W, C], as a PNG's IDAT holds it.

    level: 0 to 9. Memory: one filtered copy of the picture, a few hundred KB and the stream.
    """
    filters = {0: (_NONE,), 1: (_UP,), 2: (_UP,), 3: (_UP,), 4: (_PAETH,)}.get(level, tuple(range(5)))
    return _deflate(_filtered(pixels, filters), level)


def _deflate(data: Bytes, level: int) -> bytes:
    if level == 0:
        return zlib.compress(data.data, 0)
    if level <= 3:
        try:
            from isal import isal_zlib
        except ImportError:
            return _run_lengths(data)
        return bytes(isal_zlib.compress(data, 1))
    if level >= 6:
        try:
            import deflate
        except ImportError:
            return zlib.compress(data.data, level)
        return bytes(deflate.zlib_compress(data, _LIBDEFLATE_LEVELS[level]))
    return _run_lengths(data)


def _run_lengths(data: Bytes) -> bytes:
    """Deflate with Huffman codes and runs of one byte only: filtered photographs hold no other repetition."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        library: Any = zlib
    else:
        library = zlib_ng
    packer = library.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return b"".join((packer.compress(data), packer.flush()))


def _filtered(pixels: NDArray[Any], filters: tuple[int, ...]) -> Bytes:
    """The picture as PNG rows [H, 1 + row bytes]: each the filter's number and the filtered bytes.

    Of several `filters` each row takes the one with the least sum of absolute signed bytes (PNG, 12.7).
    """
    height, _, channels = pixels.shape
    if pixels.dtype.itemsize == 2:
        rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        rows = pixels.reshape(height, -1)
    step = channels * pixels.dtype.itemsize
    out = np.empty((height, 1 + rows.shape[1]), np.uint8)
    block = max(1, _BLOCK_BYTES // rows.shape[1])
    for start in range(0, height, block):
        stop = min(height, start + block)
        # The PNG rules want zeros left of and above the picture.
        padded = np.zeros((stop - start + 1, step + rows.shape[1]), np.uint8)
        padded[1:, step:] = rows[start:stop]
        if start:
            padded[0, step:] = rows[start - 1]
        candidates = [_apply(number, padded, step) for number in filters]
        chosen = np.zeros(stop - start, np.intp)
        if len(filters) > 1:
            costs = [np.minimum(c, np.negative(c)).sum(axis=1, dtype=np.int64) for c in candidates]
            chosen = np.argmin(costs, axis=0)
        for position, number in enumerate(filters):
            mine = chosen == position
            out[start:stop][mine, 0] = number
            out[start:stop][mine, 1:] = candidates[position][mine]
    return out


def _apply(number: int, padded: Bytes, step: int) -> Bytes:
    here, left = padded[1:, step:], padded[1:, :-step]
    above, corner = padded[:-1, step:], padded[:-1, :-step]
    if number == _NONE:
        return here
    if number == _SUB:
        return here - left
    if number == _UP:
        return here - above
    if number == _AVERAGE:
        # (a + b) >> 1 without a ninth bit.
        return here - ((left & above) + ((left ^ above) >> np.uint8(1)))
    return here - _paeth(left, above, corner)


def _paeth(left: Bytes, above: Bytes, corner: Bytes) -> Bytes:
    """The Paeth predictor in uint8 alone, four to eight times as quick as the textbook's signed sums.

    With pa = |b - c| and pb = |a - c|, the third distance pc = |a + b - 2c| is |pa - pb| where c lies
    between a and b, and pa + pb elsewhere; there it never wins, so the largest byte will do for it.
    """
    pa = np.maximum(above, corner) - np.minimum(above, corner)
    pb = np.maximum(left, corner) - np.minimum(left, corner)
    pc = np.maximum(pa, pb) - np.minimum(pa, pb)
    pc[(left >= corner) == (above >= corner)] = 255
    out = np.where(pb <= pc, above, corner)
    np.copyto(out, left, where=(pa <= pb) & (pa <= pc))
    return out
