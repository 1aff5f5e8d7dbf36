"""How large an image becomes with a filter and a compressor, told by a small share of it.

Two samples. Bands are rows that a compressor sees alone, or after as many rows before them; any compressor
can be tried on them. Windows are rows that zlib-ng sees with all that a match can reach, as a preset
dictionary: of an image that repeats itself they tell the best filter within 1 % nearly always, where bands,
which lack what was before them, may be wrong by five.
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

# Filters as the kernel numbers them; ASKED: by the kernel's own sample.
NONE, UP, PAETH, BEST, ASKED = 0, 2, 4, 5, 6
FILTERS = (0, 1, 2, 4, 5)
RUNS_AT = 4  # the level at which the kernel searches quickly or not at all
_CHUNK_HEAD, _CHUNK_TAIL = 8, 4  # bytes of a chunk before and behind its data
_BANDS, _BAND_ROWS = 4, 8  # and as many rows before each
_MANY_BAND_ROWS = 16  # for levels 8 and 9, where trials take little of the time, and in small images
_SMALL_BYTES, _TINY_BYTES = 2**19, 2**16
# Rows of a window: a share of the image, but enough for a code to pay.
_WINDOW_SHARE, _FEWEST_WINDOW_ROWS, _MOST_WINDOW_ROWS = 256, 2, 8
_REACH = 2**15  # bytes before it that a match can begin at
# The windows of each round of a race, far from one another, and how much larger than the best a filter may be
# to be in the next round.
_ROUNDS = (((1, 6), 1.1), ((3, 4), 1.04), ((0, 2, 5, 7), 1.0))
_WINDOWS = 8
# The others win nothing of what repeats itself, unless the kernel's sample found them.
_RACED = (NONE, UP, PAETH)
# What a compressor leaves counts as that much more after BEST: each row its own filter suits literals, and in
# an image as a whole matches like it less.
_BEST_LOSES = 1.02
# A filter is tried no further if it is so much larger in every second band.
_HOPELESS = 1.15


class Image:
    """An image as the kernel wants it named: pixels, rows, bytes of a row, of a pixel, of a sample."""

    def __init__(self, pixels: Pixels, level: int = 0) -> None:
        height, width, channels = pixels.shape
        step = channels * pixels.itemsize
        self.height, self.row = height, width * step
        self.named = (pixels, height, self.row, step, pixels.itemsize)
        self.is_deep = pixels.itemsize == 2
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

    def by_kernel(self, level: int = RUNS_AT, chosen: int = ASKED) -> bytes:
        """The zlib stream of the whole image as the kernel makes it, by its quick search unless asked."""
        out = np.empty(_png.bound(self.height, self.row), np.uint8)
        written = _png.idat(*self.named, 0, self.height, level, out, chosen)[0]
        return out[_CHUNK_HEAD : written - _CHUNK_TAIL].tobytes()

    def tried(self, level: int, chosen: int = ASKED, every: int = 1) -> int:
        """What the later half of each band, or of every second, adds to the earlier one by the kernel."""
        size = 0
        out = np.empty(_png.bound(self.bands[0][1] - self.bands[0][0], self.row), np.uint8)
        for first, last in self.bands[::every]:
            size += _png.idat(*self.named, first, last, level, out, chosen)[0]
            if last - first < self.height:
                size -= _png.idat(*self.named, first, (first + last) // 2, level, out, chosen)[0]
        return size

    def windows(self) -> list[tuple[int, int, int]]:
        """The row where what a match can reach begins, the first of the window, and the one behind it."""
        rows = min(max(self.height // _WINDOW_SHARE, _FEWEST_WINDOW_ROWS), _MOST_WINDOW_ROWS)
        before = -(-_REACH // (self.row + 1))
        free = self.height - before - rows
        if free < _WINDOWS * rows:
            return []
        starts = [before + free * (2 * i + 1) // (2 * _WINDOWS) for i in range(_WINDOWS)]
        return [(start - before, start, start + rows) for start in starts]


def added(image: Image, chosen: int, compress: Compress, first: int, last: int) -> int:
    """What the later half of a band adds to the earlier one, which it may refer to."""
    whole = image.filtered(chosen, first, last)
    if last - first == image.height:
        return len(compress(whole))
    before = (last - first) // 2 * (image.row + 1)
    return len(compress(whole)) - len(compress(whole[:before]))


def ranked(image: Image, compress: Compress, filters: Iterable[int]) -> list[tuple[int, float]]:
    """The filters and how large the bands are after each, the best first, without those that fell behind."""
    half = _trial(image, compress, filters, image.bands[::2])
    most = min(half.values()) * _HOPELESS
    rest = _trial(image, compress, [one for one in half if half[one] <= most], image.bands[1::2])
    sizes = {one: (half[one] + size) * (_BEST_LOSES if one == BEST else 1) for one, size in rest.items()}
    return sorted(sizes.items(), key=lambda found: found[1])


def raced(image: Image, level: int, sampled: int) -> int | None:
    """The filter after which zlib-ng leaves least of the windows; None without zlib-ng or room for windows.

    sampled: the filter that the kernel's sample found, which runs with the usual ones.
    """
    windows = image.windows()
    if not windows or zlib_ng(level) is None:
        return None
    running = dict.fromkeys({*_RACED, sampled}, 0.0)
    for numbers, most in _ROUNDS:
        for chosen in running:
            factor = _BEST_LOSES if chosen == BEST else 1
            running[chosen] += factor * sum(_window_bytes(image, chosen, level, *windows[i]) for i in numbers)
        least = min(running.values())
        running = {chosen: size for chosen, size in running.items() if size <= least * most}
        if len(running) == 1:
            break
    return min(running, key=lambda chosen: running[chosen])


def libdeflate(level: int) -> Compress:
    """libdeflate at a level; has_libdeflate() was asked before."""
    import deflate

    return lambda data: bytes(deflate.zlib_compress(data.data, level))


def has_libdeflate() -> bool:
    """Whether libdeflate is installed."""
    try:
        import deflate  # noqa: F401
    except ImportError:
        return False
    return True


def zlib_ng(level: int) -> Compress | None:
    """zlib-ng at a level, or None if it is not installed."""
    try:
        from zlib_ng import zlib_ng as library
    except ImportError:
        return None
    return partial(library.compress, level=level)


def _trial(
    image: Image, compress: Compress, filters: Iterable[int], bands: Sequence[tuple[int, int]]
) -> dict[int, int]:
    """How large the bands are after each filter."""
    return {chosen: sum(added(image, chosen, compress, *band) for band in bands) for chosen in filters}


def _window_bytes(image: Image, chosen: int, level: int, first: int, start: int, last: int) -> int:
    """What zlib-ng makes of a window."""
    from zlib_ng import zlib_ng as library

    data = image.filtered(chosen, first, last).data
    cut = (start - first) * (image.row + 1)
    before = bytes(data[max(cut - _REACH, 0) : cut])
    packer = library.compressobj(level=level, zdict=before)
    return len(packer.compress(data[cut:])) + len(packer.flush())
