"""The XMP packet that says how an image was made, for people and machines that look for such marks.

It holds IPTC's DigitalSourceType, the creator tool, the time, and, where they are set, the fields of China's
labelling standard. This module must never write a prompt or a name: what it writes is meant to be published.

Facts: IPTC Photo Metadata Standard 2023.2 (DigitalSourceType and its NewsCodes); Adobe XMP part 1, 7 (packet,
RDF); GB 45438-2025 annex E (fields) in the namespace of TC260's practice guide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime

from luna_farm import __version__
from luna_farm.config_provenance import AIGC_FIELDS, SOURCE_TYPES

NEWSCODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
CREATOR_TOOL = f"Luna Farm {__version__}"
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
<xmp:CreatorTool>{tool}</xmp:CreatorTool>{more}
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def packet(source_type: str, timestamp: str = "", aigc: Mapping[str, str] | None = None) -> bytes:
    """Return a whole packet in UTF-8.

    source_type: of SOURCE_TYPES. timestamp: ISO 8601, "" for none. aigc: some of AIGC_FIELDS with their
    texts; `Label` is "1" where it is not given.
    """
    from html import escape  # only here: its table of entities is 0.3 MB

    more = (
        f"\n<xmp:CreateDate>{escape(_moment(timestamp), quote=False)}</xmp:CreateDate>" if timestamp else ""
    )
    if aigc:
        fields = {"Label": "1"} | dict.fromkeys(AIGC_FIELDS[1:], "") | dict(aigc)
        text = escape(json.dumps(fields, ensure_ascii=False, separators=(",", ":")), quote=False)
        more += f'\n<TC260:AIGC xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/">{text}</TC260:AIGC>'
    source = NEWSCODES + SOURCE_TYPES[source_type]
    return _PACKET.format(source=source, tool=escape(CREATOR_TOOL), more=more).encode()


def joined(kept: bytes, mark: bytes) -> bytes:
    """Return a packet of another file with the description of `mark` as its last one, and without what that
    one says anew; `mark` alone where there is no such packet. Readers take several descriptions as one."""
    end = kept.rfind(b"</rdf:RDF>")
    if end < 0:
        return mark
    for name in (b"Iptc4xmpExt:DigitalSourceType", b"xmp:CreatorTool", b"xmp:CreateDate", b"TC260:AIGC"):
        if b"<" + name not in mark:
            continue
        kept = re.sub(
            rb"<%b\b[^>]*>.*?</%b>\s*|\s%b\s*=\s*(\"[^\"]*\"|'[^']*')" % (name, name, name),
            b"",
            kept,
            flags=re.DOTALL,
        )
    end = kept.rfind(b"</rdf:RDF>")
    begin = mark.index(b"<rdf:Description")
    return kept[:end] + mark[begin : mark.index(b"</rdf:RDF>")] + kept[end:]


def _moment(timestamp: str) -> str:
    """Return a time to the second, as XMP readers take it, with its zone."""
    try:
        return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).isoformat(timespec="seconds")
    except ValueError:
        return timestamp
