"""Levels 5 to 9: how an image becomes smallest, decided by trials on a small share of it.

The kernel filters; the compressor depends on what the kernel's sample says of the image:

- what is nearly empty (masks, flat drawings, one colour) takes a millisecond or two, so the kernel's quick
  search and a library compress it whole, and the smaller stream is taken;
- of what repeats itself (maps, drawings, screens), windows tell the filter, and bands whether zlib-ng or
  libdeflate leaves less;
- of what is dense (photographs, textures), the bands are tried with the kernel's own parser, and with
  libdeflate after several filters. Noise has nothing but literals, and the kernel sends them fastest.

At levels 8 and 9 a quick level of libdeflate finds the filter, and a slow one compresses. At level 9 what
repeats itself gets libdeflate's 12. What is dense gets its 11: within 0.3 % of 12, in 0.7 of its time, which
pays for the trials.
"""

from __future__ import annotations

from typing import NamedTuple

from luna_farm.imaging import _png
from luna_farm.imaging.encoders.png_trials import (
    ASKED,
    BEST,
    FILTERS,
    NONE,
    PAETH,
    RUNS_AT,
    UP,
    Compress,
    Image,
    Pixels,
    added,
    has_libdeflate,
    libdeflate,
    raced,
    ranked,
    zlib_ng,
)

# Symbols that runs leave of 100 bytes: nearly empty below, few repetitions from here on, hardly any, noise.
_EMPTY, _THICK, _CROWDED, _NOISY = 2, 40, 92, 96
_SEARCHED = 2  # the kernel's method for what repeats itself
_SMALL_TRIALS = 2  # filters that levels 8 and 9 try whole on a small image, of which a sample says little
# With the kernel's parser at more than so much of what runs alone leave, an image is noise, and libraries
# gain nothing; at more than so much, the parser does not pay either.
_NOISE, _EXACT_PAYS = 0.99, 0.998
# What sizes count for: libdeflate's quick level is the fastest way, then comes zlib-ng.
_QUICK_GAINS, _SLOW_LOSES = 0.995, 1.015
# By level: libdeflate for what repeats itself and for what is dense, and zlib-ng for what repeats itself.
# There libdeflate's 11 may be 10 % larger than its 12.
_LIBDEFLATE_LEVELS = {5: (5, 5), 6: (7, 7), 7: (8, 8), 8: (10, 10), 9: (12, 11)}
_ZLIB_NG_LEVELS = {5: 5, 6: 6, 7: 7, 8: 9, 9: 9}
_EMPTY_ZLIB_NG_LEVELS = {5: 6, 6: 6, 7: 6, 8: 9, 9: 9}  # its 7 is no better than its 6 there
_QUICK_LIBDEFLATE = 4
# Of what is nearly empty, zlib-ng's 6 tells which filters are worth its 9: those that leave at most so much
# of the least. What its 9 makes so small libdeflate's 12 makes no smaller, in ten times the time.
_CLOSE, _FEW = 1.1, 8192
# The level that finds the filter for levels 10 to 12: it errs by 1 %, twenty times as fast as they are. What
# repeats itself gets one more: enlarged pixels were 24 % larger without, since only it finds what lies far.
_SCOUT, _SCOUT_OF_REPEATED = 7, 8
# Where runs alone leave more than so much of the bytes, nothing gains anything.
_INCOMPRESSIBLE = 0.98
# Where there are matches, the slow level leaves at most so much of what the scout leaves.
_SCOUT_GAINS = 0.97


class ByKernel(NamedTuple):
    """The kernel shall write the stream: at which level and, from level 5 on, after which filter."""

    level: int
    filter: int = ASKED


def stream(pixels: Pixels, level: int) -> bytes | ByKernel:
    """The zlib stream of the image's filtered rows, or how the kernel shall write it.

    pixels: [H, W, C], C-contiguous. level: 5 to 9.
    """
    if not has_libdeflate():
        return ByKernel(level)
    image = Image(pixels, level)
    chosen, method, symbols = _png.sample(*image.named)
    if symbols < _EMPTY:
        return _nearly_empty(image, chosen, level)
    if level >= 8:
        return _smallest(image, chosen, method, symbols, level)
    if method == _SEARCHED or symbols < _THICK:
        found: bytes | ByKernel = _repetitive(image, chosen, level, symbols)
    else:
        found = _dense(image, chosen, level, symbols)
    if level > 5 or found == ByKernel(RUNS_AT):
        return found
    # Level 4 takes a third of the time at most; it was smaller on one image of twelve, pixel art by a fifth.
    made = image.by_kernel(*found) if isinstance(found, ByKernel) else found
    return min(made, image.by_kernel(), key=len)


def _nearly_empty(image: Image, sampled: int, level: int) -> bytes:
    """The smallest of all ways, tried whole: bands would say more of their own heads than of the image."""
    found = [image.by_kernel()]
    chosen = UP if sampled == BEST else sampled
    if level < 9 and (library := zlib_ng(_EMPTY_ZLIB_NG_LEVELS[level])):
        found.append(image.compressed(chosen, library))
    elif library := zlib_ng(_EMPTY_ZLIB_NG_LEVELS[level]):
        chosen, smallest = _smallest_empty(image, chosen, library)
        found.append(smallest)
        if len(smallest) > _FEW:
            found.append(image.compressed(chosen, libdeflate(_LIBDEFLATE_LEVELS[level][0])))
    else:
        image.bands = [(0, image.height)]
        chosen = ranked(image, libdeflate(_SCOUT_OF_REPEATED), FILTERS)[0][0]
        found.append(image.compressed(chosen, libdeflate(_LIBDEFLATE_LEVELS[level][0])))
    return min(found, key=len)


