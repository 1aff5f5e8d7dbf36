"""From pixels and options to the bytes of a file: the one auth to all formats.

`encode` picks the module of the format and imports it then, so that a worker which only writes PNG never
loads an image library. It must never touch files, never change the pixels it is given, and never fail a save
for the sake of metadata: what cannot be embedded is left out and said in `warnings`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from luna_farm.core.messages import FORMATS, SaveOptions
from luna_farm.errors import EncodeError, InvalidRequest
from luna_farm.imaging.metadata import NOTHING, Embedded


@dataclass(slots=True)
class Encoded:
    """A finished file.

    `buffers` are the parts of the file in order; they may view memory of the encoder, never the given pixels.
    `sidecar` is the JSON (UTF-8) to write to a `.json` beside the file, None for none. `warnings` are
    sentences for the report.
    """

    buffers: list[bytes | memoryview]
    sidecar: bytes | None = None
    warnings: list[str] = field(default_factory=list)


Encoder = Callable[[NDArray[np.uint8], SaveOptions, Embedded], Encoded]


def encode(
    pixels: NDArray[np.uint8],
    format: str,  # noqa: A002 - the word that the protocol and every caller use
    options: SaveOptions,
    embedded: Embedded,
) -> Encoded:
    """Encode one image.

    pixels: [H, W, C] uint8, C-contiguous, C = 1 (gray), 3 (RGB) or 4 (RGBA). format: a key of `FORMATS`.
    Of the options it reads `png_compression` (0..9), `lossy_quality` (1..100) and `lossless_webp`.
    Raises InvalidRequest for an unknown format and for pixels that are none of the above, EncodeError where
    no encoder can make the file (too large for the format, a package missing).
    """
    if format not in FORMATS:
        raise InvalidRequest.of("format", format, ", ".join(FORMATS))
    _check(pixels)
    encoder = _encoder(format)
    try:
        encoded = _run(encoder, format, pixels, options, embedded)
    except EncodeError as error:
        if embedded.empty:
            raise
        # If it was the metadata, the image is saved without it; if it was the image, this raises again.
        encoded = _run(encoder, format, pixels, options, NOTHING)
        encoded.warnings.append(f"the metadata could not be embedded and was left out: {error}")
    encoded.warnings[:0] = embedded.warnings
    return encoded


def _encoder(name: str) -> Encoder:
    if name == "png":
        return _png
    return cast(Encoder, importlib.import_module(f"luna_farm.imaging.encoders.{name}").encode)


def _run(
    encoder: Encoder, name: str, pixels: NDArray[np.uint8], options: SaveOptions, embedded: Embedded
) -> Encoded:
    try:
        return encoder(pixels, options, embedded)
    except EncodeError:
        raise
    except Exception as error:
        # Codecs raise what they like (OSError, ValueError, SystemError); to the farm it is one thing.
        size = "x".join(str(side) for side in pixels.shape)
        raise EncodeError(f"{size} pixels (H x W x C) could not be encoded as {name}: {error}") from error


def _png(pixels: NDArray[np.uint8], options: SaveOptions, embedded: Embedded) -> Encoded:
    from luna_farm.imaging import metadata_png
    from luna_farm.imaging.encoders import png

    chunks = [png.chunk(b"tEXt", data) for data in metadata_png.texts(embedded)]
    return Encoded(png.encode(pixels, level=options.png_compression, chunks=chunks))


def _check(pixels: NDArray[Any]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.size == 0:
        given = f"{pixels.dtype} {list(pixels.shape)}"
        raise InvalidRequest.of("pixels", given, "uint8 [H, W, C] with C = 1, 3 or 4, at least one pixel")
    if not pixels.flags.c_contiguous:
        raise InvalidRequest.of("pixels", "a strided view", "C-contiguous memory (numpy.ascontiguousarray)")
