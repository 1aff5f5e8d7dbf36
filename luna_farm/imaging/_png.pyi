"""What the compiled kernel offers; see _png.c."""

from typing import Any

def idat(
    pixels: Any,
    height: int,
    row_bytes: int,
    pixel_bytes: int,
    sample_bytes: int,
    first_row: int,
    last_row: int,
    level: int,
    out: Any,
    chosen: int = 6,
    /,
) -> tuple[int, int]: ...
def filter(  # noqa: A001
    pixels: Any,
    height: int,
    row_bytes: int,
    pixel_bytes: int,
    sample_bytes: int,
    first_row: int,
    last_row: int,
    chosen: int,
    out: Any,
    /,
) -> None: ...
def sample(
    pixels: Any, height: int, row_bytes: int, pixel_bytes: int, sample_bytes: int, /
) -> tuple[int, int, int]: ...
def bound(rows: int, row_bytes: int, /) -> int: ...
def adler_join(first: int, second: int, second_bytes: int, /) -> int: ...
def quantize(src: Any, dst: Any, /) -> bool: ...
def quantize_planes(src: Any, dst: Any, first: int, count: int, /) -> bool: ...
def scores(
    pixels: Any, height: int, width: int, channels: int, down: Any, across: Any, /
) -> tuple[float, float, float, bool, int]: ...
