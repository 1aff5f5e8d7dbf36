"""The upload spool: encoded files on their way to a destination, on disk until the last one has confirmed.

One file an image in the state folder: the encoded bytes, then a trailer that holds everything needed to
upload them, so that no other record is needed to send what a crash left. The trailer is at the end because
size and checksums are known only then. This module must never leave a file under its final name that is not
whole and synced.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgpack

from luna_farm import system
from luna_farm.errors import DiskError
from luna_farm.storage import files
from luna_farm.storage.sinks.sink import Decision, SinkError, Upload, described
from luna_farm.testing.faults import crash_point

SUFFIX = ".upload"
READ_BYTES = 1 << 20
_MAGIC = b"LunaUpl1"
_END = struct.Struct(">QII8s")
"""Bytes of the body, bytes of the trailer, CRC-32 of the trailer, magic."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Target:
    """Where one copy goes: below which folder or URL, and the reserved name there, with "/" between its
    parts."""

    root: str
    name: str


@dataclass(frozen=True, slots=True)
class Spooled:
    """One encoded file in the spool: its path, what it is, where it goes."""

    path: str
    job_id: str
    index: int
    upload: Upload
    targets: tuple[Target, ...]
    files: tuple[tuple[str, int], ...] = ()
    """Extension and bytes of the files behind one another, for a member of an archive."""
    metadata: bytes = b""
    """JSON beside that member."""
    state: str = ""
    """What the image is once it is sent: saved or discarded; "" in files of an older farm."""


