"""Segments of memory that several processes share: the arena of pixels, and files that stand in for it.

A segment is named "shm:NAME" or "file:PATH"; either starts with a header that says what it is, how large
exactly, of which boot and whose. File segments serve durable jobs, images larger than shared memory allows,
machines without shared memory, and Windows.

This module must never let a process that merely attached destroy a segment, never hand out a byte that is not
there (SIGBUS), and never import numpy.

Linux: POSIX shared memory on the tmpfs /dev/shm; it survives `kill -9` of its creator, until someone unlinks
it or the machine boots. macOS: the same calls, names of at most 30 characters, nothing to reserve (memory is
the bound, not a file system). Windows: a named mapping goes away with its last handle, so `create_best` makes
a file segment there, which outlives a killed supervisor as the promise asks.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID, uuid4

from luna_farm import system
from luna_farm.errors import ArenaError
from luna_farm.storage.mapping import FileMapping, Mapping, SharedMapping, unlink_shared

HEADER_BYTES = 4096
"""The header has a page of its own; offset 0 of a segment is the first byte behind it."""
FORMAT_VERSION = 1
MAX_NAME_CHARS = 30
"""Of a shared memory name: what macOS allows."""

MAX_ATTACHED = 64
"""How many segments a `Segments` cache keeps attached; the one unused for longest is closed first."""
_WARM_BYTES = 4 << 20  # one step of `warm`: it holds the GIL, so it stays short (4 ms)

_MAGIC = b"LUNAFARM"
_HEADER = struct.Struct("<8sIIQ16s64s")  # magic, version, owner's pid, payload bytes, uuid, boot id
_CRC = struct.Struct("<I")
_RESERVED_AT, _RESERVED = 1024, struct.Struct("<Q")
"""Where the header page says how many bytes from offset 0 on are there now; 0: all of them."""
_CLAIMED_AT = 2048
"""A byte that a client sets which needs all of the memory, and needs it to stay."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself. `size` is exact: the mapping is rounded up to whole pages."""

    owner_pid: int
    size: int
    uuid: UUID
    boot_id: str

    def pack(self) -> bytes:
        """Return the bytes at the start of the segment, checksum included."""
        boot = self.boot_id.encode("ascii")
        body = _HEADER.pack(_MAGIC, FORMAT_VERSION, self.owner_pid, self.size, self.uuid.bytes, boot)
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def unpack(cls, segment: str, page: bytes | memoryview, mapped_bytes: int) -> Header:
        """Read and check a header; raises ArenaError for anything that is not a whole segment of this
        version."""
        body = bytes(page[: _HEADER.size])
        checksum = bytes(page[_HEADER.size : _HEADER.size + _CRC.size])
        if (
            len(checksum) < _CRC.size
            or not body.startswith(_MAGIC)
            or checksum != _CRC.pack(zlib.crc32(body))
        ):
            raise ArenaError(
                f"{segment} is no segment of Luna Farm, or only half of one: its header does not check."
            )
        _, version, pid, size, uuid, boot = _HEADER.unpack(body)
        if version != FORMAT_VERSION:
            raise ArenaError(
                f"{segment} has format {version}, this program reads {FORMAT_VERSION}:"
                " farm and client are of different versions, install the same one for both."
            )
        if mapped_bytes < HEADER_BYTES + size:
            raise ArenaError(
                f"{segment} was cut to {mapped_bytes} bytes; its header says {HEADER_BYTES + size}."
            )
        return cls(pid, size, UUID(bytes=uuid), boot.rstrip(b"\0").decode("ascii", "replace"))


