"""Levels 5 to 9, and 4 for 16 bits: how an image becomes smallest, decided by what samples of it say.

The kernel filters; who compresses depends on the image:

- what is nearly empty (masks, flat drawings, one colour) is the kernel's quick search's or zlib-ng's,
  whichever is smaller: both take a millisecond or two;
- what repeats itself (maps, drawings, screens) is zlib-ng's or libdeflate's, as a few bands say;
- of what is dense (photographs, textures), a few bands are tried: libdeflate with the filter that suits it
  best, the kernel's own parser, and literals with runs alone. Noise has nothing but literals, and the
  kernel sends them fastest.

At levels 8 and 9, libdeflate's near-optimal parser compresses everything that holds matches at all, after
the filter that it compresses best in the bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.imaging import _png

Pixels = NDArray[Any]
Bytes = NDArray[np.uint8]
Compress = Callable[[Bytes], bytes]

_METHOD_RUNS = 0  # what the kernel's sample calls the way of photographs: runs alone
_REPEATS = 33  # symbols that runs leave of 100 bytes, above which libdeflate finds more in 16 bits
_EMPTY, _DENSE = 2, 40  # symbols that runs leave of 100 bytes: below, above
_RUNS_AT, _PARSED_AT = (
    4,
    6,
)  # levels at which the kernel looks for matches quickly or not at all, and for all of them
_FILTERS = (0, 1, 2, 4, 5)
_BANDS, _BAND_ROWS = 2, 24  # and as many rows before each
_SMALL_BYTES = 2**19  # an image of no more is tried whole
# With matches at most so much of what runs alone leave, or they are not worth their time.
_LIBRARY_PAYS, _PARSER_PAYS, _EXACT_PAYS = 0.98, 0.993, 0.998
# A filter that is so much worse than the best by a quick trial is not tried at length.
_HOPELESS = 1.08


class Image:
    """An image as the kernel wants it named: pixels, rows, bytes of a row, of a pixel, of a sample."""

    def __init__(self, pixels: Pixels) -> None:
        height, width, channels = pixels.shape
        step = channels * pixels.itemsize
        self.height, self.row = height, width * step
        self.named = (pixels, height, self.row, step, pixels.itemsize)
        rows = min(2 * _BAND_ROWS, height) if height * self.row > _SMALL_BYTES else height
        starts = sorted({(height - rows) * (2 * i + 1) // (2 * _BANDS) for i in range(_BANDS)})
        self.bands = [(start, start + rows) for start in starts]
        self.tried_whole = rows == height

    def filtered(self, chosen: int, first: int, last: int) -> Bytes:
        """Rows first .. last - 1 through a filter."""
        out = np.empty((last - first) * (self.row + 1), np.uint8)
        _png.filter(*self.named, first, last, chosen, out)
        return out

    def compressed(self, chosen: int, compress: Compress) -> bytes:
        """The zlib stream of the whole image."""
        return compress(self.filtered(chosen, 0, self.height))

    def tried(self, level: int) -> int:
        """What the later half of each band adds to the earlier one when the kernel compresses them."""
        size = 0
        out = np.empty(_png.bound(self.bands[0][1] - self.bands[0][0], self.row), np.uint8)
        for first, last in self.bands:
            size += _png.idat(*self.named, first, last, level, out)[0]
            if last - first < self.height:
                size -= _png.idat(*self.named, first, (first + last) // 2, level, out)[0]
        return size


def stream(pixels: Pixels, level: int) -> bytes | int:
    """The zlib stream of the image's filtered rows, or the level at which the kernel shall write it.

    pixels: [H, W, C], C-contiguous. level: 5 to 9.
    """
    near_optimal, quick = _libdeflate(10 if level == 8 else 12), _libdeflate(7 if level == 6 else 8)
    if near_optimal is None or quick is None:
        return level
    image = Image(pixels)
    chosen, _, symbols = _png.sample(*image.named)
    if level >= 8:
        return _smallest(image, near_optimal)
    if symbols > _DENSE:
        return _dense(image, chosen, quick, level)
    # zlib-ng takes next to no time for what is nearly empty; elsewhere a trial says which library is smaller.
    library = _zlib_ng(min(level, 6)) or quick
    found = image.compressed(chosen, library if symbols < _EMPTY else _smaller(image, chosen, quick, library))
    if symbols < _EMPTY:
        kernel = np.empty(_png.bound(image.height, image.row), np.uint8)
        if _png.idat(*image.named, 0, image.height, _RUNS_AT, kernel)[0] < len(found):
            return _RUNS_AT
    return found


def deep_stream(pixels: Pixels) -> bytes | int:
    """The same for level 4 of 16 bits: computed maps, and 8-bit images that were made 16, repeat themselves
    in ways that the kernel's short search misses. libdeflate's quickest level finds them; photographs and
    what is nearly empty stay with the kernel."""
    quickest = _libdeflate(1)
    image = Image(pixels)
    chosen, method, symbols = _png.sample(*image.named)
    if quickest is None or method == _METHOD_RUNS or symbols <= _REPEATS:
        return 4
    return image.compressed(chosen, quickest)


def _dense(image: Image, chosen: int, compress: Compress, level: int) -> bytes | int:
    with_runs = image.tried(_RUNS_AT)
    chosen, size = min(
        _trial(image, _libdeflate(6) or compress, {0, 2, 5, chosen}).items(), key=lambda one: one[1]
    )
    if size < with_runs * _LIBRARY_PAYS:
        return image.compressed(chosen, compress)
    if image.tried(_PARSED_AT) < with_runs * _PARSER_PAYS:
        return level
    return 5 if image.tried(5) < with_runs * _EXACT_PAYS else _RUNS_AT


def _smaller(image: Image, chosen: int, one: Compress, other: Compress) -> Compress:
    """Which of two ways makes the bands smaller."""
    return min((one, other), key=lambda way: _trial(image, way, [chosen])[chosen])


def _smallest(image: Image, compress: Compress) -> bytes | int:
    quick = _trial(image, _libdeflate(6) or compress, _FILTERS)
    hopeful = [
        chosen for chosen in _FILTERS if quick[chosen] <= min(quick.values()) * _HOPELESS or image.tried_whole
    ]
    chosen, size = min(_trial(image, compress, hopeful).items(), key=lambda one: one[1])
    return image.compressed(chosen, compress) if size < image.tried(_RUNS_AT) else _RUNS_AT


def _trial(image: Image, compress: Compress, filters: Iterable[int]) -> dict[int, int]:
    """How large the bands are after each filter."""
    return {chosen: sum(_added(image, chosen, compress, *band) for band in image.bands) for chosen in filters}


def _added(image: Image, chosen: int, compress: Compress, first: int, last: int) -> int:
    """What the later half of a band adds to the earlier one, which it may refer to."""
    whole = image.filtered(chosen, first, last)
    if last - first == image.height:
        return len(compress(whole))
    before = (last - first) // 2 * (image.row + 1)
    return len(compress(whole)) - len(compress(whole[:before]))


def _libdeflate(level: int) -> Compress | None:
    try:
        import deflate
    except ImportError:
        return None
    return lambda data: bytes(deflate.zlib_compress(data.data, level))


def _zlib_ng(level: int) -> Compress | None:
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return None
    return partial(zlib_ng.compress, level=level)