class UploadSpool:
    """The spool in `folder`, which is made if missing (mode 0700)."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.abspath(folder)
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise system.disk_error("make the folder", self.folder, error) from error

    def path(self, job_id: str, index: int, part: str = "") -> str:
        """Return where the file of an image lies; `part` names a second file of it, such as "json"."""
        return os.path.join(self.folder, token_of(job_id, index, part) + SUFFIX)

    def write(
        self,
        job_id: str,
        index: int,
        buffers: Sequence[Buffer],
        targets: Sequence[Target],
        *,
        content_type: str,
        part: str = "",
        files_in_it: Sequence[tuple[str, int]] = (),
        metadata: bytes = b"",
        state: str = "",
        sync: bool = True,
    ) -> Spooled:
        """Put an encoded file on the disk; it is synced under its name when this returns, with `sync`.

        The same image again replaces it. Raises DiskError and leaves nothing behind.
        """
        path = self.path(job_id, index, part)
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        token = os.path.basename(path).removesuffix(SUFFIX)
        upload = described(token, views, content_type)
        spooled = Spooled(path, job_id, index, upload, tuple(targets), tuple(files_in_it), metadata, state)

        def all_buffers() -> Iterator[bytes | memoryview]:
            for number, view in enumerate(views):
                if number == len(views) - 1:
                    yield view[: len(view) // 2]
                    crash_point("upload.half_spooled")
                    view = view[len(view) // 2 :]
                yield view
            yield _trailer(spooled)

        files.replace(path, all_buffers(), lambda: crash_point("upload.spooled"), sync=sync)
        return spooled

    def adopt(self, source: str, token: str, targets: Sequence[Target], content_type: str) -> Spooled:
        """Make a whole file of the same disk a file of the spool, without a copy of its bytes. Raises
        DiskError."""
        path = self.path(token, 0)
        try:
            with open(source, "r+b") as file:
                chunks = iter(lambda: file.read(READ_BYTES), b"")
                upload = described(os.path.basename(path).removesuffix(SUFFIX), chunks, content_type)
                spooled = Spooled(path, token, 0, upload, tuple(targets))
                file.write(_trailer(spooled))
                file.flush()
                system.sync_data(file.fileno())
            crash_point("archive.spooling")
            os.replace(source, path)
            system.sync_folder(self.folder)
        except OSError as error:
            raise system.disk_error("spool", source, error) from error
        return spooled

    def remove(self, path: str) -> bool:
        """Remove a file that every destination has confirmed. False if it is gone already."""
        return os.path.dirname(path) == self.folder and files.remove(path)

    def remove_all(self, paths: Iterable[str]) -> None:
        """Remove several such files."""
        for path in paths:
            self.remove(path)

    def paths(self) -> list[str]:
        """Return all whole files in the spool, sorted."""
        try:
            names = os.listdir(self.folder)
        except OSError as error:
            raise system.disk_error("look into", self.folder, error) from error
        return sorted(os.path.join(self.folder, name) for name in names if name.endswith(SUFFIX))

    def sweep(self) -> None:
        """Remove half files that a crash left; whole ones stay, whether a journal knows them or not."""
        for name in os.listdir(self.folder):
            if name.endswith(SUFFIX + ".new"):
                files.remove(os.path.join(self.folder, name))


def token_of(job_id: str, index: int, part: str = "") -> str:
    """Return what names one file of an image in the spool and at its destinations."""
    return files.image_id(job_id, index) + (f"-{part}" if part else "")


def read(path: str) -> Spooled:
    """Return what the trailer of a spooled file says. Raises DiskError if it is missing or damaged."""
    try:
        with open(path, "rb") as file:
            return _read(path, file.fileno())
    except OSError as error:
        raise system.disk_error("read the spooled file", path, error) from error


@contextmanager
def body_of(spooled: Spooled) -> Iterator[memoryview]:
    """Map the encoded bytes of a spooled file. Raises DiskError."""
    try:
        with open(spooled.path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DiskError(f"Cannot read the spooled file {spooled.path}: {error}.", spooled.path) from error
    view = memoryview(mapped)[: spooled.upload.bytes]
    try:
        yield view
    finally:
        try:
            view.release()
            mapped.close()
        except BufferError:
            pass  # a library still holds it after a failed request; the mapping goes with its last reference


def _trailer(spooled: Spooled) -> bytes:
    upload = spooled.upload
    content = msgpack.packb(
        {
            "job_id": spooled.job_id,
            "index": spooled.index,
            "token": upload.token,
            "sha256": upload.sha256,
            "md5": upload.md5,
            "content_type": upload.content_type,
            "targets": [[target.root, target.name] for target in spooled.targets],
            "state": spooled.state,
            **({"files": spooled.files, "metadata": spooled.metadata} if spooled.files else {}),
        }
    )
    assert isinstance(content, bytes)
    return content + _END.pack(upload.bytes, len(content), zlib.crc32(content), _MAGIC)


def read_to_send(path: str) -> Spooled:
    """As `read`, for a place that waits for the file. Raises SinkError when there will never be one to send:
    it is gone though its folder is there, or damaged; DiskError when it cannot be read now."""
    try:
        return read(path)
    except DiskError as error:
        if not error.errno:
            raise SinkError(str(error), Decision.FAIL, "damaged") from error
        if error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(path)):
            text = f"The spooled file {path} was removed, and with it what was to be sent."
            raise SinkError(text, Decision.FAIL, "gone") from error
        raise


def _read(path: str, fd: int) -> Spooled:
    size = os.fstat(fd).st_size
    damaged = DiskError(f"The spooled file {path} is damaged: its trailer does not fit its bytes.", path)
    if size < _END.size:
        raise damaged
    body, length, crc, magic = _END.unpack(_pread(fd, _END.size, size - _END.size))
    if magic != _MAGIC or body + length + _END.size != size:
        raise damaged
    content = _pread(fd, length, body)
    if zlib.crc32(content) != crc:
        raise damaged
    given: dict[str, Any] = msgpack.unpackb(content)
    upload = Upload(given["token"], body, given["sha256"], given["md5"], given["content_type"])
    targets = tuple(Target(*target) for target in given["targets"])
    members = tuple((extension, size) for extension, size in given.get("files", ()))
    return Spooled(
        path,
        given["job_id"],
        given["index"],
        upload,
        targets,
        members,
        given.get("metadata", b""),
        given.get("state", ""),
    )


def _pread(fd: int, size: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)  # Windows has no pread
    return os.read(fd, size)
