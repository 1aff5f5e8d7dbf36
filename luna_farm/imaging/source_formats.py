"""Files that Pillow does not read: OpenEXR, JPEG XL and float TIFF, by the libraries that write them here.

Each library is optional. This module must never raise for a file that is none of these.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.imaging import exif_kept, metadata_exif
from luna_farm.imaging.colour import LINEAR_IDS
from luna_farm.imaging.metadata import NOTHING

Pixels = NDArray[Any]


@dataclass(slots=True)
class Source:
    """What is in a file.

    `pages`: arrays [H, W] or [H, W, C] of uint8, uint16 or float32, or, where all frames are alike, one array
    [N, H, W, C]. `icc`, `exif` and `xmp`: b"" for none. `dpi`: 0 for not known. `fps` and `loop` (0: for
    ever) of a moving image, 0 frames a second for one that does not move. `warnings`: what was lost already.
    """

    pages: list[Pixels]
    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    dpi: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)
    fps: float = 0.0
    loop: int = 0
    lasts: list[int] = field(default_factory=list)
    """Milliseconds of each frame, where they differ."""
    colorspace: str = "srgb"
    """What the values mean, of COLORSPACES."""
    linear: bool = False
    """The values are linear light with alpha multiplied in, as OpenEXR has it."""
    warnings: list[str] = field(default_factory=list)


def read(data: bytes) -> Source | None:
    """Read a file, None for one of another format or whose library is not installed. Raises ValueError for
    one that is broken."""
    for begins, reader in _READERS:
        if data.startswith(begins):
            try:
                source = reader(data)
            except ImportError:
                return None
            except Exception as error:  # codecs raise what they like
                raise ValueError(str(error)) from error
            page = source.pages[0]
            if page.dtype.name not in ("uint8", "uint16", "float16", "float32") or page.ndim not in (2, 3, 4):
                raise ValueError(f"pixels of {page.dtype} {list(page.shape)}")
            return source
    return None


def _tiff(data: bytes) -> Source:
    import imagecodecs

    directories = _directories(data)
    pages: list[Pixels] = []
    number = 0
    while True:
        tags = directories[number] if number < len(directories) else {}
        try:
            page = np.array(imagecodecs.tiff_decode(data, index=number))
        except (IndexError, imagecodecs.TiffError):
            if not pages:
                raise
            break
        number += 1
        if not tags.get(_SUBFILE, 0) & REDUCED:
            pages.append(_in_order(page, tags))
    alike = len(pages) > 1 and len({(page.shape, page.dtype) for page in pages}) == 1
    tags = directories[0] if directories else {}
    return Source(
        [np.stack(pages)] if alike and pages[0].ndim == 3 else pages,
        icc=bytes(tags.get(_ICC) or b""),
        exif=metadata_exif.standalone(NOTHING, exif_kept.kept.__wrapped__(data)),
        xmp=bytes(tags.get(_XMP) or b""),
        dpi=_resolution(tags),
        texts=exif_kept.texts(data),
    )


def _in_order(page: Pixels, tags: dict[int, Any]) -> Pixels:
    """Return a page with its channels last, gray with alpha as RGBA, alpha not multiplied in, upright, and
    doubles as floats, the most that files hold here."""
    if page.ndim == 3 and page.shape[2] not in (1, 2, 3, 4) and page.shape[0] in (2, 3, 4):
        page = np.moveaxis(page, 0, 2)
    if page.dtype == np.float64:
        page = page.astype(np.float32)
    if page.ndim == 3 and page.shape[2] == 2:
        page = page[:, :, (0, 0, 0, 1)]
    if page.ndim == 3 and page.shape[2] == 4 and ASSOCIATED in tags.get(EXTRA_SAMPLES, ()):
        page = with_plain_alpha(page)
    return upright(page, int(tags.get(ORIENTATION, 1)))


def with_plain_alpha(pixels: Pixels) -> Pixels:
    """Return RGBA whose colours have alpha multiplied in with colours that have not."""
    full = np.float32(np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1)
    alpha = pixels[..., 3:].astype(np.float32)
    plain = pixels[..., :3].astype(np.float32) * full / np.where(alpha > 0, alpha, full)
    if pixels.dtype.kind == "u":
        plain = np.floor(plain + np.float32(0.5)).clip(0, full)
    return np.concatenate([plain.astype(pixels.dtype), pixels[..., 3:]], axis=2)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels as EXIF or TIFF says that an image stands."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


_ICC, _XMP, _SUBFILE = 34675, 700, 254
ORIENTATION, EXTRA_SAMPLES = 274, 338
ASSOCIATED = 1
"""Of ExtraSamples: alpha that is multiplied into the colours."""
REDUCED = 1
"""Bit of NewSubfileType: a smaller copy of another page."""


def _directories(block: bytes) -> list[dict[int, Any]]:
    """Return the tags of each directory of a TIFF or an EXIF block that can be read."""
    from PIL import TiffImagePlugin

    found: list[dict[int, Any]] = []
    begun: set[int] = set()
    try:
        file = io.BytesIO(block)
        directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if b"+" in block[2:4] else 8))
        while directory.next and directory.next not in begun:  # a broken file may go in a circle
            begun.add(directory.next)
            file.seek(directory.next)
            directory.load(file)
            found.append(dict(directory))
    except Exception:  # whatever a foreign file holds, its pixels are worth more
        return found
    return found


def _tags(block: bytes) -> dict[int, Any]:
    return next(iter(_directories(block)), {})


def _resolution(tags: dict[int, Any]) -> float:
    """Return dots per inch, 0 for not known: 72 is what EXIF demands where nothing is."""
    try:
        dots = float(tags.get(282, 0)) * (2.54 if tags.get(296) == 3 else 1)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return dots if 0 < dots < 100_000 and dots != 72 else 0.0


def _jxl(data: bytes) -> Source:
    import imagecodecs

    source = Source([np.array(imagecodecs.jpegxl_decode(data))])
    at = 0
    while data[:1] == b"\0" and at + 8 <= len(data):  # a container: boxes
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content = data[at + 8 : at + size] if size else data[at + 8 :]
        if kind == b"Exif":
            source.exif = content[4 + int.from_bytes(content[:4], "big") :]
            source.texts = exif_kept.texts(source.exif)
            source.dpi = _resolution(_tags(source.exif))
        elif kind == b"xml ":
            source.xmp = content
        if size < 8:
            break
        at += size
    return source


def _exr(data: bytes) -> Source:
    import OpenEXR

    with OpenEXR.File(io.BytesIO(data)) as file:
        channels, header = file.channels(), file.header()
        first = next((name for name in ("RGBA", "RGB", "Y") if name in channels), next(iter(channels)))
        pixels = np.array(channels[first].pixels)
        left = [name for name in channels if name != first]
        if first == "Y" and "A" in left:
            left.remove("A")
            pixels = np.dstack([pixels] * 3 + [np.array(channels["A"].pixels, pixels.dtype)])
    texts = {name: value for name, value in header.items() if isinstance(value, str)}
    space = texts.pop("colorInteropID", "")
    dots, linear = float(header.get("xDensity", 0.0)), not space or space in LINEAR_IDS.values()
    told = [f"Of its channels {first} are kept; left out: {', '.join(left)}."] if left else []
    return Source([pixels], texts=texts, dpi=dots, linear=linear, warnings=told)


_READERS: tuple[tuple[tuple[bytes, ...], Callable[[bytes], Source]], ...] = (
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    ((b"\xff\x0a", b"\0\0\0\x0cJXL "), _jxl),
    ((b"\x76\x2f\x31\x01",), _exr),
)
"""How files begin, and what reads them."""
