"""The CRC-32 of an encoded file, as zlib, gzip and archivers have it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any


def _fastest() -> Callable[[Any, int], int]:
    try:
        import deflate  # ten times as fast as zlib where the processor multiplies without carry
    except ImportError:
        return zlib.crc32
    found: Callable[[Any, int], int] = deflate.crc32
    return found


_crc32 = _fastest()


def crc32(parts: Iterable[Any]) -> int:
    """Return the CRC-32 of buffers that follow one another."""
    value = 0
    for part in parts:
        value = _crc32(part, value)
    return value
