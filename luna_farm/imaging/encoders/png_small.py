"""Levels 5 to 9, and 4 for 16 bits: how an image becomes smallest, decided by what samples of it say.

The kernel filters; the compressor depends on the image:

- what is nearly empty (masks, flat drawings, one colour) is the kernel's quick search's or zlib-ng's,
  whichever is smaller: both take a millisecond or two;
- of what repeats itself (maps, drawings, screens), four thin bands are compressed by each of zlib-ng,
  libdeflate and the kernel's quick search; the one that makes them smallest, or a quick one that comes
  close, compresses the rest, with the filter that suits it best;
- of what is dense (photographs, textures), a few bands are tried: libdeflate with the filter that suits it
  best, the kernel's own parser, and literals with runs alone. Noise has nothing but literals, and the
  kernel sends them fastest.

At levels 8 and 9, libdeflate's near-optimal parser compresses everything that holds matches at all, after
the filter that its level 9 compresses best in the bands: that takes a tenth of the time and errs by 1 %.
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
_EMPTY = 2  # symbols that runs leave of 100 bytes: below
_SEARCHED = 2  # the kernel's method for what repeats itself
_RUNS_AT, _PARSED_AT = 4, 6  # levels at which the kernel searches quickly or not at all, and for all matches
_FILTERS = (0, 1, 2, 4, 5)
_UP, _BEST = 2, 5
_REPETITIVE_FILTERS = (0, 2, 4)  # none, Up, Paeth: beside the one that the kernel's sample chose
_BANDS, _BAND_ROWS = 4, 16  # and as many rows before each
_THIN_ROWS = 16  # of a band that is compressed by itself
_SMALL_BYTES = 2**19  # an image of no more is tried whole
# With matches at most so much of what runs alone leave, or they are not worth their time.
_LIBRARY_PAYS, _PARSER_PAYS, _EXACT_PAYS = 0.98, 0.993, 0.998
# The quick level at so much of the smallest size is taken. Another filter is taken for so much of the size,
# and tried no further if it is so much larger in every second band.
_CLOSE, _OTHER_PAYS, _HOPELESS = 1.005, 0.996, 1.05
# Each row its own filter is what suits literals; in an image as a whole, matches like it that much less.
_BEST_GAINS = 1.02
# Below and above, a trial at level 9 says what level 12 would.
_CLEAR = 0.9
# The levels of libdeflate (the usual one, the quick one) and zlib-ng that are tried at a level of ours.
_LIBDEFLATE_LEVELS = {5: (5, 4), 6: (7, 4), 7: (8, 4)}
_ZLIB_NG_LEVELS = {5: 5, 6: 6, 7: 6}


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

    def thin_bands(self) -> list[tuple[int, int]]:
        """Bands that are compressed by themselves: less to do, and good enough to compare compressors."""
        if self.tried_whole:
            return self.bands
        return [(first, min(first + _THIN_ROWS, self.height)) for first, _ in self.bands]

    def written(self, level: int, first: int, last: int) -> int:
        """How many bytes the kernel makes of rows first .. last - 1."""
        out = np.empty(_png.bound(last - first, self.row), np.uint8)
        return int(_png.idat(*self.named, first, last, level, out)[0])

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
    near_optimal, trial = _libdeflate(10 if level == 8 else 12), _libdeflate(9)
    if near_optimal is None or trial is None:
        return level
    image = Image(pixels)
    if level >= 8:
        return _smallest(image, near_optimal, trial)
    chosen, method, symbols = _png.sample(*image.named)
    if symbols < _EMPTY:
        return _nearly_empty(image, chosen, level)
    return _repetitive(image, chosen, level) if method == _SEARCHED else _dense(image, chosen, level)


def deep_stream(pixels: Pixels) -> bytes | int:
    """The same for level 4 of 16-bit colours: computed maps, and 8-bit images that were made 16, repeat
    themselves in ways that the kernel's short search misses. libdeflate's quickest level finds them;
    photographs and what is nearly empty stay with the kernel."""
    quickest = _libdeflate(1)
    image = Image(pixels)
    chosen, method, symbols = _png.sample(*image.named)
    if quickest is None or method == _METHOD_RUNS or symbols <= _REPEATS:
        return 4
    return image.compressed(chosen, quickest)


def _nearly_empty(image: Image, chosen: int, level: int) -> bytes | int:
    library = _zlib_ng(_ZLIB_NG_LEVELS[level])
    found = image.compressed(chosen, library) if library else None
    kernel = np.empty(_png.bound(image.height, image.row), np.uint8)
    size = _png.idat(*image.named, 0, image.height, _RUNS_AT, kernel)[0]
    return found if found is not None and len(found) < size else _RUNS_AT


def _repetitive(image: Image, chosen: int, level: int) -> bytes | int:
    """The way that makes thin bands smallest, or a quick one that comes close, with its best filter."""
    usual, quick = map(_libdeflate, _LIBDEFLATE_LEVELS[level])
    bands = image.thin_bands()
    kernel = sum(image.written(_RUNS_AT, *band) for band in bands)

    def size(way: Compress, filtered: int, some: list[tuple[int, int]]) -> int:
        return sum(len(way(image.filtered(filtered, *band))) for band in some)

    ways = [way for way in (quick, usual, _zlib_ng(_ZLIB_NG_LEVELS[level])) if way is not None]
    sizes = [size(way, chosen, bands) for way in ways]
    if min(sizes) >= kernel:
        return _RUNS_AT
    best = 0 if sizes[0] <= min(sizes) * _CLOSE else sizes.index(min(sizes))
    way, least, half = ways[best], sizes[best], size(ways[best], chosen, bands[::2])
    for other in _REPETITIVE_FILTERS:
        if other == chosen or (first := size(way, other, bands[::2])) > half * _HOPELESS:
            continue
        if (found := first + size(way, other, bands[1::2])) < least * _OTHER_PAYS:
            chosen, least = other, found
    return image.compressed(chosen, way)


def _dense(image: Image, chosen: int, level: int) -> bytes | int:
    with_runs = image.tried(_RUNS_AT)
    quick, compress = _libdeflate(6), _libdeflate(_LIBDEFLATE_LEVELS[level][0])
    assert quick is not None
    assert compress is not None
    chosen, size = _best_filter(image, quick, {_UP, _BEST, chosen})
    if size < with_runs * _LIBRARY_PAYS:
        return image.compressed(chosen, compress)
    if image.tried(_PARSED_AT) < with_runs * _PARSER_PAYS:
        return level
    return 5 if image.tried(5) < with_runs * _EXACT_PAYS else _RUNS_AT


def _smallest(image: Image, compress: Compress, quick: Compress) -> bytes | int:
    chosen, size = _best_filter(image, compress if image.tried_whole else quick, _FILTERS)
    kernel = image.tried(_RUNS_AT)
    if kernel * _CLEAR <= size < kernel / _CLEAR:
        size = _trial(image, compress, [chosen])[chosen]
    return image.compressed(chosen, compress) if size < kernel else _RUNS_AT


def _best_filter(image: Image, compress: Compress, filters: Iterable[int]) -> tuple[int, int]:
    """The filter after which the bands are smallest, and how large they are then."""
    sizes = _trial(image, compress, filters)
    chosen = min(sizes, key=lambda one: sizes[one] * (_BEST_GAINS if one == _BEST else 1))
    return chosen, sizes[chosen]


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
