"""The metadata of a PNG file: tEXt chunks, and one iTXt where `parameters` needs it.

ComfyUI's frontend 1.27.10 takes the bytes after the keyword of an iTXt chunk for its text, flags and language
included (1.58.1 reads them right), so `prompt`, `workflow` and all other JSON must stay tEXt: pure ASCII,
which every reader decodes alike. Plain texts are Latin-1, as the PNG standard has it for tEXt (third edition,
11.3.3.2). `parameters` with characters beyond that is iTXt in UTF-8, which Pillow, exiftool, sd-parsers and
the ExifReader of Civitai read; in other plain texts they become `\\uXXXX`, and stand unharmed in
`generation_metadata`.
"""

from __future__ import annotations

from luna_farm.imaging.metadata import Embedded

_LONGEST_KEYWORD = 79
_PARAMETERS = "parameters"


def texts(embedded: Embedded) -> list[bytes]:
    """Return the contents of the tEXt chunks in order: keyword, a zero byte, text."""
    pairs = [(item.key, item.text) for item in embedded.graph]
    if embedded.parameters and _fits_latin1(embedded.parameters):
        pairs.append((_PARAMETERS, embedded.parameters))
    pairs += [(item.key, item.text) for item in (*embedded.fields, *embedded.generation)]
    chunks: dict[bytes, bytes] = {}
    for key, text in pairs:
        # The first of two keys that look alike after cleaning wins: prompt and workflow come first.
        chunks.setdefault(keyword(key), latin1(text))
    return [key + b"\0" + text for key, text in chunks.items()]


def international_texts(embedded: Embedded) -> list[bytes]:
    """Return the contents of the iTXt chunks: not compressed, without language and translated keyword."""
    if not embedded.parameters or _fits_latin1(embedded.parameters):
        return []
    return [_PARAMETERS.encode() + bytes(5) + _plain(embedded.parameters).encode("utf-8", "replace")]


def keyword(key: str) -> bytes:
    """Return a valid keyword: 1 to 79 printable ASCII characters, no space at either end, none doubled."""
    if key.isascii() and key.isprintable() and " " not in key and 0 < len(key) <= _LONGEST_KEYWORD:
        return key.encode("ascii")  # nearly all: the same ones come with each image
    cleaned = "".join(char if char.isascii() and char.isprintable() else "_" for char in key)
    return (" ".join(cleaned.split())[:_LONGEST_KEYWORD].strip() or "_").encode("ascii")


def latin1(text: str) -> bytes:
    """Return a text as tEXt holds it: Latin-1, line feeds, no zero byte."""
    return _plain(text).encode("latin-1", "backslashreplace")


def _plain(text: str) -> str:
    return text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")


def _fits_latin1(text: str) -> bool:
    return text.isascii() or all(char <= "\xff" for char in text)
