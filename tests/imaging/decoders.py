"""Decoders of other people, two of each format: for tests, and for the table in the documents.

Each takes a whole file and returns [H, W, C] as stored: uint8, uint16 (10 bits as 0..1023) or floats. One
that is not installed raises ImportError or FileNotFoundError. FFmpeg (PyAV) has decoders of its own for PNG,
TIFF, EXR, WebP and HEIC; `djxl` and `avifdec` are the tools of the formats' own projects.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]


def _shaped(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def pillow(file: bytes) -> Pixels:
    """8 bits of anything, 16 bits of gray, floats of gray TIFF."""
    from PIL import Image

    with Image.open(io.BytesIO(file)) as image:
        return _shaped(np.asarray(image))


def imagecodecs(name: str) -> Callable[[bytes], Pixels]:
    """libpng, libtiff, libavif, libjxl or libwebp by way of imagecodecs."""

    def decode(file: bytes) -> Pixels:
        import imagecodecs

        return _shaped(getattr(imagecodecs, f"{name}_decode")(file))

    return decode


def tifffile(file: bytes) -> Pixels:
    """TIFF in Python, apart from deflate and predictors."""
    import tifffile

    return _shaped(tifffile.imread(io.BytesIO(file)))


_GRAY, _RGB, _RGBA = (
    ("gray", "gray16", "grayf32"),
    ("rgb24", "rgb48", "gbrpf32"),
    ("rgba", "rgba64", "gbrapf32"),
)


def ffmpeg(file: bytes) -> Pixels:
    """FFmpeg, by way of PyAV."""
    import av

    suffix = ".tif" if file[:2] == b"II" else ""
    with tempfile.NamedTemporaryFile(suffix=suffix) as there:
        there.write(file)
        there.flush()
        with av.open(there.name) as container:
            frame = next(container.decode(video=0))
    name = frame.format.name
    if "f16" in name:
        return _half_planes(frame)
    floats = "f32" in name
    deep = not floats and any(c.bits > 8 for c in frame.format.components)
    group = (_GRAY, _RGB, _RGBA)[{1: 0, 2: 2, 3: 1, 4: 2}[len(frame.format.components)]]
    wanted = group[2 if floats else 1 if deep else 0] + ("le" if floats or deep else "")
    pixels = frame.to_ndarray() if name == wanted else frame.to_ndarray(format=wanted)
    return _shaped(pixels)


def _half_planes(frame: Any) -> Pixels:
    """Read half floats plane by plane: green, blue, red, alpha, or gray. PyAV has no array for them."""
    planes = [
        np.frombuffer(plane, "<f2").reshape(plane.height, -1)[:, : plane.width].astype(np.float16)
        for plane in frame.planes
    ]
    order = {1: (0,), 3: (2, 0, 1), 4: (2, 0, 1, 3)}[len(planes)]
    return np.stack([planes[index] for index in order], axis=2)


def openexr(file: bytes) -> Pixels:
    """EXR by its own library."""
    import OpenEXR

    (channel,) = OpenEXR.File(io.BytesIO(file)).channels().values()
    return _shaped(channel.pixels)


def heif(file: bytes) -> Pixels:
    """libheif and libde265; 10 bits come as the upper bits of 16."""
    import pillow_heif

    image = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
    pixels = _shaped(np.asarray(image))
    return pixels >> 6 if pixels.dtype == np.uint16 else pixels


def tool(program: str, suffix: str) -> Callable[[bytes], Pixels]:
    """`djxl` or `avifdec`, to PNG, which libpng reads."""

    def decode(file: bytes) -> Pixels:
        import imagecodecs

        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, f"a{suffix}"), Path(folder, "a.png")
            given.write_bytes(file)
            subprocess.run([program, str(given), str(made)], capture_output=True, check=True)
            return _shaped(imagecodecs.png_decode(made.read_bytes()))

    return decode


def of(name: str, depth: str, channels: int) -> dict[str, Callable[[bytes], Pixels]]:
    """Return the decoders that read this kind of file whole: FFmpeg knows no float TIFF and no alpha in AVIF
    and HEIC."""
    found = dict(DECODERS[name])
    if (name == "tiff" and depth in ("half", "float")) or (name in ("avif", "heic") and channels == 4):
        found.pop("FFmpeg", None)
    return found


def comparable(decoded: Pixels, height: int, width: int, channels: int) -> Pixels:
    """Return what decoders add cut off: gray as three channels, opaque alpha, padding of the codec."""
    kept = decoded[:height, :width]
    if channels < kept.shape[2] and (channels == 3 or (kept[..., :1] == kept[..., 1:3]).all()):
        kept = kept[:, :, :channels]
    return kept


DECODERS: dict[str, dict[str, Callable[[bytes], Pixels]]] = {
    "png": {"libpng": imagecodecs("png"), "FFmpeg": ffmpeg},
    "webp": {"libwebp": imagecodecs("webp"), "FFmpeg": ffmpeg},
    "jpeg": {"libjpeg-turbo": pillow, "FFmpeg": ffmpeg},
    "avif": {"libavif (dav1d)": imagecodecs("avif"), "avifdec": tool("avifdec", ".avif"), "FFmpeg": ffmpeg},
    "jxl": {"libjxl": imagecodecs("jpegxl"), "djxl": tool("djxl", ".jxl")},
    "tiff": {"libtiff": imagecodecs("tiff"), "tifffile": tifffile, "FFmpeg": ffmpeg},
    "exr": {"OpenEXR": openexr, "FFmpeg": ffmpeg},
    "heic": {"libheif": heif, "FFmpeg": ffmpeg},
}
