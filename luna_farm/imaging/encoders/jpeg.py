"""JPEG: the faster of two encoders wherever it makes as good a file.

simplejpeg (libjpeg-turbo, MIT) reads the pixels where they lie; Pillow, which copies them first, stands in
where it is not installed, and from quality 90 to 95: there simplejpeg's quicker transform costs 0.2 to 0.6 dB
and up to 2 % (below 90 at most 0.1 dB; from 96 on it takes the exact one, and the files are the same). This
module must never write more than 65,533 bytes of EXIF, the most that a JPEG segment holds: then the metadata
goes beside the file.

Colour: 4:4:4 from quality 90 on, 4:2:0 below. Pillow stores 4:2:0 at every quality; from 90 on a 4:4:4 file
is closer to the image than a 4:2:0 file of the same size (docs/formats.md). JPEG holds no transparency: what
is transparent is laid on `background`, and the report says so.

Segments: EXIF (CIPA DC-008 4.7.2), XMP (Adobe XMP part 3, 1.1.3), ICC (ICC.1 B.4, in parts of at most
65,519 bytes).
"""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray

from luna_farm.core.formats import FULL_COLOUR_FROM
from luna_farm.core.messages import SaveOptions
from luna_farm.errors import EncodeError
from luna_farm.imaging import metadata_exif
from luna_farm.imaging.colour import background, composed
from luna_farm.imaging.encoders import Encoded, colour_warning
from luna_farm.imaging.marks import Marks
from luna_farm.imaging.metadata import Embedded

LONGEST_EXIF = 65_533
"""Bytes in one segment without its two bytes of length (ITU-T T.81, B.1.1.4), the six of "Exif" included."""
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"
_LONGEST_ICC_PART = 65_519
_QUICK_TRANSFORM_COSTS = range(90, 96)


def encode(pixels: NDArray[np.uint8], options: SaveOptions, embedded: Embedded, marked: Marks) -> Encoded:
    """Encode [H, W, C] uint8 as JPEG of quality `options.lossy_quality`."""
    encoded = Encoded([], warnings=colour_warning("JPEG", marked, icc=True, cicp=False))
    if pixels.shape[2] == 4 and int(pixels[:, :, 3].min()) < 255:
        pixels = composed(pixels, background(options.background))
        encoded.warnings.append(f"JPEG holds no transparency; the image was laid on {options.background}")
    xmp = _xmp(marked.xmp, encoded)
    segments = _exif(embedded, encoded, options.sidecar) + xmp + _icc(marked.icc)
    stream = _stream(pixels, options.lossy_quality)
    if embedded.dpi and stream[6:11] == b"JFIF\0":
        dots = struct.pack(">BHH", 1, *[min(65_535, max(1, round(embedded.dpi)))] * 2)  # 1: per inch
        stream = stream[:13] + dots + stream[18:]
    # The EXIF segment stands behind JFIF's, where Pillow puts it too; both encoders begin with SOI and APP0.
    cut = 4 + int.from_bytes(stream[4:6], "big") if stream[2:4] == b"\xff\xe0" else 2
    encoded.buffers = [stream[:cut] + segments, memoryview(stream)[cut:]] if segments else [stream]
    return encoded


def _xmp(packet: bytes, encoded: Encoded) -> bytes:
    if len(packet) + len(_XMP) > LONGEST_EXIF:
        encoded.warnings.append(
            f"the XMP has {len(packet):,} bytes, a JPEG holds {LONGEST_EXIF - len(_XMP):,}; it was left out"
        )
        return b""
    return _segment(0xE1, _XMP + packet) if packet else b""


def _icc(profile: bytes) -> bytes:
    parts = [profile[at : at + _LONGEST_ICC_PART] for at in range(0, len(profile), _LONGEST_ICC_PART)]
    if len(parts) > 255:
        raise EncodeError(
            f"a JPEG holds an ICC profile of at most 16 MB, this one has {len(profile):,} bytes"
        )
    return b"".join(_segment(0xE2, _ICC + bytes([n, len(parts)]) + part) for n, part in enumerate(parts, 1))


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(data)) + data


def _exif(embedded: Embedded, encoded: Encoded, sidecar: str) -> bytes:
    """Return the APP1 segment; where not everything fits, what does, and the whole as a sidecar."""
    block = metadata_exif.block(embedded)
    if len(block) + len(_EXIF) > LONGEST_EXIF:
        kept = metadata_exif.fitting(embedded, LONGEST_EXIF - len(_EXIF))
        names = {item.key for item in (*kept.graph, *kept.fields)} | (
            {"parameters"} if kept.parameters else set()
        )
        encoded.sidecar = metadata_exif.sidecar(embedded)
        where = "it was left out" if sidecar == "never" else "all of it is in a .json file beside the image"
        encoded.warnings.append(
            f"the metadata needs {len(block) + len(_EXIF):,} bytes of EXIF, a JPEG holds {LONGEST_EXIF:,}: "
            f"in the image {'are ' + ', '.join(names) if names else 'is none'}; {where}"
        )
        block = metadata_exif.block(kept)
    return _segment(0xE1, _EXIF + block) if block else b""


def _stream(pixels: NDArray[np.uint8], quality: int) -> bytes:
    channels = pixels.shape[2]
    full_colour = quality >= FULL_COLOUR_FROM
    if quality in _QUICK_TRANSFORM_COSTS:
        return _by_pillow(pixels, quality, full_colour)
    try:
        import simplejpeg
    except ImportError:
        return _by_pillow(pixels, quality, full_colour)
    return bytes(
        simplejpeg.encode_jpeg(
            pixels,
            quality=quality,
            colorspace={1: "GRAY", 3: "RGB", 4: "RGBA"}[channels],
            colorsubsampling="Gray" if channels == 1 else "444" if full_colour else "420",
        )
    )


def _by_pillow(pixels: NDArray[np.uint8], quality: int, full_colour: bool) -> bytes:
    from PIL import Image

    colours = np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, :3])
    out = io.BytesIO()
    Image.fromarray(colours).save(out, "JPEG", quality=quality, subsampling=0 if full_colour else 2)
    return out.getvalue()
