"""Luna Farm's PNG encoder by itself: no farm, no server, only arrays in and bytes out.

    from luna_farm import png
    data = png.encode(array)                                  # uint8 or uint16, [H, W] or [H, W, 1 to 4]
    data = png.encode(array, level=9, text={"prompt": "..."})
    png.register_pillow()                                     # from now on Image.save("x.png") uses it

docs/png.md has the figures. It runs in every installation of luna-farm; where the C kernel could not be
built, numpy and deflate libraries do the same, slower (`luna-farm doctor` says which).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from luna_farm.imaging.encoders import png as _encoder

DEFAULT_LEVEL = 4
MAX_KEYWORD = 79

Chunk: TypeAlias = tuple[bytes, bytes]


def encode(
    array: ArrayLike,
    *,
    level: int = DEFAULT_LEVEL,
    text: Mapping[str, str] | None = None,
    chunks: Iterable[Chunk] = (),
) -> bytes:
    """Encodes an image as PNG and returns the file.

    array: uint8 or uint16 (any byte order), [H, W] or [H, W, C] with C = 1 (gray), 2 (gray and alpha), 3
    (RGB) or 4 (RGBA), with any strides. level: 0 (stored) to 9 (smallest); 4 suits most. text: keywords (1
    to 79 Latin-1 characters) and texts; a text goes into `tEXt` if it is Latin-1, else into `iTXt`. chunks:
    further chunks, each its type (four letters, the first a small one: the others make the image, and the
    encoder writes them) and data, placed before the pixels. Raises ValueError for anything else, and
    MemoryError.

    The same pixels and options give the same file. The GIL is released while pixels are compressed.
    """
    pixels, level = _pixels(array), _whole(level)
    return b"".join(_encoder.encode(pixels, level=level, chunks=_chunks(text, chunks)))


def backend() -> str:
    """Which encoder runs: "kernel" (compiled C) or "library" (numpy and deflate libraries)."""
    return _encoder.backend()


def register_pillow() -> None:
    """Lets Pillow write PNG by this encoder, for every `Image.save` in this process from now on.

    Takes Pillow's own options: `compress_level`, `optimize`, `pnginfo`, `dpi`, `icc_profile`, `exif`,
    `transparency`. Where the encoder does not apply (palettes, 1-bit images, `save_all`, `bits`, ...)
    Pillow's own writer does the work, so no image is refused that was saved before. Calling it twice is the
    same as once.
    """
    from luna_farm.imaging import pillow_png

    pillow_png.register()


def _pixels(array: Any) -> Any:
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(pixels) if pixels.ndim == 3 else pixels


def _whole(level: Any) -> Any:
    """`level` as an int, also of numpy's; what is no whole number stays as it is, and is refused by name."""
    if isinstance(level, bool):
        return level
    try:
        return operator.index(level)
    except TypeError:
        return level


def _chunks(text: Mapping[str, str] | None, chunks: Iterable[Chunk] | None) -> list[bytes]:
    if not isinstance(text, Mapping | None):
        raise ValueError(f"text is a map of keywords and texts, not {text!r:.80}")
    texts = [text_chunk(keyword, value) for keyword, value in (text or {}).items()]
    return texts + [_further_chunk(each) for each in chunks or ()]


def _further_chunk(given: Any) -> bytes:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f"chunks are pairs of a type and data, such as (b'pHYs', data), not {given!r:.80}")
    kind, data = given
    if not isinstance(kind, bytes) or not isinstance(data, bytes | bytearray | memoryview):
        raise ValueError(
            f"type and data of a PNG chunk are bytes, not {type(kind).__name__} and {type(data).__name__}"
        )
    whole = _encoder.chunk(kind, bytes(data))
    if kind[:1].isupper():
        raise ValueError(f"the encoder writes the chunks that make the image; {kind!r} begins with a capital")
    return whole


def text_chunk(keyword: str, value: str) -> bytes:
    """A whole `tEXt` chunk, or `iTXt` where the text is not Latin-1. ValueError for what PNG lacks."""
    if not isinstance(keyword, str) or not isinstance(value, str):
        raise ValueError(f"keywords and texts of a PNG are str, not {keyword!r:.80}: {value!r:.80}")
    name = keyword.encode("latin-1", "replace")
    if not 1 <= len(name) <= MAX_KEYWORD or keyword != name.decode("latin-1") or keyword.strip() != keyword:
        allowed = f"1 to {MAX_KEYWORD} Latin-1 characters and no space around it"
        raise ValueError(f"a PNG keyword has {allowed}, not {keyword!r}")
    if "\0" in keyword or "\0" in value:
        raise ValueError(f"a PNG text holds no NUL character: {keyword!r}")
    try:
        return _encoder.chunk(b"tEXt", name + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        pass
    try:
        return _encoder.chunk(b"iTXt", name + b"\0\0\0\0\0" + value.encode("utf-8"))
    except UnicodeEncodeError as error:  # half a surrogate pair
        raise ValueError(f"the text of {keyword!r} is not Unicode: {error}") from None
