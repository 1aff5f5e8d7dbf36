"""The metadata of a PNG file: tEXt chunks, and only those.

ComfyUI's frontend (1.27.10, read and tried) takes the bytes after the keyword of an iTXt chunk for its text,
flags and language included, so iTXt must never be written. JSON is pure ASCII, which every reader decodes
alike. Plain texts are Latin-1, as the PNG standard has it for tEXt (third edition, 11.3.3.2); a character
outside it becomes `\\uXXXX`, and stands unharmed in `generation_metadata`.
"""

from __future__ import annotations

from luna_farm.imaging.metadata import Embedded

_LONGEST_KEYWORD = 79


def texts(embedded: Embedded) -> list[bytes]:
    """Return the contents of the tEXt chunks in order: keyword, a zero byte, text."""
    pairs = [(item.key, item.text) for item in embedded.graph]
    if embedded.parameters:
        pairs.append(("parameters", embedded.parameters))
    pairs += [(item.key, item.text) for item in (*embedded.fields, *embedded.generation)]
    chunks: dict[bytes, bytes] = {}
    for key, text in pairs:
        # The first of two keys that look alike after cleaning wins: prompt and workflow come first.
        chunks.setdefault(keyword(key), latin1(text))
    return [key + b"\0" + text for key, text in chunks.items()]


def keyword(key: str) -> bytes:
    """Return a valid keyword: 1 to 79 printable ASCII characters, no space at either end, none doubled."""
    if key.isascii() and key.isprintable() and " " not in key and 0 < len(key) <= _LONGEST_KEYWORD:
        return key.encode("ascii")  # nearly all: the same ones come with each image
    cleaned = "".join(char if char.isascii() and char.isprintable() else "_" for char in key)
    return (" ".join(cleaned.split())[:_LONGEST_KEYWORD].strip() or "_").encode("ascii")


def latin1(text: str) -> bytes:
    """Return a text as tEXt holds it: Latin-1, line feeds, no zero byte."""
    text = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("latin-1", "backslashreplace")
