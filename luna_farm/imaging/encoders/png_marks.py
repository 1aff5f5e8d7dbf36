"""The PNG chunks before the image: what the colours mean, how it was made, and the texts.

Format: W3C PNG (third edition), 11.3.2 (colour) and 11.3.3.4 (iTXt). An ICC profile, a code point or sRGB:
never two of them, since a reader may know only one. XMP: Adobe XMP part 3, 1.1.5.
"""

from __future__ import annotations

import zlib

from luna_farm.imaging import metadata_png
from luna_farm.imaging.encoders.png import chunk
from luna_farm.imaging.marks import Marks
from luna_farm.imaging.metadata import Embedded

_XMP_KEYWORD = b"XML:com.adobe.xmp"
_PERCEPTUAL = b"\0"


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
    made += [chunk(b"tEXt", data) for data in metadata_png.texts(embedded)]
    made += [chunk(b"iTXt", data) for data in metadata_png.international_texts(embedded)]
    return made
