"""From an image file to its row: reads what this farm, ComfyUI, A1111's web UI and Image Saver write into
files.

Only the parts of a file that hold texts are read, and no pixels. It must never raise for what a file holds:
a file that cannot be read as an image is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path, PurePath
from typing import BinaryIO

from luna_farm.catalogue import exif, facts
from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.core.messages import DISCARDED, FORMAT_NAMES
from luna_farm.core.options import ARCHIVES
from luna_farm.locations import is_url
from luna_farm.storage.saved_files import real_folder

_HEAD_BYTES = 32 * 1024
"""Read at once: as a rule all texts of a PNG file stand in it."""
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_TEXT_BYTES = 16 * 2**20
_LARGEST_SIDECAR = 32 * 2**20
ENDINGS = {f".{name}": kind for name, kind in FORMAT_NAMES.items()} | {".tif": "tiff", ".jpg": "jpeg"}
"""Ending of a file in lower case -> format."""


def row_of(path: str, *, sidecar: bool | None = None) -> CatalogueRow | None:
    """Return the row of an image file; None if there is no file, or it is no image of `ENDINGS`.

    sidecar: whether there is a .json beside it, None for not known.
    """
    kind = ENDINGS.get(PurePath(path).suffix.lower())
    if kind is None:
        return None
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            real = real_folder(path)
            head = file.read(_HEAD_BYTES)
            if head.startswith(_PNG):
                kind = "png"
                width, height, texts = _png(file, head)
            else:
                width, height, texts = exif.read(path, head, kind)
    except (OSError, ValueError):
        return None
    if not found.st_size or (not width and kind in ("png", "jpeg", "webp")):
        return None
    if sidecar is not False:
        texts = {**_sidecar(path), **texts}
    known = facts.of_texts(texts, width, height)
    state = "discarded" if DISCARDED in PurePath(path).parts[:-1] else "saved"
    return CatalogueRow(
        path=path,
        state=state,
        format=kind,
        width=width,
        height=height,
        bytes=found.st_size,
        saved_at=found.st_mtime,
        real_folder=real,
        **known,
    )


def is_gone(path: str) -> bool:
    """Whether neither the file of a row is there nor the archive that it is in.

    False where that cannot be known: of a URL, and below a folder that cannot be searched.
    """
    if is_url(path):
        return False
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return not any(parent.suffix[1:] in ARCHIVES and parent.is_file() for parent in Path(path).parents)
    except (OSError, ValueError):
        return False
    return False


def merged(found: CatalogueRow, known: CatalogueRow) -> CatalogueRow:
    """Return the row of a file with what an earlier row of it knows and the file does not say: its job, its
    scores.

    Of a file that has another size now, nothing of the earlier row counts.
    """
    if known.bytes != found.bytes:
        return found
    return replace(
        found,
        state=known.state,
        job_id=known.job_id,
        index=known.index,
        saved_at=known.saved_at if known.id else found.saved_at,
        submitted_at=found.submitted_at if found.submitted_at is not None else known.submitted_at,
        **{name: getattr(known, name) for name in _KNOWN_TO_ROWS if getattr(found, name) in (None, "", ())},
    )


_KNOWN_TO_ROWS = (
    *("crc32", "ms", "affix", "warnings", "gate_score", "gate_threshold", "variance", "edge_density"),
    *("clipped", "blank", "nan_count", "phash"),
)


def _png(file: BinaryIO, head: bytes) -> tuple[int, int, dict[str, str]]:
    """Return width, height and texts of a PNG file. Raises ValueError, OSError."""
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head[12:16] != b"IHDR":
        raise ValueError("no PNG header")
    texts: dict[str, str] = {}
    at, total = 8, 0
    while True:
        header = head[at : at + 8] if at + 8 <= len(head) else _at(file, at, 8)
        if len(header) < 8:
            break
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if kind in (b"tEXt", b"iTXt", b"zTXt", b"eXIf"):
            total += length
            if total > _MOST_TEXT_BYTES:
                break
            end = at + 8 + length
            data = head[at + 8 : end] if end <= len(head) else _at(file, at + 8, length)
            _add_text(texts, kind, data)
        elif kind == b"IEND" or (kind == b"IDAT" and not facts.KEYS.isdisjoint(texts)):
            break  # texts behind the pixels are looked for only where there are none before
        at += 12 + length
    return width, height, texts


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _add_text(texts: dict[str, str], kind: bytes, data: bytes) -> None:
    key, _, rest = data.partition(b"\0")
    name = key.decode("latin-1")
    if kind == b"eXIf":
        texts.update(exif.texts_of(data))
    elif name not in facts.KEYS or name in texts:
        return
    elif kind == b"tEXt":
        texts[name] = _own(name, rest.decode("latin-1"))
    elif kind == b"zTXt":
        texts[name] = _inflated(rest[1:]).decode("latin-1")
    else:
        compressed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        texts[name] = (_inflated(text) if compressed else text).decode("utf-8", "replace")


def _own(name: str, text: str) -> str:
    r"""Return a text as it was before this farm wrote it: beyond Latin-1 it has \uXXXX, which JSON reads
    itself."""
    if name in ("image_type", "model_name") and "\\u" in text:
        with contextlib.suppress(ValueError):
            return str(json.loads(f'"{text}"'))
    return text


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MOST_TEXT_BYTES)
    except zlib.error:
        return b""


def _sidecar(path: str) -> dict[str, str]:
    """Return the texts of the .json beside an image, as this farm writes it."""
    beside = os.path.splitext(path)[0] + ".json"
    try:
        if os.path.getsize(beside) > _LARGEST_SIDECAR:
            return {}
        with open(beside, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return facts.as_texts(found) if isinstance(found, dict) else {}
