"""The metadata of a PNG file: tEXt chunks, and iTXt for plain texts that need it.

ComfyUI's frontend 1.27.10 takes the bytes after the keyword of an iTXt chunk for its text, flags and language
included (1.58.1 reads them right), so `prompt`, `workflow` and all other JSON must stay tEXt: pure ASCII,
which every reader decodes alike. Plain texts are Latin-1, as the PNG standard has it for tEXt (third edition,
11.3.3.2). Those with characters beyond that, such as prompts in `parameters`, are iTXt in UTF-8, which
Pillow, exiftool, sd-parsers and the ExifReader of Civitai read.
"""

from __future__ import annotations

from luna_farm.imaging.metadata import Embedded

_LONGEST_KEYWORD = 79


def texts(embedded: Embedded) -> list[bytes]:
    """Return the contents of the tEXt chunks in order: keyword, a zero byte, text."""
    return [
        key + b"\0" + text.encode("latin-1") for key, text in _pairs(embedded).items() if _fits_latin1(text)
    ]


def international_texts(embedded: Embedded) -> list[bytes]:
    """Return the contents of the iTXt chunks: not compressed, without language and translated keyword."""
    return [
        key + bytes(5) + text.encode("utf-8", "replace")
        for key, text in _pairs(embedded).items()
        if not _fits_latin1(text)
    ]


def _pairs(embedded: Embedded) -> dict[bytes, str]:
    pairs = [(item.key, item.text) for item in embedded.graph]
    if embedded.parameters:
        pairs.append(("parameters", embedded.parameters))
    pairs += [(item.key, item.text) for item in (*embedded.fields, *embedded.generation)]
    found: dict[bytes, str] = {}
    for key, text in pairs:
        # The first of two keys that look alike after cleaning wins: prompt and workflow come first.
        found.setdefault(keyword(key), _plain(text))
    return found


def keyword(key: str) -> bytes:
    """Return a valid keyword: 1 to 79 printable ASCII characters, no space at either end, none doubled."""
    if key.isascii() and key.isprintable() and " " not in key and 0 < len(key) <= _LONGEST_KEYWORD:
        return key.encode("ascii")  # nearly all: the same ones come with each image
    cleaned = "".join(char if char.isascii() and char.isprintable() else "_" for char in key)
    return (" ".join(cleaned.split())[:_LONGEST_KEYWORD].strip() or "_").encode("ascii")


def _plain(text: str) -> str:
    return text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")


def _fits_latin1(text: str) -> bool:
    return text.isascii() or all(char <= "\xff" for char in text)
