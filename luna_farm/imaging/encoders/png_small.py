"""Levels 5 to 9: how an image becomes smallest, decided by trials on bands of it.

The kernel filters; the compressor depends on what the kernel's sample says of the image:

- what is nearly empty (masks, flat drawings, one colour) takes a millisecond or two, so the kernel's quick
  search and a library compress it whole, and the smaller stream is taken;
- of what repeats itself (maps, drawings, screens), four bands are compressed by zlib-ng, two levels of
  libdeflate and the kernel's quick search. The smallest wins, with the filter that the sample found;
- of what is dense (photographs, textures), the bands are tried with the kernel's own parser, and with
  libdeflate after several filters. Noise has nothing but literals, and the kernel sends them fastest.

At levels 8 and 9 a quick level of libdeflate finds the filter, and a slow one compresses. At level 9 what
repeats itself gets libdeflate's 12. What is dense gets its 11: within 0.3 % of 12, in 0.7 of its time, which
pays for the trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.imaging import _png

Pixels = NDArray[Any]
Bytes = NDArray[np.uint8]
Compress = Callable[[Bytes], bytes]

# Symbols that runs leave of 100 bytes: nearly empty below, hardly any repetition from here on, and noise.
_EMPTY, _CROWDED, _NOISY = 2, 80, 96
_SEARCHED = 2  # the kernel's method for what repeats itself
_CHUNK_HEAD, _CHUNK_TAIL = 8, 4  # bytes of a chunk before and behind its data
_RUNS_AT = 4  # the level at which the kernel searches quickly or not at all
_FILTERS = (0, 1, 2, 4, 5)
_NONE, _UP, _BEST = 0, 2, 5
_BANDS, _BAND_ROWS = 4, 8  # and as many rows before each
_MANY_BAND_ROWS = 16  # for levels 8 and 9, where trials take little of the time, and in small images
_SMALL_BYTES, _TINY_BYTES = 2**19, 2**16
_SMALL_TRIALS = 2  # filters that levels 8 and 9 try whole on a small image, of which a sample says little
# With the kernel's parser at more than so much of what runs alone leave, an image is noise, and libraries
# gain nothing; at more than so much, the parser does not pay either.
_NOISE, _EXACT_PAYS = 0.99, 0.998
# What sizes count for: libdeflate's quick level is the fastest way, then comes zlib-ng.
_HANDICAPS = (0.995, 1.01, 1.0)
# A filter is tried no further if it is so much larger in every second band.
_HOPELESS = 1.15
# Each row its own filter is what suits literals; in an image as a whole, matches like it that much less.
_BEST_LOSES = 1.02
# By level: libdeflate for what repeats itself and for what is dense, and zlib-ng for what repeats itself.
# There libdeflate's 11 may be 10 % larger than its 12.
_LIBDEFLATE_LEVELS = {5: (5, 5), 6: (7, 7), 7: (8, 8), 8: (10, 10), 9: (12, 11)}
_ZLIB_NG_LEVELS = {5: 5, 6: 6, 7: 7, 8: 9, 9: 9}
_EMPTY_ZLIB_NG_LEVELS = {5: 6, 6: 6, 7: 6, 8: 9, 9: 9}  # its 7 is no better than its 6 there
_QUICK_LIBDEFLATE = 4
# The level that finds the filter for levels 10 to 12: it errs by 1 %, twenty times as fast as they are. What
# repeats itself gets one more: enlarged pixels were 24 % larger without, since only it finds what lies far.
_SCOUT, _SCOUT_OF_REPEATED = 7, 8
# Where runs alone leave more than so much of the bytes, nothing gains anything.
_INCOMPRESSIBLE = 0.98
# Where there are matches, the slow level leaves at most so much of what the scout leaves.
_SCOUT_GAINS = 0.97


class Image:
    """An image as the kernel wants it named: pixels, rows, bytes of a row, of a pixel, of a sample."""

    def __init__(self, pixels: Pixels, level: int = 0) -> None:
        height, width, channels = pixels.shape
        step = channels * pixels.itemsize
        self.height, self.row = height, width * step
        self.named = (pixels, height, self.row, step, pixels.itemsize)
        self.is_small = height * self.row <= _SMALL_BYTES
        rows = 2 * (_MANY_BAND_ROWS if level >= 8 or self.is_small else _BAND_ROWS)
        if height * self.row <= _TINY_BYTES or height < rows * _BANDS:
            self.bands = [(0, height)]
        else:
            starts = [(height - rows) * (2 * i + 1) // (2 * _BANDS) for i in range(_BANDS)]
            self.bands = [(start, start + rows) for start in starts]

    @property
    def tried_bytes(self) -> int:
        """How many bytes `tried` compresses."""
        rows = sum(
            last - first if last - first == self.height else (last - first) // 2 for first, last in self.bands
        )
        return int(rows * (self.row + 1))

    def filtered(self, chosen: int, first: int, last: int) -> Bytes:
        """Rows first .. last - 1 through a filter."""
        out = np.empty((last - first) * (self.row + 1), np.uint8)
        _png.filter(*self.named, first, last, chosen, out)
        return out

    def compressed(self, chosen: int, compress: Compress) -> bytes:
        """The zlib stream of the whole image."""
        return compress(self.filtered(chosen, 0, self.height))

    def searched(self) -> bytes:
        """The zlib stream of the whole image as the kernel's quick search makes it."""
        out = np.empty(_png.bound(self.height, self.row), np.uint8)
        written = _png.idat(*self.named, 0, self.height, _RUNS_AT, out)[0]
        return out[_CHUNK_HEAD : written - _CHUNK_TAIL].tobytes()

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
    if _libdeflate(level) is None:
        return level
    image = Image(pixels, level)
    chosen, method, symbols = _png.sample(*image.named)
    if symbols < _EMPTY:
        return _nearly_empty(image, chosen, level)
    if level >= 8:
        return _smallest(image, method, symbols, level)
    if method == _SEARCHED:
        return _repetitive(image, chosen, level)
    return _dense(image, chosen, level, symbols)


