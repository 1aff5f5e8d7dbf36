"""The two layouts of archives, tar and zip with stored members: headers, and finding members by them.

This module must never open a file.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

_ZIP_LIMIT = 0xFFFFFFFF
_ZIP_COUNT = 0xFFFF
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_TAR_BLOCK = 512
_UTF8 = 0x800


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
