"""What a file says about itself beside its texts: its colours and its origin.

Collected once per image and neutral to the format; each encoder writes the parts that its format has a place
for. This module must never read a file or a key.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from luna_farm.config_provenance import aigc_fields
from luna_farm.core.messages import SaveOptions
from luna_farm.imaging import xmp
from luna_farm.imaging.colour import COLORSPACES, Colour


@dataclass(frozen=True, slots=True)
class Marks:
    """`colour`: of `colorspace`, "srgb" and so on. `icc`: a whole ICC profile that holds instead, b"" for
    none. `xmp`: a whole XMP packet, b"" for none: what is kept of another file, and the mark of this one."""

    colorspace: str = "srgb"
    icc: bytes = b""
    xmp: bytes = b""

    @property
    def colour(self) -> Colour:
        """The code points and chromaticities of `colorspace`."""
        return COLORSPACES[self.colorspace]

    @property
    def hdr(self) -> bool:
        """Whether plain sRGB readers would show wrong colours: the file must say what it holds."""
        return self.colorspace != "srgb" and not self.icc


PLAIN = Marks()


def marks(options: SaveOptions) -> Marks:
    """Collect the marks of an image."""
    if (
        not (options.xmp or options.icc_profile)
        and options.provenance == "off"
        and options.colorspace == "srgb"
    ):
        return PLAIN
    packet = base64.b64decode(options.xmp) if options.embed != "none" else b""
    if options.provenance != "off":
        mark = xmp.packet(options.source_type, options.timestamp, aigc_fields(options.aigc))
        packet = xmp.joined(packet, mark)
    return Marks(options.colorspace, base64.b64decode(options.icc_profile), packet)
