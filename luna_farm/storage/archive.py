"""Archives: images and their metadata as stored members of one zip or tar file, a shard.

A shard is appended to under a temporary name, and published whole under its final one. Nothing but the file
itself says what is in it: after a crash the members are found again by their headers, an incomplete one at
the end is cut off, and the shard goes on. Memory hardly grows with the members: names are kept as hashes,
and the directory of a zip is written from the headers when it is published.

The layout is that of the `webdataset` package: `<stem>.<ext>` and `<stem>.json`, and no other dot in a stem.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from luna_farm import system
from luna_farm.core.filenames import with_number
from luna_farm.errors import DiskError, InvalidRequest
from luna_farm.storage.folder import Folder
from luna_farm.storage.names import parts_below
from luna_farm.testing.faults import crash_point

Buffer = bytes | bytearray | memoryview

KINDS = ("zip", "tar")
COPY_BYTES = 1 << 20
_ZIP_LIMIT = 0xFFFFFFFF
_ZIP_COUNT = 0xFFFF
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_TAR_BLOCK = 512
_UTF8 = 0x800
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Member:
    """One member by its header: where the header begins, where the body is."""

    name: str
    start: int
    body: int
    bytes: int
    end: int
    crc: int = 0


class Layout(Protocol):
    """What tar and zip have of their own."""

    def header(self, name: str, size: int, crc: int) -> bytes:
        """The header of a member."""

    def padding(self, size: int) -> bytes:
        """What follows a body of `size` bytes."""

    def members(self, file: BinaryIO, size: int) -> Iterator[Member]:
        """Read the headers of all whole members in order; stops in front of the first that is not."""

    def ending(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        """What makes a whole archive of the members."""


class Tar:
    """POSIX tar (pax headers where a name or a size needs them)."""

    def header(self, name: str, size: int, crc: int) -> bytes:
        """The header blocks of a member."""
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = 0o644
        return info.tobuf(tarfile.PAX_FORMAT)

    def padding(self, size: int) -> bytes:
        """Zeros up to the next block."""
        return bytes(-size % _TAR_BLOCK)

    def members(self, file: BinaryIO, size: int) -> Iterator[Member]:
        """Read header after header. `tarfile` reads them; its list of members is emptied as it grows."""
        at = 0
        while at < size:
            file.seek(at)
            try:
                with tarfile.open(fileobj=_From(file, at), mode="r:") as tar:
                    info = tar.next()
            except (tarfile.TarError, OSError, ValueError):
                return
            if info is None:
                return
            body = at + info.offset_data
            end = body + info.size + (-info.size % _TAR_BLOCK)
            if end > size:
                return
            yield Member(info.name, at, body, info.size, end)
            at = end

    def ending(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        """Two blocks of zeros."""
        yield bytes(2 * _TAR_BLOCK)


class _From(io.RawIOBase):
    """A file that begins at an offset of another."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        return self._file.read(size)

    def tell(self) -> int:
        """Offset from where it begins."""
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset from where it begins."""
        assert whence == 0, "tarfile seeks from the start only"
        return self._file.seek(self._start + offset) - self._start


class Zip:
    """Zip with stored members; Zip64 where a size, an offset or the count needs it (APPNOTE 4.3)."""

    def header(self, name: str, size: int, crc: int) -> bytes:
        """The local header of a member."""
        info = zipfile.ZipInfo(name)
        info.file_size = info.compress_size = size
        info.CRC = crc
        info.external_attr = 0o644 << 16
        return info.FileHeader(zip64=size >= _ZIP_LIMIT)

    def padding(self, size: int) -> bytes:
        """Nothing."""
        return b""

    def members(self, file: BinaryIO, size: int) -> Iterator[Member]:
        """Read local header after local header."""
        at = 0
        while at + _LOCAL.size <= size:
            file.seek(at)
            fields = _LOCAL.unpack(file.read(_LOCAL.size))
            magic, _, flags, _, _, _, crc, stored, _, name_length, extra_length = fields
            if magic != b"PK\x03\x04":
                return
            raw, extra = file.read(name_length), file.read(extra_length)
            if stored == _ZIP_LIMIT and len(extra) >= 20:
                stored = struct.unpack("<Q", extra[4:12])[0]
            body = at + _LOCAL.size + name_length + extra_length
            if body + stored > size:
                return
            name = raw.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
            yield Member(name, at, body, stored, body + stored, crc)
            at = body + stored

    def ending(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        """The central directory and its end, member by member from the local headers."""
        count = length = 0
        for member in self.members(file, size):
            entry = self._entry(member)
            count, length = count + 1, length + len(entry)
            yield entry
        if count >= _ZIP_COUNT or size >= _ZIP_LIMIT or length >= _ZIP_LIMIT:
            yield _END64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, size)
            yield _LOCATOR.pack(b"PK\x06\x07", 0, size + length, 1)
        short = min(count, _ZIP_COUNT)
        yield _END.pack(b"PK\x05\x06", 0, 0, short, short, min(length, _ZIP_LIMIT), min(size, _ZIP_LIMIT), 0)

    def _entry(self, member: Member) -> bytes:
        extra, version = b"", 20
        if member.bytes >= _ZIP_LIMIT or member.start >= _ZIP_LIMIT:
            values = [v for v in (member.bytes, member.bytes, member.start) if v >= _ZIP_LIMIT]
            extra = struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)
            version = 45
        ascii_only = member.name.isascii()
        raw = member.name.encode("ascii" if ascii_only else "utf-8")
        short = min(member.bytes, _ZIP_LIMIT)
        made_by = version | (3 << 8)  # Unix: the attributes are a file mode
        return (
            _CENTRAL.pack(
                b"PK\x01\x02", made_by, version, 0 if ascii_only else _UTF8, 0, 0, 0x21, member.crc,
                short, short, len(raw), len(extra), 0, 0, 0, 0o644 << 16, min(member.start, _ZIP_LIMIT),
            )
            + raw
            + extra
        )  # fmt: skip


LAYOUTS: dict[str, Layout] = {"tar": Tar(), "zip": Zip()}


class Shard:
    """An archive that is being written, in `folder` under a temporary name; for one process at a time."""

    def __init__(self, folder: str, temp_name: str, kind: str) -> None:
        """Open a shard, or go on with one that a crash left. Raises DiskError, InvalidRequest."""
        if kind not in KINDS:
            raise InvalidRequest.of("archive", kind, " | ".join(KINDS))
        self.path = os.path.join(folder, temp_name)
        self.kind = kind
        self._layout = LAYOUTS[kind]
        self._names: set[int] = set()
        self.members = 0
        """Images in the shard."""
        try:
            os.makedirs(folder, exist_ok=True)
            self._file = _open(self.path)
            self.bytes = self._recover()
        except OSError as error:
            raise system.disk_error("write", self.path, error) from error

    def _recover(self) -> int:
        """Find the members again and cut off what is not a whole pair; returns the size that stays."""
        size = os.fstat(self._file.fileno()).st_size
        end, image = 0, ""
        for member in self._layout.members(self._file, size):
            stem, _, extension = member.name.rpartition(".")
            if extension != "json":
                image = stem
                continue
            if stem != image or not self._is_whole(member):
                break
            self._names.add(hash(stem))
            self.members += 1
            end = member.end
        self._file.truncate(end)
        self._file.seek(end)
        return end

    def _is_whole(self, member: Member) -> bool:
        """Whether the JSON behind an image arrived: it was written last. A power cut may leave zeros."""
        self._file.seek(member.body)
        body = self._file.read(member.bytes)
        return body.endswith(b"}") and (not member.crc or zlib.crc32(body) == member.crc)

    def holds(self, stem: str) -> bool:
        """Whether there is an image of that stem."""
        return hash(stem) in self._names

    def add(self, stem: str, extension: str, body: Sequence[Buffer], metadata: bytes) -> str:
        """Append an image and its metadata (a JSON map); returns the name of its member. Not synced yet.

        A stem that is taken gets the next free number. Raises DiskError; the shard is as before then.
        """
        stem = wanted = webdataset_stem(stem)
        number = 0
        while self.holds(stem):
            number += 1
            stem = with_number(f"{wanted}.x", number).rpartition(".")[0]
        start = self.bytes
        try:
            self._append(f"{stem}.{extension}", body)
            crash_point("archive.image_written")
            self._append(f"{stem}.json", [metadata])
        except OSError as error:
            self._file.truncate(start)
            self._file.seek(start)
            self.bytes = start
            raise system.disk_error("write", self.path, error) from error
        self._names.add(hash(stem))
        self.members += 1
        return f"{stem}.{extension}"

    def _append(self, name: str, body: Sequence[Buffer]) -> None:
        size = crc = 0
        for buffer in body:
            size += len(buffer)
            crc = zlib.crc32(buffer, crc)
        header, padding = self._layout.header(name, size, crc), self._layout.padding(size)
        for part in (header, *body, padding):
            self._file.write(part)
        self.bytes += len(header) + size + len(padding)

    def sync(self) -> None:
        """Put everything on the disk: from here on the members survive. Raises DiskError."""
        try:
            self._file.flush()
            system.sync_data(self._file.fileno())
        except OSError as error:
            raise system.disk_error("write", self.path, error) from error

    def publish(self, path: str, output_dir: str) -> str:
        """End the archive and give it its final name, or the next free number; returns its path. Raises
        DiskError and InvalidRequest; the shard can go on then."""
        parts = parts_below(path, output_dir)
        try:
            self._file.flush()
            size = self.bytes
            for part in self._layout.ending(self._file, size):
                self._file.seek(0, os.SEEK_END)
                self._file.write(part)
            self._file.flush()
            system.sync_data(self._file.fileno())
            crash_point("archive.ended")
            with Folder.open(output_dir, parts[:-1], create=True, sync=True) as folder:
                name = self._named(folder, parts[-1])
                folder.sync()
            self._file.close()
        except OSError as error:
            raise system.disk_error("write", path, error) from error
        return os.path.join(os.path.dirname(path), name)

    def _named(self, folder: Folder, name: str) -> str:
        candidate, number = name, 0
        temp = os.path.basename(self.path)
        if folder.stat(temp) is None:
            raise DiskError(f"{self.path} is not in {folder.path}.", self.path)
        while True:
            try:
                linked = self._give(folder, temp, candidate)
            except FileExistsError:
                number += 1
                candidate = with_number(name, number)
            else:
                crash_point("archive.linked")
                if linked:
                    folder.unlink(temp)
                return candidate

    def _give(self, folder: Folder, temp: str, name: str) -> bool:
        """Give the shard a name that must not exist; returns whether the temporary one is still there."""
        try:
            folder.link(self._file.fileno(), temp, name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            folder.rename(temp, name)  # exFAT and some network folders have no links
            return False
        return True

    def close(self) -> None:
        """Close the file; the shard stays under its temporary name."""
        self._file.close()


def _open(path: str) -> BinaryIO:
    """Open a shard for appending. One with two names was published before a crash and stays as it is."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    fd = os.open(path, flags, 0o666)
    if os.fstat(fd).st_nlink > 1:
        os.close(fd)
        os.unlink(path)
        fd = os.open(path, flags, 0o666)
    return os.fdopen(fd, "r+b")


def webdataset_stem(stem: str) -> str:
    """Return a stem whose last part has no dot: the package takes the first one for the extension."""
    folder, slash, name = stem.rpartition("/")
    return folder + slash + name.replace(".", "_")
