"""What the gallery page asks for: ids of the images that match, tiles with thumbnails, one image, its file.

Everything is read in threads of its own. A request names an image by the number of its row in the catalogue
and never by a path. This module must never write, and never send a file that is no image.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import stat
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from luna_farm import system_desktop
from luna_farm.catalogue import words
from luna_farm.catalogue.files import is_gone
from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.catalogue.search import Catalogue, Query
from luna_farm.errors import InvalidRequest, NotPossible
from luna_farm.locations import is_url
from luna_farm.storage.saved_files import open_saved
from luna_farm.storage.thumbnails import Thumbnails

MAX_IDS = 250_000
"""Of one answer, 8 bytes each: more than a person scrolls through."""
MAX_TILES = 128
MAX_FILE_BYTES = 256 << 20
MAX_QUERY = 4096
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "image/webp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"v/1\x01", "image/x-exr"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL ", "image/jxl"),
)
_BRANDS = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"mif1": "image/heif"}
"""Of the `ftyp` box at the start of an ISO base media file."""

Answer = tuple[bytes, str]
"""Body and content type."""


class Gallery:
    """Answers for one catalogue. `can_open`: this farm may open folders on the desktop of its reader."""

    def __init__(self, catalogue: Catalogue, thumbnails: Thumbnails, *, can_open: bool) -> None:
        self._catalogue = catalogue
        self._thumbnails = thumbnails
        self._can_open = can_open
        self._threads = ThreadPoolExecutor(2, "gallery")
        self._paths: Mapping[str, Callable[[Mapping[str, str]], Answer]] = {
            "/api/gallery": self._about,
            "/api/gallery/ids": self._ids,
            "/api/gallery/tiles": self._tiles,
            "/api/gallery/thumbnails": self._of_images,
            "/api/gallery/image": self._image,
            "/api/gallery/file": self._file,
        }

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Where `answer` and `open_folder` are to be called."""
        return self._threads

    def has(self, path: str) -> bool:
        """Whether this module answers requests for a path."""
        return path in self._paths

    def answer(self, path: str, query: str) -> Answer:
        """Answer one request. Raises FarmError: InvalidRequest for a question that cannot be read,
        NotPossible for what is not there."""
        try:
            given = parse_qs(query[:MAX_QUERY], max_num_fields=16, errors="strict")
        except ValueError:
            raise InvalidRequest.of("query", query, "at most 16 fields in UTF-8") from None
        return self._paths[path]({name: values[0] for name, values in given.items()})

    def open_folder(self, number: int) -> dict[str, Any]:
        """Open the folder of an image on the desktop. Raises NotPossible."""
        if not self._can_open:
            raise NotPossible(
                "Folders are opened on the desktop of the farm only, and this page is elsewhere."
            )
        folder = Path(self._local(number).path).parent
        system_desktop.open_path(folder)
        return {"opened": str(folder)}

    def close(self) -> None:
        """Wait for what is being read, and close the catalogue."""
        self._threads.shutdown()
        self._catalogue.close()

    def _about(self, given: Mapping[str, str]) -> Answer:
        return _json({"models": self._catalogue.models(), "can_open": self._can_open})

    def _ids(self, given: Mapping[str, str]) -> Answer:
        numbers = array("d", self._catalogue.ids(_query(given), limit=MAX_IDS))
        if sys.byteorder == "big":  # the page reads little-endian
            numbers.byteswap()
        return numbers.tobytes(), "application/octet-stream"

    def _tiles(self, given: Mapping[str, str]) -> Answer:
        if "first" in given:  # of a search, beside whose ids this is asked
            first = min(_number("first", given["first"]), MAX_TILES)
            rows = self._catalogue.find(_query(given), limit=first)
        else:
            asked = [_number("ids", text) for text in given.get("ids", "").split(",")[:MAX_TILES] if text]
            rows = self._catalogue.rows(asked)
        kept = self._kept((row.job_id, row.index) for row in rows)
        tiles = [_tile(row, kept.get((row.job_id, row.index))) for row in rows]
        return _json({"tiles": tiles, "remarks": words.remarks(given.get("words", ""))})

    def _of_images(self, given: Mapping[str, str]) -> Answer:
        """Thumbnails of images that the feed told of, by job and number: `images=a1b2c3d4/0,a1b2c3d4/1`."""
        asked = [text.rpartition("/") for text in given.get("images", "").split(",")[:MAX_TILES] if text]
        keys = [(job_id, _number("images", number)) for job_id, _, number in asked]
        found = {f"{job_id}/{number}": jpeg for (job_id, number), jpeg in self._kept(keys).items()}
        return _json({"thumbnails": found})

    def _kept(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """Return the thumbnails that are kept, as base64."""
        found = self._thumbnails.get(keys)
        return {(job_id, number): base64.b64encode(jpeg).decode() for job_id, number, jpeg in found}

    def _image(self, given: Mapping[str, str]) -> Answer:
        row = self._row(_number("id", given.get("id", "")))
        # Seeds have 64 bits, the numbers of a browser 53.
        seed = None if row.seed is None else str(row.seed)
        return _json({**row.to_map(), "seed": seed, "is_url": is_url(row.path)})

    def _file(self, given: Mapping[str, str]) -> Answer:
        row = self._local(_number("id", given.get("id", "")))
        return _image_file(row.path, row.real_folder)

    def _row(self, number: int) -> CatalogueRow:
        row = self._catalogue.get(number)
        if row is None:
            raise NotPossible(f"The catalogue has no image {number} any more.")
        return row

    def _local(self, number: int) -> CatalogueRow:
        """Return the row of an image that is a file of this machine."""
        row = self._row(number)
        if is_url(row.path) or row.state == "failed":
            raise NotPossible(f"{row.path} is no file of this machine.")
        return row


def _query(given: Mapping[str, str]) -> Query:
    seed = given.get("seed", "").strip()
    if seed and not re.fullmatch("-?[0-9]{1,20}", seed):
        raise InvalidRequest.of("seed", seed, "a whole number")
    return Query(
        words=given.get("words", ""),
        model=given.get("model", ""),
        seed=int(seed) if seed else None,
        since=_moment(given, "since"),
        until=_moment(given, "until"),
        job=given.get("job", "").strip(),
        score=given.get("score", ""),
        similar=_hash(given.get("similar", "")),
        failed=given.get("failed") == "1",
    )


def _hash(text: str) -> str:
    if text and not re.fullmatch("[0-9a-f]{16}", text):
        raise InvalidRequest.of("similar", text, "16 hexadecimal digits")
    return text


def _moment(given: Mapping[str, str], name: str) -> float | None:
    """Seconds since 1970, as the page computes them of the reader's dates."""
    text = given.get(name, "")
    if not text:
        return None
    return float(_number(name, text))


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise InvalidRequest.of(name, text, "a whole number from 0")
    return int(text)


def _tile(row: CatalogueRow, thumbnail: str | None) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.path.replace("\\", "/").rpartition("/")[2],
        "state": row.state,
        "width": row.width,
        "height": row.height,
        "format": row.format,
        "bytes": row.bytes,
        "model": row.model,
        # Without a thumbnail the page shows the file: only then it matters already that it is there.
        "local": not is_url(row.path) and (thumbnail is not None or os.path.lexists(row.path)),
        "gone": thumbnail is None and row.state != "failed" and is_gone(row.path),
        "thumbnail": thumbnail,
    }


