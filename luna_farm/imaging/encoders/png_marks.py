"""The PNG chunks before the image: what the colours mean, how it was made, and the texts.

An ICC profile, a code point or sRGB: never two of them, since a reader may know only one.

Format: W3C PNG (third edition), 11.3.2 (colour), 11.3.3.4 (iTXt), 11.3.4.3 (pHYs), 11.3.4.5 (eXIf). XMP:
Adobe XMP part 3, 1.1.5.
"""

from __future__ import annotations

import struct
import zlib

from luna_farm.imaging import metadata_exif, metadata_png
from luna_farm.imaging.encoders.png import chunk
from luna_farm.imaging.exif_kept import kept
from luna_farm.imaging.marks import Marks
from luna_farm.imaging.metadata import Embedded

_XMP_KEYWORD = b"XML:com.adobe.xmp"
_PERCEPTUAL = b"\0"
_INCH = 0.0254
"""In metres, in which PNG counts dots."""


def chunks(embedded: Embedded, marked: Marks) -> list[bytes]:
    """Return complete chunks to stand between IHDR and IDAT, colours first."""
    made = []
    if marked.icc:
        made.append(chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(marked.icc)))
    elif marked.hdr:
        made.append(chunk(b"cICP", bytes([marked.colour.primaries, marked.colour.transfer, 0, 1])))
    else:
        made.append(chunk(b"sRGB", _PERCEPTUAL))
    if marked.xmp:
        # Not compressed, no language, no translated keyword.
        made.append(chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + marked.xmp))
    if embedded.dpi:
        dots = round(embedded.dpi / _INCH)
        made.append(chunk(b"pHYs", struct.pack(">IIB", dots, dots, 1)))
    exif = metadata_exif.standalone(embedded, kept(embedded.exif))
    if exif:
        made.append(chunk(b"eXIf", exif))
    return [*made, *metadata_png.chunks(embedded)]