class Arena:
    """One attached segment: `size` bytes behind its header, seen through `view`.

    Made by `create` or `attach`, never by hand. Only the creator can unlink it.
    Views stay valid after `close`: the mapping goes when the last of them does.
    """

    def __init__(self, name: str, mapping: Mapping, header: Header, owned: bool) -> None:
        self.name = name
        self.header = header
        self.owned = owned
        self._mapping = mapping
        self._payload: memoryview | None = mapping.view()[HEADER_BYTES : HEADER_BYTES + header.size]

    @classmethod
    def create(cls, segment: str, size: int, reserved: int | None = None) -> Arena:
        """Make a segment of `size` bytes, of which the first `reserved` (default: all) are reserved: writing
        to those can never fail later. The rest must be reserved before anything is written there.

        Raises ArenaError if there is not that much room (nothing is left behind then) or the name is taken.
        """
        if size <= 0:
            raise ArenaError(f"{segment}: {size} bytes is not allowed; allowed: 1 and more.")
        reserved = size if reserved is None else min(size, _whole_pages(reserved))
        header = Header(os.getpid(), size, uuid4(), system.boot_id())
        mapping = _open(segment, HEADER_BYTES + size, HEADER_BYTES + reserved)
        packed = header.pack()
        mapping.view()[: len(packed)] = packed
        arena = cls(segment, mapping, header, owned=True)
        arena.reserved = reserved
        return arena

    @classmethod
    def attach(cls, segment: str) -> Arena:
        """Map an existing segment. Raises ArenaError if it is gone, cut short, foreign or of another
        version."""
        mapping = _open(segment, None)
        try:
            buffer = mapping.view()
            header = Header.unpack(segment, buffer[:HEADER_BYTES], len(buffer))
        except ArenaError:
            mapping.close()
            raise
        return cls(segment, mapping, header, owned=False)

    @property
    def size(self) -> int:
        """Bytes behind the header."""
        return self.header.size

    @property
    def uuid(self) -> UUID:
        """Identity of this segment; another one of the same name has another."""
        return self.header.uuid

    def view(self, offset: int, size: int) -> memoryview:
        """Return `size` writable bytes from `offset` (0 .. `Arena.size`), no copy. Raises ArenaError
        outside."""
        if self._payload is None:
            raise ArenaError(f"{self.name} is closed.")
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ArenaError(
                f"{self.name}: bytes {offset} to {offset + size} do not lie in 0 to {self.size}."
            )
        return self._payload[offset : offset + size]

    @property
    def reserved(self) -> int:
        """Bytes from offset 0 on that are there: writing to those cannot fail."""
        (reserved,) = _RESERVED.unpack_from(self._mapping.view(), _RESERVED_AT)
        return reserved or self.size

    @reserved.setter
    def reserved(self, reserved: int) -> None:
        _RESERVED.pack_into(self._mapping.view(), _RESERVED_AT, reserved)

    @property
    def claimed(self) -> bool:
        """Whether a client needs all of it to be there, and to stay."""
        return self._mapping.view()[_CLAIMED_AT] != 0

    def claim(self) -> None:
        """Ask the owner for all of the memory, for good: a device that writes to it past the kernel must
        never meet a page that was given back."""
        self._mapping.view()[_CLAIMED_AT] = 1

    def reserve(self, end: int) -> None:
        """Have the bytes up to `end` there. For the owner. Raises ArenaError when there is no room; nothing
        that was there goes."""
        end = min(self.size, _whole_pages(end))
        start = self.reserved
        if end > start:
            try:
                self._mapping.reserve(HEADER_BYTES + start, end - start)
            except OSError as error:
                action = f"reserve {mib(end - start)} more for"
                raise ArenaError(str(system.disk_error(action, self.name, error))) from error
            self.reserved = max(end, self.reserved)

    def give_back(self, end: int) -> None:
        """Return the memory from `end` on to the system. For the owner, who must know that it is unused.

        Does nothing where the platform cannot, or where a client has claimed all of it.
        """
        first, before = _whole_pages(HEADER_BYTES + end), self.reserved
        if first >= HEADER_BYTES + before:
            return
        # This first, so that a client which claims it right now sees that it is not whole.
        self.reserved = first - HEADER_BYTES
        if self.claimed or not self._mapping.give_back(first, HEADER_BYTES + before - first):
            self.reserved = before

    def warm(self, offset: int = 0, size: int | None = None) -> None:
        """Map the pages of a range (default: all that are there) into this process now, so that the first
        write is as fast as the next.

        For workers and clients. Never for the supervisor: the pages would count as its memory. Linux >= 5.14:
        MADV_POPULATE_WRITE; elsewhere it does nothing, and the first write to each page is slower.
        """
        start = (HEADER_BYTES + offset) // mmap.PAGESIZE * mmap.PAGESIZE
        end = HEADER_BYTES + (self.reserved if size is None else offset + size)
        for at in range(start, end, _WARM_BYTES):
            if not self._mapping.populate(at, min(_WARM_BYTES, end - at)):
                return

    def close(self) -> None:
        """Let go of the mapping; safe to call twice and with views still in use."""
        self._payload = None
        self._mapping.close()

    def unlink(self) -> None:
        """Remove the name; memory is freed once every process has let go. Raises ArenaError if not the
        owner."""
        if not self.owned:
            raise ArenaError(
                f"{self.name} belongs to process {self.header.owner_pid}: who attached cannot unlink."
            )
        remove(self.name)