def _image_file(path: str, real: str) -> Answer:
    """Read an image file. A link, a file that is no image, and a folder that leads elsewhere than to `real`,
    where the file was saved, are not sent: write access to an output folder must not give read access to what
    only the farm may read."""
    try:
        with os.fdopen(open_saved(path, real), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise NotPossible(f"{path} is no file.")
            if found.st_size > MAX_FILE_BYTES:
                raise NotPossible(
                    f"{path} has {found.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are shown."
                )
            kind = _kind(file.read(16))
            if not kind:
                raise NotPossible(f"{path} is no image any more.")
            file.seek(0)
            return file.read(MAX_FILE_BYTES), kind
    except OSError as error:
        raise NotPossible(_unreadable(path, error)) from error


def _unreadable(path: str, error: OSError) -> str:
    archive = os.path.dirname(path)
    if error.errno == errno.ENOTDIR and os.path.isfile(archive):
        return f"{path} is in an archive, from which no file is shown: {archive}."
    if error.errno == errno.ELOOP:
        return (
            f"{path} is not sent: {error.strerror}. If you moved the images there, `luna-farm catalogue"
            " rebuild DIR` reads them again."
        )
    return f"{path} cannot be read: {error.strerror}."


def _kind(start: bytes) -> str:
    for signature, kind in _SIGNATURES:
        if start.startswith(signature) and (kind != "image/webp" or start[8:12] == b"WEBP"):
            return kind
    return _BRANDS.get(start[8:12], "") if start[4:8] == b"ftyp" else ""


def _json(value: Mapping[str, Any]) -> Answer:
    return json.dumps(value, default=list).encode(), "application/json"
