"""Notes of a worker: which file is about to get which name. The one memory of publication.

A worker notes the identity of a file before it gives the file its final name. If the worker or the
supervisor dies after that, the note shows whether the name was given: the file of that name is the noted
one, or it is not. A note needs no tidying up: newer notes replace it, and a journaled result outdates it.

One file a worker, of a fixed size that is written when it is made, so that a full disk does not stop it.
It survives `kill -9` of every process. A power cut may take it, unless `sync` was asked for.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgpack

from luna_farm import system
from luna_farm.core.messages import Note

NOTE_BYTES = 512
"""Of one note; a temporary name (up to 100 bytes) and a final name (up to 255) fit."""
NOTES = 64
"""How many notes of one worker are kept; the results of all older ones are in the journal. Where its disk has
refused that many records, a file is known by its time of modification (`writer.py`)."""

_HEAD = struct.Struct(">IIQ")  # crc32 of the rest, payload bytes, when it was made (monotonic ns)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SAFE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Notes:
    """The notes of one worker, in a file of its own."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make the file. A state folder that refuses costs the memory of a crash, not the image."""
        self._path = path
        self._count = 0
        self._last = 0
        self._fd = -1
        self._open()

    def _open(self) -> None:
        try:
            self._fd = os.open(self._path, _FLAGS | _SAFE, 0o600)
            os.write(self._fd, bytes(NOTE_BYTES * NOTES))
        except OSError:
            self.close()

    def write(self, note: Note, *, sync: bool) -> None:
        """Keep a note; it survives any death of this process once this returns, a power cut with `sync`."""
        if self._fd < 0 or not os.fstat(self._fd).st_nlink:  # the state folder was removed and made again
            self.close()
            self._open()
        if self._fd < 0:
            return
        payload: bytes = msgpack.packb(note.to_map(), unicode_errors="surrogateescape")
        self._last = max(self._last + 1, time.monotonic_ns())  # notes of other workers may be older or newer
        rest = struct.pack(">IQ", len(payload), self._last) + payload
        if len(rest) + 4 > NOTE_BYTES:
            return
        try:
            os.lseek(self._fd, NOTE_BYTES * (self._count % NOTES), os.SEEK_SET)
            os.write(self._fd, struct.pack(">I", zlib.crc32(rest)) + rest)
            if sync:
                system.sync_data(self._fd)
        except OSError:
            return
        self._count += 1

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: str | os.PathLike[str]) -> list[Note]:
    """Return the notes in a file, the oldest first; whatever is no whole note is passed over."""
    return _in_order(_numbered(path))


def read_all(folder: str | os.PathLike[str]) -> list[Note]:
    """Return the notes of all workers of a farm that is gone, the oldest first: an image that waited for its
    disk may have been with several."""
    return _in_order(pair for path in _files(folder) for pair in _numbered(path))


def _in_order(numbered: Iterable[tuple[int, Note]]) -> list[Note]:
    return [note for _, note in sorted(numbered, key=lambda pair: pair[0])]


def _numbered(path: str | os.PathLike[str]) -> list[tuple[int, Note]]:
    try:
        data = Path(path).read_bytes()
    except OSError:
        return []
    found: list[tuple[int, Note]] = []
    for start in range(0, len(data), NOTE_BYTES):
        slot = data[start : start + NOTE_BYTES]
        if len(slot) < _HEAD.size:
            break
        checksum, length, number = _HEAD.unpack_from(slot)
        rest = slot[4 : _HEAD.size + length]
        if length and len(rest) == _HEAD.size - 4 + length and checksum == zlib.crc32(rest):
            given = msgpack.unpackb(slot[_HEAD.size : _HEAD.size + length], unicode_errors="surrogateescape")
            found.append((number, Note.from_map(given)))
    return found


def remove_all(folder: str | os.PathLike[str]) -> None:
    """Remove the files of workers that are gone, once their content is in the journal."""
    for path in _files(folder):
        remove(path)


def remove(path: str | os.PathLike[str]) -> None:
    """Remove one file; one that stays is read and removed at the next start."""
    try:
        os.unlink(path)
    except OSError:
        return


def _files(folder: str | os.PathLike[str]) -> list[Path]:
    try:
        return sorted(Path(folder).iterdir())
    except OSError:
        return []
