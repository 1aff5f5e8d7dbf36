"""The metadata of a PNG file: tEXt chunks, and iTXt for plain texts that need it.

ComfyUI's frontend 1.27.10 takes the bytes after the keyword of an iTXt chunk for its text, flags and language
included (1.58.1 reads them right), so `prompt`, `workflow` and all other JSON must stay tEXt: pure ASCII,
which every reader decodes alike. Plain texts are Latin-1, as the PNG standard has it for tEXt (third edition,
11.3.3.2). Those with characters beyond that, such as prompts in `parameters`, are iTXt in UTF-8, which
Pillow, exiftool, sd-parsers and the ExifReader of Civitai read.
"""

from __future__ import annotations

from functools import lru_cache

from luna_farm.imaging.documents import Item
from luna_farm.imaging.encoders.png import chunk
from luna_farm.imaging.metadata import Embedded

_LONGEST_KEYWORD = 79


def chunks(embedded: Embedded) -> list[bytes]:
    """Return the complete tEXt chunks in order (keyword, a zero byte, text), then the iTXt chunks (not
    compressed, without language and translated keyword)."""
    found = dict(_of_graph(embedded.graph))
    if embedded.parameters:
        _add(found, "parameters", embedded.parameters)
    for item in (*embedded.fields, *embedded.generation):
        _add(found, item.key, item.text)
    return sorted(found.values(), key=lambda made: made[4:8] != b"tEXt")


@lru_cache(maxsize=2)
def _of_graph(graph: tuple[Item, ...]) -> dict[bytes, bytes]:
    """Encode the documents of a job, most of the bytes, once for all of its images."""
    found: dict[bytes, bytes] = {}
    for item in graph:
        _add(found, item.key, item.text)
    return found


def _add(found: dict[bytes, bytes], key: str, text: str) -> None:
    """Add a text. Of two keys that look alike after cleaning the first keeps its name: prompt and workflow
    come first."""
    name, number = keyword(key), 1
    while name in found:
        number += 1
        end = b"_%d" % number
        name = keyword(key)[: _LONGEST_KEYWORD - len(end)] + end
    text = _plain(text)
    if _fits_latin1(text):
        found[name] = chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    else:
        found[name] = chunk(b"iTXt", name + bytes(5) + text.encode("utf-8", "replace"))


def keyword(key: str) -> bytes:
    """Return a valid keyword (PNG, third edition, 11.3.3.1): 1 to 79 bytes of printable Latin-1, no space at
    either end, none doubled. What is beyond that is written as in JSON and Python: \\u732b."""
    if key.isascii() and key.isprintable() and " " not in key and 0 < len(key) <= _LONGEST_KEYWORD:
        return key.encode("ascii")  # nearly all: the same ones come with each image
    cleaned = "".join(char if char.isprintable() or char == " " else "_" for char in key)
    cleaned = cleaned.encode("latin-1", "backslashreplace").decode("latin-1")
    return (" ".join(cleaned.split())[:_LONGEST_KEYWORD].strip() or "_").encode("latin-1")


def _plain(text: str) -> str:
    return text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")


def _fits_latin1(text: str) -> bool:
    return text.isascii() or all(char <= "\xff" for char in text)