class Segments:
    """The segments that a process uses, each attached once. Bounded: at most MAX_ATTACHED of others stay
    open; those that this process made are closed only by `forget` and `close`."""

    def __init__(self) -> None:
        self._arenas: OrderedDict[str, Arena] = OrderedDict()
        self._lock = threading.Lock()

    def arena(self, segment: str) -> Arena:
        """Return the segment, attached now or before. Raises ArenaError if it is gone."""
        with self._lock:
            return self._attached(segment)

    def _attached(self, segment: str) -> Arena:
        arena = self._arenas.get(segment)
        if arena is None:
            arena = self._arenas[segment] = Arena.attach(segment)
        self._arenas.move_to_end(segment)
        if len(self._arenas) > MAX_ATTACHED:
            for name, unused in self._arenas.items():
                if not unused.owned and unused is not arena:
                    del self._arenas[name]
                    unused.close()
                    break
        return arena

    def add(self, arena: Arena) -> None:
        """Take in a segment that this process made."""
        with self._lock:
            self._arenas[arena.name] = arena

    def view(self, segment: str, offset: int, size: int) -> memoryview:
        """Return `size` bytes from `offset` of a segment, no copy. Raises ArenaError if they are not
        there."""
        with self._lock:  # another thread may attach so many that this one is closed
            return self._attached(segment).view(offset, size)

    def forget(self, segment: str) -> None:
        """Close a segment that will not be used again; one that was never attached is fine too."""
        with self._lock:
            arena = self._arenas.pop(segment, None)
        if arena is not None:
            arena.close()

    def keep_only(self, segment: str) -> None:
        """Close all but one: memory whose name is removed stays taken while any process has it mapped."""
        with self._lock:
            others = [name for name in self._arenas if name != segment]
        for other in others:
            self.forget(other)

    def close(self) -> None:
        """Close them all."""
        for segment in list(self._arenas):
            self.forget(segment)


def _open(segment: str, size: int | None, reserved: int | None = None) -> Mapping:
    """Create (`size` bytes) or attach (None) what `segment` names; every failure becomes an ArenaError."""
    kind, name = _split(segment)
    action = "attach to" if size is None else f"reserve {mib(reserved or size)} for"
    try:
        return SharedMapping(name, size, reserved) if kind == "shm" else FileMapping(name, size, reserved)
    except FileNotFoundError as error:
        raise ArenaError(f"{segment} is gone: removed, or lost when the machine booted.") from error
    except FileExistsError as error:
        raise ArenaError(f"{segment} exists already: a segment is never made twice.") from error
    except OSError as error:
        raise ArenaError(str(system.disk_error(action, segment, error))) from error
    except (
        ValueError,
        OverflowError,
    ) as error:  # an empty file cannot be mapped, nor one larger than addresses go
        raise ArenaError(f"Cannot {action} {segment}: {error}.") from error


def _split(segment: str) -> tuple[str, str]:
    kind, _, name = segment.partition(":")
    if kind == "file" and os.path.isabs(name) and "\0" not in name:
        return kind, name
    if (
        kind == "shm"
        and 0 < len(name) <= MAX_NAME_CHARS
        and name.replace("-", "").isalnum()
        and name.isascii()
    ):
        return kind, name
    raise ArenaError(
        f"{segment[:200]!r} names no segment; allowed: shm: and up to {MAX_NAME_CHARS} letters, digits and -,"
        " or file: and an absolute path."
    )


def remove(segment: str) -> bool:
    """Remove a segment by name, whatever it holds: the right of the supervisor alone. False: it was gone
    already.

    Raises ArenaError when the system refuses, as Windows does for a file that is still mapped somewhere.
    """
    kind, name = _split(segment)
    try:
        if kind == "file":
            os.unlink(name)
        else:
            unlink_shared(name)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ArenaError(str(system.disk_error("remove", segment, error))) from error
    return True


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def mib(size: int) -> str:
    """Say a number of bytes as people read it."""
    return f"{size / (1 << 20):.1f} MiB"
