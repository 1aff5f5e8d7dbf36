"""The image formats: one row each, with everything that limits what a file of that format can hold.

Validation, the encoders, the node widgets, error messages and docs/formats.md read these rows. This module
must never import an image library: `imaging/encoders/` does the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

DEPTHS = ("8", "10", "16", "half", "float")
"""Bits of a channel that a file can store: integers of 8, 10 and 16 bits, floats of 16 and 32 bits."""
BIT_DEPTHS = ("auto", "8", "16", "half", "float")
"""What a request may ask for (`bit_depth`)."""
FULL_COLOUR_FROM = 90
"""The lossy quality from which JPEG, AVIF and HEIC store colour in full (4:4:4), below it at half the
resolution (4:2:0)."""
DTYPES = {"uint8": 1, "uint16": 2, "float16": 2, "float32": 4}
"""Pixels on the wire and in a slot: dtype -> bytes of one channel."""


@dataclass(frozen=True, slots=True)
class Format:
    """One image format.

    `depths`: of DEPTHS, smallest first. `longest_side`: pixels in a row or column. `lossless`: "always",
    "never", or the setting that makes it so. `gray`, `alpha`: whether the file keeps one channel, and a
    fourth. `metadata`: where texts are written, with the most bytes that fit (0: no bound of its own).
    `icc`: an ICC profile has a place. `animation`: a batch can become one file. `library`: what encodes,
    and why it was chosen; `install`: what to install where that may be missing, "" if it never is; `module`:
    without it no file of the format can be written.
    """

    name: str
    title: str
    extension: str
    depths: tuple[str, ...]
    longest_side: int
    lossless: str
    gray: bool
    alpha: bool
    metadata: str
    metadata_bytes: int
    icc: bool
    animation: bool
    library: str
    install: str
    module: str = ""


_BIG = 2**31 - 1
TABLE = (
    Format(
        *("png", "PNG", "png", ("8", "16"), _BIG, "always", True, True),
        *("text chunks", 0, True, True, "the kernel of this project", ""),
    ),
    Format(
        *("webp", "WebP", "webp", ("8",), 16_383, "lossless_webp", False, True),
        *("EXIF, XMP", 0, True, True, "Pillow (libwebp): in every wheel", ""),
    ),
    Format(
        *("jpeg", "JPEG", "jpg", ("8",), 65_500, "never", True, False),
        *("EXIF, XMP", 65_533, True, False, "simplejpeg (libjpeg-turbo): needs no copy; else Pillow", ""),
    ),
    Format(
        *("avif", "AVIF", "avif", ("8", "10"), 65_536, "lossless_webp, or quality 100", True, True),
        *("EXIF, XMP", 0, True, True, "imagecodecs (libavif); else Pillow, of 8 bits with loss only"),
        'pip install "luna-farm[formats]"',
    ),
    Format(
        *("jxl", "JPEG XL", "jxl", ("8", "16"), 2**30 - 1, "lossless_webp, or quality 100", True, True),
        *("EXIF, XMP", 0, False, False, "imagecodecs (libjxl): permissive licence, wheels everywhere"),
        *('pip install "luna-farm[formats]"', "imagecodecs"),
    ),
    Format(
        *("tiff", "TIFF", "tif", ("8", "16", "half", "float"), _BIG, "always", True, True),
        *("ImageDescription, XMP", 0, True, False, "this project (deflate by zlib-ng)", ""),
    ),
    Format(
        *("exr", "OpenEXR", "exr", ("half", "float"), _BIG, "with zip", True, True),
        *("attributes", 0, False, False, "OpenEXR's own package: writes to memory, 1.8 MB"),
        *('pip install "luna-farm[exr]" (Python 3.11 or later)', "OpenEXR"),
    ),
    Format(
        *("heic", "HEIC", "heic", ("8", "10"), 16_384, "never", True, True),
        *("EXIF, XMP", 0, True, False, "pillow-heif (libheif, x265): the kept one; its wheels are GPL 2"),
        *('pip install "luna-farm[heic]"', "pillow_heif"),
    ),
)
FORMATS = {row.name: row for row in TABLE}
ANIMATED = tuple(row.name for row in TABLE if row.animation)

_WANTED = {"uint8": "8", "uint16": "16", "float16": "half", "float32": "float"}
_NEAREST = {
    "8": ("8", "half"),
    "16": ("16", "10", "float", "8"),
    "half": ("half", "float", "16", "10", "8"),
    "float": ("float", "half", "16", "10", "8"),
}
_IN_WORDS = {"half": "16-bit floats", "float": "32-bit floats"}
_WIRE = {"8": "uint8", "10": "uint16", "16": "uint16", "half": "float16", "float": "float32"}


@cache
def stored_depth(dtype: str, bit_depth: str, format: str) -> str:  # noqa: A002 - the word of the protocol
    """Return the depth (of DEPTHS) in which `format` stores pixels of `dtype`.

    dtype: of DTYPES. bit_depth: of BIT_DEPTHS. "auto" keeps integers as they are and stores floats in
    8 bits, as ComfyUI does, unless the format holds floats only. What the format does not have becomes the
    nearest that it has.
    """
    row = FORMATS[format]
    wanted = bit_depth
    if bit_depth == "auto":
        wanted = _WANTED[dtype]
        if wanted in ("half", "float") and "8" in row.depths:
            wanted = "8"
    return next(depth for depth in _NEAREST[wanted] if depth in row.depths)


def wire_dtype(dtype: str, bit_depth: str, formats: tuple[str, ...]) -> str:
    """Return the dtype in which pixels of `dtype` travel, so that each of `formats` gets what it stores.

    Integers travel as they are. Floats become what the deepest of the files needs: uint8 for an 8-bit file.
    """
    if dtype in ("uint8", "uint16"):
        return dtype
    needed = [stored_depth(dtype, bit_depth, name) for name in formats]
    return _WIRE[max(needed, key=DEPTHS.index)]


def depth_warning(dtype: str, bit_depth: str, format: str) -> str:  # noqa: A002 - as above
    """Return the sentence for pixels that lose depth although it was not asked for, "" if they do not.

    dtype: of the pixels as they were given.
    """
    stored = stored_depth(dtype, bit_depth, format)
    if bit_depth == "8" or (bit_depth == "auto" and dtype in ("uint8", "float16", "float32")):
        return ""
    wanted = _WANTED[dtype] if bit_depth == "auto" else bit_depth
    if DEPTHS.index(stored) >= DEPTHS.index(wanted):
        return ""
    row = FORMATS[format]
    held = _IN_WORDS.get(stored, f"{stored} bits a channel")
    asked = _IN_WORDS.get(wanted, f"{wanted}-bit values")
    return f"{row.title} holds at most {held} here; the {asked} were scaled down to that."
