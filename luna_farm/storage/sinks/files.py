"""Servers of files (SFTP, FTP, WebDAV): an object is written under a temporary name, read back and renamed.

The temporary name is made of the token, so that a try after a crash finds and replaces the half file of the
one before. What is under the key itself is whole at every moment.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Protocol

from luna_farm.storage.sinks.refusals import refusal
from luna_farm.storage.sinks.sink import SinkError, Stored, Upload, is_body

CHUNK_BYTES = 256 * 1024


class FileServer(Protocol):
    """What each protocol has to bring. Paths are absolute; every method raises SinkError."""

    place: str
    """URL of the server, for messages."""

    def size(self, path: str) -> int | None:
        """Size of a file in bytes, None if there is none."""

    def make_folder(self, path: str) -> None:
        """Make one folder; fine if it is there."""

    def write(self, path: str, body: memoryview) -> None:
        """Write a whole file, over an old one."""

    def read(self, path: str) -> Iterator[bytes]:
        """Read a file in chunks."""

    def rename(self, source: str, target: str) -> None:
        """Rename, refusing (kind "exists") if there is a target, as far as the protocol can."""

    def remove(self, path: str) -> None:
        """Remove a file; fine if there is none."""

    def close(self) -> None:
        """Close the connection."""


class FileSink:
    """A folder tree on one file server; for one thread."""

    thread_safe = False

    def __init__(self, server: FileServer) -> None:
        self._server = server
        self._folders: set[str] = set()

    def exists(self, key: str) -> bool:
        """Whether there is a file under `key`."""
        return self._server.size("/" + key) is not None

    def put(self, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
        """Store `body` under `key` unless a file is there; with `again` the same bytes count as ours."""
        path, temp = "/" + key, _temp(key, upload)
        if self._server.size(path) is not None:
            found = self.own(key, upload) if again else None
            if found is None:
                raise refusal(self._server.place, "exists")
            return found
        if not (again and self._holds(temp, upload)):
            self._write(temp, upload, body)
        self._rename(temp, path)
        if self._server.size(path) != upload.bytes:
            raise refusal(self._server.place, "other_name")
        return Stored(key, upload.bytes)

    def own(self, key: str, upload: Upload) -> Stored | None:
        """Return the file under `key` if it has the bytes of this upload, and remove its temporary name."""
        if not self._holds("/" + key, upload):
            return None
        self._server.remove(_temp(key, upload))
        return Stored(key, upload.bytes, found=True)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _holds(self, path: str, upload: Upload) -> bool:
        return self._server.size(path) == upload.bytes and is_body(upload, self._server.read(path))

    def _write(self, temp: str, upload: Upload, body: memoryview) -> None:
        self._make_folders(posixpath.dirname(temp))
        try:
            self._server.write(temp, body)
        except SinkError as error:
            self._folders.clear()  # one may have been removed
            raise error
        if not is_body(upload, self._server.read(temp)):
            self._server.remove(temp)
            raise refusal(self._server.place, "checksum")

    def _rename(self, temp: str, path: str) -> None:
        try:
            self._server.rename(temp, path)
        except SinkError as error:
            if (
                error.kind not in ("exists", "forbidden", "other", "conflict")
                or self._server.size(path) is None
            ):
                raise
            raise refusal(self._server.place, "exists") from None

    def _make_folders(self, folder: str) -> None:
        if folder in self._folders or folder == "/":
            return
        if self._server.size(folder) is None:
            self._make_folders(posixpath.dirname(folder))
            self._server.make_folder(folder)
        self._folders.add(folder)


def _temp(key: str, upload: Upload) -> str:
    return posixpath.join(posixpath.dirname("/" + key), f".luna-{upload.token}.tmp")
