"""An image file that is saved again: its pixels, and all that it says of itself.

`read` returns the frames of a file upright and in the depth that it has, with its colour profile, resolution,
EXIF, XMP and texts, so that another format can hold as much of it as it has places for. This module must
never take what describes the old file (its orientation, its thumbnail) for what describes the image.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luna_farm.core.options import MOST_FPS
from luna_farm.errors import InvalidRequest
from luna_farm.imaging import exif_kept, metadata_exif, source_deep, source_formats
from luna_farm.imaging.colour import COLORSPACES, from_linear
from luna_farm.imaging.metadata import NOTHING
from luna_farm.imaging.source_formats import Pixels, Source
from luna_farm.imaging.unreadable import FIELD, check_kind, unreadable

if TYPE_CHECKING:
    from PIL import Image

IN_MEMORY_BYTES = 256 * 2**20
"""Frames that are more than this lie in a temporary file."""
ALLOWED = "an image or .npy file"
LARGEST_TEXT = 2**20
"""Bytes of EXIF, of XMP and of an ICC profile that are kept."""
_MOVING = ("GIF", "PNG", "WEBP", "AVIF", "FLI")
_PAGED = ("TIFF", "DCX")
# A JPEG with several images holds previews of one; frames of a PSD are its layers.
_HEIF = (b"heic", b"heix", b"mif1", b"msf1")
_CONVERTED = ("CMYK", "LAB", "YCbCr")
"""Modes of Pillow whose pixels become RGB by their profile."""
_SEARCHED = 2**20
"""Bytes of a file in which its marks are looked for."""
_UNSTATED_MS, _LONGEST_MS = 100, 65_535
"""Of a frame: what programs show where a file states 0, and the most that APNG holds."""


def read(path: Path) -> Source:
    """Read an image file, or an array of a .npy file, which is taken as it is.

    Raises InvalidRequest for what cannot be read as an image.
    """
    with warnings.catch_warnings():
        return _read_file(path)


def _read_file(path: Path) -> Source:
    from PIL import Image, UnidentifiedImageError

    try:
        check_kind(path, ALLOWED)
        if path.suffix.lower() == ".npy":
            # Mapped: pixels go from the file to the farm, without a second copy in this process. A pickle
            # would run what its maker wrote.
            return Source([np.lib.format.open_memmap(path, mode="r")])
        data = path.read_bytes()
        warnings.simplefilter("ignore")  # of what Pillow thinks of EXIF, which is read here
        try:
            opened = _opened(data)
        except UnidentifiedImageError:
            found = source_formats.read(data)
            if found is None:
                raise
            return found
        with opened as image:
            return _read(image, data)
    except InvalidRequest as error:
        if error.field == FIELD:
            raise
        raise InvalidRequest.of(FIELD, str(path), error.allowed) from error
    except (
        *(UnidentifiedImageError, Image.DecompressionBombError, ValueError, OSError, EOFError, SyntaxError),
    ) as error:
        raise unreadable(path, error, ALLOWED) from error


def _opened(data: bytes) -> Image.Image:
    """Open a file by Pillow, HEIC by a package that adds it to Pillow."""
    from PIL import Image

    if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(data))


def to_display(source: Source) -> None:
    """Turn linear light with alpha multiplied in, as OpenEXR has it, into sRGB values with plain alpha."""
    for at, page in enumerate(source.pages):
        values = page.astype(np.float32)
        if page.ndim == 3 and page.shape[2] == 4:
            values[..., :3] /= np.where(values[..., 3:] > 0, values[..., 3:], 1)
        colours = values if page.ndim == 2 else values[..., :3]
        colours[:] = from_linear(colours)
        source.pages[at] = values
    source.linear = False


def to_srgb(source: Source) -> None:
    """Convert the pixels to sRGB, for a format without a place for the profile. Only colours of 8 bits can be
    converted; others stay as they are, and the report says what was left out."""
    from PIL import Image, ImageCms

    if not source.icc or any(page.dtype != np.uint8 or page.shape[-1] != 3 for page in source.pages):
        return
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(source.icc))
        change = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
        for page in source.pages:
            for frame in page if page.ndim == 4 else [page]:
                frame[:] = np.asarray(ImageCms.applyTransform(Image.fromarray(frame), change))
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        source.warnings.append(f"Its ICC profile could not be applied ({error}).")
        return
    source.icc = b""


def _read(image: Image.Image, data: bytes) -> Source:
    source = Source([])
    frames = _frames(image)
    deep = source_deep.read(image, data, frames, source)
    if deep is not None:
        alike = len(deep) > 1 and len({page.shape for page in deep}) == 1
        source.pages = [np.stack(deep)] if alike else deep
    else:
        _decode(image, frames, source)
    image.seek(frames[0])
    image.load()  # texts of a PNG may stand behind its pixels
    _describe(image, data, source)
    return source


def _frames(image: Image.Image) -> list[int]:
    """Return the numbers of the frames that are images of their own."""
    count = getattr(image, "n_frames", 1)
    if image.format in _MOVING:
        # The still that an APNG shows where nothing moves need not be one of its frames.
        return list(range(1 if image.info.get("default_image") and count > 1 else 0, count))
    if image.format not in _PAGED:
        return [0]
    found = []
    for number in range(count):
        image.seek(number)
        kind = getattr(image, "tag_v2", {}).get(254, 0)
        if not kind & source_formats.REDUCED:
            found.append(number)
    return found or [0]


def _decode(image: Image.Image, frames: list[int], source: Source) -> None:
    """Decode all frames by Pillow: into one array where they are alike, else one by one."""
    times: list[float] = []
    forms = set()
    for number in frames:
        image.seek(number)
        forms.add((image.size, _mode(image)))
    modes = {mode for _, mode in forms}
    mode = next(iter(modes)) if len(modes) == 1 else "RGBA" if "RGBA" in modes else "RGB"
    same_size = len({size for size, _ in forms}) == 1
    alike = len(frames) > 1 and same_size and (len(modes) == 1 or not modes & {"F", "I;16"})
    together: Pixels | None = None
    for at, number in enumerate(frames):
        image.seek(number)
        pixels = _pixels(image, mode if alike else _mode(image))
        times.append(float(image.info.get("duration") or _UNSTATED_MS))
        if not alike:
            source.pages.append(pixels)
            continue
        if together is None:
            together = _room((len(frames), *pixels.shape), pixels.dtype)
        together[at] = pixels
    if together is not None:
        source.pages = [together if together.ndim == 4 else together[..., None]]
    if image.format in _MOVING and len(frames) > 1:
        source.fps = min(MOST_FPS, 1000 * len(times) / sum(times))
        source.loop = int(image.info.get("loop", 1 if image.format == "GIF" else 0))
        if max(times) - min(times) > 1:
            source.lasts = [min(_LONGEST_MS, max(1, round(one))) for one in times]


def _room(shape: tuple[int, ...], dtype: Any) -> Pixels:
    """Return an array, in a file without a name where it is large."""
    if math.prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="luna-farm-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _mode(image: Image.Image) -> str:
    """Return the mode that keeps what the image shows: L, RGB, RGBA, I;16 or F."""
    if image.mode.startswith("I"):
        return "I;16"
    if image.mode in ("L", "RGB", "RGBA", "F"):
        return "RGBA" if image.mode != "RGBA" and image.has_transparency_data else image.mode
    if image.has_transparency_data:
        return "RGBA"
    return "L" if image.mode == "1" else "RGB"


def _pixels(image: Image.Image, mode: str) -> Pixels:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if mode == "I;16":
        values = _integers(np.asarray(upright))
        white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0
        return 65_535 - values if white_is_zero else values
    if upright.mode == mode:
        return np.array(upright)
    if upright.mode in _CONVERTED and (converted := _by_profile(upright)) is not None:
        upright = converted
    return np.array(upright.convert(mode))


def _integers(values: Pixels) -> Pixels:
    """Return 16-bit integers. Raises InvalidRequest for those beyond, since no file says their full range."""
    if values.size and (values.min() < 0 or values.max() > 65_535):
        allowed = f"integers from 0 to 65535 (these go from {values.min()} to {values.max()})"
        raise InvalidRequest.of("pixels", str(values.dtype), allowed)
    return values.astype(np.uint16)


def _by_profile(image: Image.Image) -> Image.Image | None:
    """Return sRGB of an image of other colours by its profile, None where it has none that works."""
    from PIL import ImageCms

    try:
        given = (
            ImageCms.createProfile("LAB")
            if image.mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(image.info.get("icc_profile") or b""))
        )
        return ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _describe(image: Image.Image, data: bytes, source: Source) -> None:
    """Read what the file says of itself."""
    info = image.info
    block = data if image.format == "TIFF" else bytes(info.get("exif") or b"").removeprefix(b"Exif\0\0")
    old = exif_kept.kept.__wrapped__(block)  # not kept in memory: it may be a whole TIFF
    source.exif = _bounded("EXIF", metadata_exif.standalone(NOTHING, old), source)
    xmp = info.get("xmp") or b""
    source.xmp = _bounded("XMP", xmp.encode() if isinstance(xmp, str) else bytes(xmp), source)
    source.icc = _bounded(
        "ICC profile", _profile(bytes(info.get("icc_profile") or b""), image.mode, source), source
    )
    source.dpi = _resolution(image, source)
    source.colorspace = _colorspace(image.format or "", data, source)
    source.texts = {**exif_kept.texts(block), **dict(_texts(image))}


_CODES = {"PNG": (b"cICP", 1), "AVIF": (b"colrnclx", 2), "HEIF": (b"colrnclx", 2)}
"""Where primaries and transfer stand (H.273), and the bytes of each."""
_PLAIN_CODES = ((1, 13), (1, 1), (1, 6), (2, 2), (1, 2), (2, 13))
"""sRGB, what decoders show alike, and what says that nothing is known."""


def _colorspace(form: str, data: bytes, source: Source) -> str:
    """Return what the file says its values mean."""
    mark, size = _CODES.get(form, (b"", 0))
    at = data.find(mark, 0, _SEARCHED) if mark else -1
    if at < 0 or source.icc:
        return "srgb"
    start = at + len(mark)
    primaries, transfer = (
        int.from_bytes(data[start + n * size : start + (n + 1) * size], "big") for n in (0, 1)
    )
    for name, colour in COLORSPACES.items():
        if (colour.primaries, colour.transfer) == (primaries, transfer):
            return name
    if (primaries, transfer) not in _PLAIN_CODES:
        told = f"Its colours (H.273: primaries {primaries}, transfer {transfer}) were taken for sRGB."
        source.warnings.append(told)
    return "srgb"


def _bounded(what: str, found: bytes, source: Source) -> bytes:
    if len(found) <= LARGEST_TEXT:
        return found
    source.warnings.append(f"Its {what} has {len(found):,} bytes, more than is kept ({LARGEST_TEXT:,}).")
    return b""


def _profile(profile: bytes, mode: str, source: Source) -> bytes:
    """Return the profile if it is one of colours as the pixels have them."""
    gray = source.pages[0].ndim == 2 or source.pages[0].shape[-1] == 1
    space, held = profile[16:20].decode("latin-1").strip(), "GRAY" if gray else "RGB"
    if not profile or space == held:
        return profile
    if mode not in _CONVERTED:  # whose profile was used up
        of = f"one of {space} colours" if space in ("GRAY", "RGB", "CMYK", "Lab") else "none that can be read"
        source.warnings.append(f"Its ICC profile is {of}, its pixels are {held}; it was left out.")
    return b""


def _resolution(image: Image.Image, source: Source) -> float:
    """Return dots per inch. EXIF says 72 where nothing is known, and Pillow says 1 of a TIFF."""
    found = image.info.get("dpi")
    if image.format == "TIFF" and not {282, 283} & {*getattr(image, "tag_v2", ())}:
        found = None
    try:
        across, down = (float(found[0]), float(found[-1])) if found else (0.0, 0.0)
        if not found and image.format in ("WEBP", "AVIF", "PNG"):
            exif = image.getexif()
            across = down = float(exif.get(0x011A, 0)) * (2.54 if exif.get(0x0128) == 3 else 1)
            across = 0.0 if across == 72 else across
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    if not 0 < across < 100_000:
        return 0.0
    if found and abs(across - down) > 0.01 * across:
        told = f"Its {across:g} x {down:g} dots per inch were kept as {across:g}: files hold one number here."
        source.warnings.append(told)
    return across


def _texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    """Return the texts of a PNG, and the comment of a GIF or a JPEG."""
    for key, text in getattr(image, "text", {}).items():
        if key != "XML:com.adobe.xmp" and not key.startswith("Raw profile type"):
            yield key, str(text)
    comment = image.info.get("comment")
    if comment:
        yield "Comment", comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