def _smallest_empty(image: Image, sampled: int, library: Compress) -> tuple[int, bytes]:
    """The filter after which a library leaves least of the whole, and what it leaves."""
    quick = zlib_ng(_EMPTY_ZLIB_NG_LEVELS[6]) or library
    scouted = {one: len(image.compressed(one, quick)) for one in (NONE, UP, PAETH, sampled)}
    close = [one for one, size in scouted.items() if size <= min(scouted.values()) * _CLOSE]
    made = {one: image.compressed(one, library) for one in close}
    chosen = min(made, key=lambda one: len(made[one]))
    return chosen, made[chosen]


def _repetitive(image: Image, sampled: int, level: int, symbols: int) -> bytes:
    """The library that leaves least of every second band, with the filter that the windows found.

    libdeflate may do better after the sample's filter, if that is another one.
    """
    # Of noise zlib-ng is slow, and the sample knows what its literals cost.
    chosen = sampled if symbols >= _NOISY else raced(image, _ZLIB_NG_LEVELS[level], sampled)
    if chosen is None:
        chosen = sampled if sampled != BEST else ranked(image, libdeflate(_QUICK_LIBDEFLATE), FILTERS)[0][0]
    slow = libdeflate(_LIBDEFLATE_LEVELS[level][0])
    ways = [(chosen, slow, _SLOW_LOSES)]
    if symbols < _NOISY and (library := zlib_ng(_ZLIB_NG_LEVELS[level])):
        ways.append((chosen, library, 1.0))
    if symbols >= _THICK:
        ways.append((chosen, libdeflate(_QUICK_LIBDEFLATE), _QUICK_GAINS))
    if sampled != chosen:
        ways.append((sampled, slow, _SLOW_LOSES))
    if image.is_small:  # bands of it would say little, and take as long
        made = [image.compressed(one, way) for one, way, _ in ways]
        return min([*made, image.by_kernel()] if symbols >= _THICK else made, key=len)
    sizes = [sum(added(image, one, way, *band) for band in image.bands[::2]) * k for one, way, k in ways]
    if symbols >= _THICK and image.tried(RUNS_AT, every=2) < min(sizes):
        return image.by_kernel()
    chosen, best, _ = ways[sizes.index(min(sizes))]
    return image.compressed(chosen, best)


def _dense(image: Image, sampled: int, level: int, symbols: int) -> bytes | ByKernel:
    with_runs, parsed = image.tried(RUNS_AT), image.tried(level, sampled)
    by_parser = ByKernel(level, sampled)
    if symbols >= _NOISY and sampled != NONE and parsed > with_runs * _NOISE:
        return by_parser if parsed < with_runs * _EXACT_PAYS else ByKernel(RUNS_AT)
    library = libdeflate(_LIBDEFLATE_LEVELS[level][1])
    chosen, size = ranked(image, library, {NONE, UP, BEST, sampled})[0]
    if chosen != sampled and (other := image.tried(level, chosen)) < parsed:
        by_parser, parsed = ByKernel(level, chosen), other
    if image.is_deep and (other_library := zlib_ng(_ZLIB_NG_LEVELS[level])):
        # Of 16 bits that were 8 it may leave 5 % less.
        other_chosen, other_size = ranked(image, other_library, {chosen, PAETH})[0]
        if other_size < size:
            chosen, size, library = other_chosen, other_size, other_library
    if with_runs < min(size, parsed):
        return ByKernel(RUNS_AT)
    return image.compressed(chosen, library) if size < parsed else by_parser


def _smallest(image: Image, sampled: int, method: int, symbols: int, level: int) -> bytes | ByKernel:
    repetitive = method == _SEARCHED
    libraries = [libdeflate(_LIBDEFLATE_LEVELS[level][0 if repetitive or image.is_small else 1])]
    if level == 8 and repetitive and (other := zlib_ng(_ZLIB_NG_LEVELS[level])):
        libraries.append(other)
    # Smooth images: libdeflate's 7 takes a tenth of the time of its 11 there, and is not misled as bands are.
    smooth = level == 9 and symbols < _THICK and not repetitive
    if smooth or image.is_small:
        image.bands = [(0, image.height)]
    # Where there are matches, the parser seems better by bands than it is: they lack what lies before them.
    crowded = symbols >= _CROWDED
    runs = image.tried(RUNS_AT) if crowded else 0
    if runs > image.tried_bytes * _INCOMPRESSIBLE:
        return ByKernel(RUNS_AT)
    best = raced(image, _ZLIB_NG_LEVELS[level], sampled) if repetitive and not image.is_small else None
    if best is None:
        scout = libdeflate(_SCOUT_OF_REPEATED if repetitive else _SCOUT)
        found = [one for one, _ in ranked(image, scout, FILTERS)]
        best = found[0]
    elif best != sampled:
        # Windows may miss where patterns of many rows change; bands are higher.
        best = ranked(image, libdeflate(_SCOUT_OF_REPEATED), {best, sampled})[0][0]
    if crowded:
        # What the slow level will leave, the next one tells better.
        size = sum(size for _, size in ranked(image, libdeflate(_SCOUT + 1), [best]))
        lowered = size * (1 if symbols >= _NOISY else _SCOUT_GAINS)
        if runs < size and (parsed := image.tried(level, best)) < lowered:
            return ByKernel(level, best) if parsed < runs * _EXACT_PAYS else ByKernel(RUNS_AT)
    if image.is_small:
        tried = found[:_SMALL_TRIALS]
        return min((image.compressed(one, way) for one in tried for way in libraries), key=len)
    if len(libraries) > 1:
        first = image.bands
        libraries.sort(key=lambda way: sum(added(image, best, way, *band) for band in first))
    return image.compressed(best, libraries[0])
