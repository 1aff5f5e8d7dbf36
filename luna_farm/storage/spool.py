"""The spool: pixels of durable jobs, on disk before the job is accepted, so that they survive a power cut.

One file an image, a segment like any other (`storage/arena.py`): a worker maps it and encodes from it. Behind
the pixels stands their request, so that they can be saved without the journal. This module must never leave
a file under its final name that is not whole and synced.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Container, Iterator, Mapping
from typing import Any
from uuid import uuid4

import msgpack

from luna_farm import system
from luna_farm.storage import files
from luna_farm.storage.arena import HEADER_BYTES, Header
from luna_farm.testing.faults import crash_point

_SUFFIX = ".pixels"
_MAGIC = b"LFRQ"
_FOOT = struct.Struct(">4sQI")  # magic, bytes of the request before it, their crc32


class Spool:
    """The spool in `folder`, which is made if missing (mode 0700)."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.abspath(folder)
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise system.disk_error("make the folder", self.folder, error) from error

    def write(self, job_id: str, index: int, view: memoryview, request: Mapping[str, Any]) -> str:
        """Put the pixels of one image and its `request` (plain values) on the disk and return their segment,
        "file:PATH"; offset 0 is the first pixel.

        Returns once the bytes and the name are synced (24 MB: some 30 ms, so call it in a thread). The same
        image again replaces it. Raises DiskError and leaves nothing behind.
        """
        path = os.path.join(self.folder, files.image_id(job_id, index) + _SUFFIX)
        head = Header(os.getpid(), view.nbytes, uuid4(), system.boot_id()).pack().ljust(HEADER_BYTES, b"\0")
        half = view.nbytes // 2

        def buffers() -> Iterator[bytes | memoryview]:
            yield head
            yield view[:half]
            crash_point("spool.half_written")
            yield view[half:]
            payload: bytes = msgpack.packb(dict(request), unicode_errors="surrogatepass")
            yield payload + _FOOT.pack(_MAGIC, len(payload), zlib.crc32(payload))

        files.replace(path, buffers(), lambda: crash_point("spool.written"))
        return f"file:{path}"

    def holds(self, segment: str) -> bool:
        """Whether a segment is named like one of this spool."""
        return segment.startswith("file:") and os.path.dirname(segment[len("file:") :]) == self.folder

    def remove(self, segment: str) -> bool:
        """Remove one image whose file is saved. False if it is gone already, or is not a segment of this
        spool."""
        return self.holds(segment) and files.remove(segment[len("file:") :])

    def segments(self) -> list[str]:
        """Return the segments of all whole images in the spool, sorted."""
        return sorted(
            f"file:{os.path.join(self.folder, name)}" for name in self._names() if name.endswith(_SUFFIX)
        )

    def requests(self) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Yield the segment of each whole image with its request; None where it cannot be read, or in a file
        of version 0.1, which wrote none."""
        for segment in self.segments():
            yield segment, _request(segment[len("file:") :])

    def sweep(self, keep: Container[str]) -> int:
        """Remove all that is not in `keep` (segments of unfinished jobs): what a crash left before its job
        was accepted. For the start, before any job is taken. Returns how many files went."""
        paths = [os.path.join(self.folder, name) for name in self._names()]
        return sum(files.remove(path) for path in paths if f"file:{path}" not in keep)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except OSError as error:
            raise system.disk_error("look into", self.folder, error) from error


def _request(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            end = file.seek(-_FOOT.size, os.SEEK_END)
            magic, length, checksum = _FOOT.unpack(file.read(_FOOT.size))
            if magic != _MAGIC or length > end - HEADER_BYTES:
                return None
            file.seek(end - length)
            payload = file.read(length)
        found = msgpack.unpackb(payload, unicode_errors="surrogatepass")
    except (OSError, ValueError):
        return None
    return found if zlib.crc32(payload) == checksum and isinstance(found, dict) else None
