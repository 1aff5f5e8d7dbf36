"""From pixels and options to the bytes of a file: the one entry to all formats.

`encode` picks the module of the format and imports it then, so that a worker which only writes PNG never
loads an image library. It must never touch files, never change the pixels it is given, and never fail a save
for the sake of metadata: what cannot be embedded is left out and said in `warnings`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from numpy.typing import NDArray

from luna_farm.core.formats import DTYPES, FORMATS, depth_warning, stored_depth
from luna_farm.core.messages import SaveOptions
from luna_farm.errors import EncodeError, InvalidRequest
from luna_farm.imaging.depth import Pixels, convert
from luna_farm.imaging.marks import Marks, marks
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
    left_out: bool = False
    """The metadata could not be embedded at all."""


_ICC_HEADER = 128  # bytes

Encoder = Callable[[Pixels, SaveOptions, Embedded, Marks], Encoded]
"""Of one format: pixels in a depth that the format stores (10 bits as uint16 of full range)."""


def encode(
    pixels: Pixels,
    format: str,  # noqa: A002 - the word that the protocol and every caller use
    options: SaveOptions,
    embedded: Embedded,
) -> Encoded:
    """Encode one image.

    pixels: [H, W, C], C-contiguous, uint8, uint16, float16 or float32 (1.0 is full), C = 1 (gray), 3 (RGB) or
    4 (RGBA, alpha not multiplied in). format: a key of `FORMATS`. The options say how: `bit_depth`,
    `colorspace`, `icc_profile`, and what each format reads. Raises InvalidRequest for an unknown format and
    for pixels that are none of the above, EncodeError where no encoder can make the file (too large for the
    format, a package missing).
    """
    if format not in FORMATS:
        raise InvalidRequest.of("format", format, ", ".join(FORMATS))
    dtype = check_pixels(pixels)
    check_sides(pixels, format)
    encoder = _encoder(format)
    warning = depth_warning(dtype, options.bit_depth, format)
    stored = convert(pixels, stored_depth(dtype, options.bit_depth, format))
    marked, misfit = fitting(marks(options), gray=stored.shape[2] == 1 and FORMATS[format].gray)
    embedded = without_profile(embedded, marked) if misfit else embedded
    try:
        encoded = _run(encoder, format, stored, options, embedded, marked)
    except EncodeError as error:
        if embedded.empty:
            raise
        # If it was the metadata, the image is saved without it; if it was the image, this raises again.
        encoded = _run(encoder, format, stored, options, NOTHING, marked)
        encoded.left_out = True
        encoded.warnings.append(f"the metadata could not be embedded and was left out: {error}")
    encoded.warnings[:0] = [*embedded.warnings, *misfit, *([warning] if warning else [])]
    decide_sidecar(encoded, options, embedded)
    return encoded


def fitting(marked: Marks, *, gray: bool) -> tuple[Marks, list[str]]:
    """Leave out an ICC profile that readers refuse or misread: of other colours than the file stores, or
    damaged. What stands behind its end goes as well.

    ICC.1:2022, 7.2: bytes 0 to 3 are the length of the profile, 16 to 19 its colours, 36 to 39 are "acsp".
    """
    if not marked.icc:
        return marked, []
    length = int.from_bytes(marked.icc[:4], "big")
    space = marked.icc[16:20].decode("latin-1").strip()
    if not _ICC_HEADER <= length <= len(marked.icc) or marked.icc[36:40] != b"acsp":
        told = "The ICC profile is damaged or cut short; it was left out."
    elif space != ("GRAY" if gray else "RGB"):
        held = "gray" if gray else "RGB"
        told = f"The ICC profile is one of {space or 'no'} colours, the file holds {held}; it was left out."
    else:
        return marked if length == len(marked.icc) else replace(marked, icc=marked.icc[:length]), []
    return replace(marked, icc=b""), [told]


def without_profile(embedded: Embedded, marked: Marks) -> Embedded:
    """Return what EXIF is to say of a file that got no profile after all."""
    return replace(embedded, srgb=marked.colorspace == "srgb")


def decide_sidecar(encoded: Encoded, options: SaveOptions, embedded: Embedded) -> None:
    """Decide on the .json beside the image: what did not fit goes there, or everything, or nothing."""
    if options.sidecar == "never":
        encoded.sidecar = None
        return
    wanted = embedded.beside or encoded.left_out or options.sidecar == "always"
    if encoded.sidecar is not None or embedded.empty or not wanted:
        return
    from luna_farm.imaging import metadata_exif  # few images need one

    try:
        encoded.sidecar = metadata_exif.sidecar(embedded)
    except Exception as error:  # whatever it is, the image is worth more
        encoded.warnings.append(f"the .json beside the image could not be made: {error}")


def colour_warning(title: str, marked: Marks, *, icc: bool, cicp: bool) -> list[str]:
    """Return a warning where a format cannot say what the values of an image mean."""
    told = []
    if marked.icc and not icc:
        told.append(f"{title} has no place here for an ICC profile; it was left out.")
        marked = replace(marked, icc=b"")
    if marked.hdr and not cicp:
        told.append(
            f"{title} cannot say that its values are {marked.colorspace}; readers will take them for sRGB."
        )
    return told


def _encoder(name: str) -> Encoder:
    if name == "png":
        return _png
    return cast(Encoder, importlib.import_module(f"luna_farm.imaging.encoders.{name}").encode)


def _run(
    encoder: Encoder, name: str, pixels: Pixels, options: SaveOptions, embedded: Embedded, marked: Marks
) -> Encoded:
    try:
        return encoder(pixels, options, embedded, marked)
    except EncodeError:
        raise
    except Exception as error:
        # Codecs raise what they like (OSError, ValueError, SystemError); to the farm it is one thing.
        size = "x".join(str(side) for side in pixels.shape)
        raise EncodeError(f"{size} pixels (H x W x C) could not be encoded as {name}: {error}") from error


def _png(pixels: Pixels, options: SaveOptions, embedded: Embedded, marked: Marks) -> Encoded:
    from luna_farm.imaging.encoders import png, png_marks

    chunks = png_marks.chunks(embedded, marked)
    return Encoded(png.encode(pixels, level=options.png_compression, chunks=chunks))


def check_pixels(pixels: NDArray[Any]) -> str:
    """Return the dtype, one of DTYPES. Raises InvalidRequest for what `encode` does not take."""
    dtype = pixels.dtype.type.__name__  # `name` is Python code, of some microseconds
    fits = dtype in DTYPES and pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size
    if not fits or not pixels.dtype.isnative:
        given = f"{pixels.dtype} {list(pixels.shape)}"
        allowed = f"{', '.join(DTYPES)} [H, W, C] with C = 1, 3 or 4, at least one pixel"
        raise InvalidRequest.of("pixels", given, allowed)
    if not pixels.flags.c_contiguous:
        raise InvalidRequest.of("pixels", "a strided view", "C-contiguous memory (numpy.ascontiguousarray)")
    return dtype


def check_sides(pixels: NDArray[Any], name: str) -> None:
    """Raise EncodeError for an image that is too large for its format."""
    row = FORMATS[name]
    height, width = pixels.shape[:2]
    if max(height, width) > row.longest_side:
        raise EncodeError(
            f"{row.title} holds at most {row.longest_side} rows and columns, this image is {height} x {width}"
            f"; allowed: a smaller image, or a format that holds more ({_larger(max(height, width))})"
        )


def _larger(side: int) -> str:
    return ", ".join(row.name for row in FORMATS.values() if row.longest_side >= side)


def needed(name: str, package: str) -> EncodeError:
    """Return the error for a format whose library is not installed."""
    row = FORMATS[name]
    return EncodeError(f"{row.title} needs {package} ({row.install}); or choose another format")
