"""Writes PNG files: pixels and a level in, the buffers that make the file out.

The compiled kernel (`luna_farm.imaging._png`) filters every image, and compresses it at levels 0 to 4. At
levels 5 to 9 it takes a sample first: where the image repeats itself, libdeflate compresses what the kernel
filtered, which gives the smallest files; where it does not, the kernel is faster and as small. Where the
kernel could not be built, numpy filters and a deflate library do all of it (`png_library`). Every way
writes ordinary PNG that any decoder reads, with the same pixels. This module never touches files, never
changes a pixel, and never lets the absence of a compiler become an error.

Format: W3C PNG (third edition), sections 5 (chunks), 9 (filters) and 10 (deflate in a zlib stream).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from luna_farm.imaging import _png
except ImportError:  # no compiler when this was installed
    _png = None  # type: ignore[assignment]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> gray, gray + alpha, RGB, RGBA
_MAX_SIDE = 2**31 - 1
# An image of this size takes one thread about 30 ms at level 4. Below, threads are not worth their start,
# and other workers have other images. Strips cost 5 bytes each and the matches across their borders.
_SHARED_BYTES = 32 * 2**20
_THREADS = 4
# An IDAT chunk holds less than 2**31 bytes, and the kernel counts positions in 32 bits.
_STRIP_LIMIT_BYTES = 2**29
MAX_ROW_BYTES = 2**29
_SAMPLED = 6  # the kernel's number for the filter that its own sample finds


def backend() -> str:
    """Which encoder runs: "kernel" (the compiled one) or "library" (numpy and a deflate library)."""
    return "kernel" if _png is not None else "library"


def chunk(kind: bytes, data: bytes) -> bytes:
    """A complete PNG chunk: length, type, data, CRC-32. ValueError unless the type is four ASCII letters."""
    if len(kind) != 4 or not kind.isalpha() or not kind.isascii():
        raise ValueError(f"a PNG chunk type is four ASCII letters, not {kind!r}")
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def encode(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], *, level: int, chunks: Sequence[bytes] = ()
) -> list[bytes | memoryview]:
    """Encodes one image and returns the buffers that make the file, in order.

    pixels: [H, W, C], C-contiguous, C = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA); uint8 gives an
    8-bit file, uint16 (native byte order) a 16-bit one. A row has at most MAX_ROW_BYTES. level: 0 (stored) to
    9 (smallest). chunks: complete chunks (see `chunk`) to stand between IHDR and IDAT. Raises ValueError for
    anything else.

    Memory beside the pixels and the result: a few MB at levels 0 to 4, whatever the shape; at levels 5 to 9 a
    filtered copy of the pixels and 20 MB as well.
    """
    _check(pixels, level)
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    head = b"".join([SIGNATURE, chunk(b"IHDR", header), *chunks])
    return [head, *_data(pixels, level), chunk(b"IEND", b"")]


def _data(pixels: NDArray[Any], level: int) -> list[bytes | memoryview]:
    """The IDAT chunks: one, or one a strip where an image is large enough to share among threads."""
    if _png is None:
        # Imported here, because a worker that has the kernel need not carry the libraries.
        from luna_farm.imaging.encoders import png_library

        return [chunk(b"IDAT", png_library.zlib_stream(pixels, level))]
    height = pixels.shape[0]
    strips = min(height, _strip_count(pixels.nbytes))
    cuts = [height * i // strips for i in range(strips + 1)]
    if strips == 1:
        if level >= 5:
            # Imported here, because few ask for these levels.
            from luna_farm.imaging.encoders import png_small

            stream = png_small.stream(pixels, level)
            if isinstance(stream, bytes):
                return [chunk(b"IDAT", stream)]
            return [_strip(pixels, stream.level, 0, height, stream.filter)[0]]
        return [_strip(pixels, level, 0, height)[0]]
    # Imported here, because few images are that large.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(strips, _THREADS), "luna-png") as pool:
        done = list(pool.map(lambda i: _strip(pixels, level, cuts[i], cuts[i + 1]), range(strips)))
    adler, row = 1, pixels[0].nbytes + 1
    for i, (_, strip_adler) in enumerate(done):
        adler = _png.adler_join(adler, strip_adler, (cuts[i + 1] - cuts[i]) * row)
    return [*(data for data, _ in done), chunk(b"IDAT", struct.pack(">I", adler))]


def _strip_count(image_bytes: int) -> int:
    """How many strips: one below _SHARED_BYTES, else one a thread, or more where the kernel's limit asks."""
    threads = min(_THREADS, os.cpu_count() or 1) if image_bytes >= _SHARED_BYTES else 1
    return max(threads, -(-image_bytes // _STRIP_LIMIT_BYTES))


def _strip(
    pixels: NDArray[Any], level: int, first: int, last: int, chosen: int = _SAMPLED
) -> tuple[memoryview, int]:
    """One IDAT chunk for rows first .. last - 1, and the Adler-32 of their filtered bytes.

    chosen: the filter from level 5 on.
    """
    height, row, step = _geometry(pixels)
    out = np.empty(_png.bound(last - first, row), np.uint8)
    written, adler = _png.idat(pixels, height, row, step, pixels.itemsize, first, last, level, out, chosen)
    return out[:written].data, adler


def _geometry(pixels: NDArray[Any]) -> tuple[int, int, int]:
    """Rows, bytes of a row, bytes of a pixel."""
    height, width, channels = pixels.shape
    step = channels * pixels.itemsize
    return height, width * step, step


def _check(pixels: NDArray[Any], level: int) -> None:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"PNG takes uint8 or uint16 pixels in native byte order, not {pixels.dtype}")
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise ValueError(f"PNG takes pixels of shape [H, W, C] with C = 1 to 4, not {list(pixels.shape)}")
    if not all(1 <= side <= _MAX_SIDE for side in pixels.shape[:2]):
        height, width = pixels.shape[:2]
        raise ValueError(f"a PNG has 1 to {_MAX_SIDE} rows and columns, not {height} x {width}")
    if (row := _geometry(pixels)[1]) > MAX_ROW_BYTES:
        raise ValueError(f"a row of this image has {row} bytes; the encoder takes at most {MAX_ROW_BYTES}")
    if not pixels.flags.c_contiguous:
        raise ValueError("PNG takes C-contiguous pixels; make them so with numpy.ascontiguousarray")
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= 9:
        raise ValueError(f"the PNG compression level is a whole number from 0 to 9, not {level!r}")