def _nearly_empty(image: Image, chosen: int, level: int) -> bytes:
    """The smallest of all ways, tried whole: bands would say more of their own heads than of the image."""
    found = [image.searched()]
    if library := _zlib_ng(_EMPTY_ZLIB_NG_LEVELS[level]):
        found.append(image.compressed(_UP if chosen == _BEST else chosen, library))
    if level >= 9 or len(found) == 1:
        image.bands = [(0, image.height)]
        chosen = _ranked(image, _library(_SCOUT_OF_REPEATED), _FILTERS)[0][0]
        found.append(image.compressed(chosen, _library(_LIBDEFLATE_LEVELS[level][0])))
    return min(found, key=len)


def _repetitive(image: Image, chosen: int, level: int) -> bytes:
    """The way that makes the bands smallest. Which filter is best, the kernel's sample tells better."""
    if chosen == _BEST:
        chosen = _ranked(image, _library(_QUICK_LIBDEFLATE), _FILTERS)[0][0]
    ways = [_library(_QUICK_LIBDEFLATE), _library(_LIBDEFLATE_LEVELS[level][0])]
    if library := _zlib_ng(_ZLIB_NG_LEVELS[level]):
        ways.append(library)
    sizes = [sum(len(way(image.filtered(chosen, *band))) for band in image.bands) for way in ways]
    if min(sizes) >= sum(image.written(_RUNS_AT, *band) for band in image.bands):
        return image.searched()
    judged = [size * handicap for size, handicap in zip(sizes, _HANDICAPS, strict=False)]
    return image.compressed(chosen, ways[judged.index(min(judged))])


def _dense(image: Image, chosen: int, level: int, symbols: int) -> bytes | int:
    with_runs, parsed = image.tried(_RUNS_AT), image.tried(level)
    if symbols >= _NOISY and chosen != _NONE and parsed > with_runs * _NOISE:
        return level if parsed < with_runs * _EXACT_PAYS else _RUNS_AT
    library = _library(_LIBDEFLATE_LEVELS[level][1])
    chosen, size = _ranked(image, library, {_NONE, _UP, _BEST, chosen})[0]
    if with_runs < min(size, parsed):
        return _RUNS_AT
    return image.compressed(chosen, library) if size < parsed else level


def _smallest(image: Image, method: int, symbols: int, level: int) -> bytes | int:
    repetitive = method == _SEARCHED
    libraries = [_library(_LIBDEFLATE_LEVELS[level][0 if repetitive else 1])]
    if level == 8 and repetitive and (other := _zlib_ng(_ZLIB_NG_LEVELS[level])):
        libraries.append(other)
    crowded = not repetitive or symbols >= _CROWDED
    runs = image.tried(_RUNS_AT) if crowded else 0
    if runs > image.tried_bytes * _INCOMPRESSIBLE:
        return _RUNS_AT
    found = _ranked(image, _library(_SCOUT_OF_REPEATED if repetitive else _SCOUT), _FILTERS)
    if crowded:
        # What the slow level will leave, the next one tells better.
        size = sum(size for _, size in _ranked(image, _library(_SCOUT + 1), [found[0][0]]))
        lowered = size * (1 if symbols >= _NOISY else _SCOUT_GAINS)
        if runs < size and (parsed := image.tried(level)) < lowered:
            return level if parsed < runs * _EXACT_PAYS else _RUNS_AT
    filters = [one for one, _ in found[: _SMALL_TRIALS if image.is_small else 1]]
    if image.is_small:
        return min((image.compressed(one, way) for one in filters for way in libraries), key=len)
    if len(libraries) > 1:
        libraries.sort(key=lambda way: _trial(image, way, filters, image.bands)[filters[0]])
    return image.compressed(filters[0], libraries[0])


def _ranked(image: Image, compress: Compress, filters: Iterable[int]) -> list[tuple[int, float]]:
    """The filters and how large the bands are after each, the best first, without those that fell behind."""
    half = _trial(image, compress, filters, image.bands[::2])
    most = min(half.values()) * _HOPELESS
    rest = _trial(image, compress, [one for one in half if half[one] <= most], image.bands[1::2])
    sizes = {one: (half[one] + size) * (_BEST_LOSES if one == _BEST else 1) for one, size in rest.items()}
    return sorted(sizes.items(), key=lambda found: found[1])


def _trial(
    image: Image, compress: Compress, filters: Iterable[int], bands: Sequence[tuple[int, int]]
) -> dict[int, int]:
    """How large the bands are after each filter."""
    return {chosen: sum(_added(image, chosen, compress, *band) for band in bands) for chosen in filters}


def _added(image: Image, chosen: int, compress: Compress, first: int, last: int) -> int:
    """What the later half of a band adds to the earlier one, which it may refer to."""
    whole = image.filtered(chosen, first, last)
    if last - first == image.height:
        return len(compress(whole))
    before = (last - first) // 2 * (image.row + 1)
    return len(compress(whole)) - len(compress(whole[:before]))


def _library(level: int) -> Compress:
    library = _libdeflate(level)
    if library is None:
        raise AssertionError("stream() asked whether libdeflate is there")
    return library


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
