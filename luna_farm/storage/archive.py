"""Shards: images and their metadata as stored members of one zip or tar file that grows.

A shard is appended to under a temporary name, and gets its final one when it is complete. Nothing but the
file itself says what is in it: after a crash the members are found again by their headers, an incomplete one
at the end is cut off, and the shard goes on. The metadata of each member names its job and image, so that one
that is sent again is found. One process writes a shard; `worker/archiver.py` is that process.

The layout is that of the `webdataset` package: `<stem>.<ext>` and `<stem>.json`, and no other dot in a stem.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

from luna_farm import system
from luna_farm.core.filenames import with_number
from luna_farm.core.template import COUNTER
from luna_farm.errors import DiskError, InvalidRequest
from luna_farm.storage import files
from luna_farm.storage.archive_layouts import LAYOUTS, Layout, Member
from luna_farm.storage.folder import Folder
from luna_farm.storage.names import first_free, parts_below
from luna_farm.testing.faults import crash_point

Buffer = bytes | bytearray | memoryview
File = tuple[str, Sequence[Buffer]]
"""Extension and content."""

KINDS = ("zip", "tar")
READ_BYTES = 1 << 17
SMALL_BYTES = 1 << 16
"""Members up to this size are written by one call."""
IDENTITY = "luna_farm"
"""Key of the metadata of each member: `{"shard": ..., "job_id": ..., "index": ...}`."""
PUBLISHED_NAMES = 1000
"""How many numbered names are looked at for a shard that was published before a crash."""
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
_SERIES = re.compile(r"(.*_)(\d{5,})(\.[^.]*)")


class Shard:
    """An archive that is being written below `root`, under a temporary name in the folder `below`."""

    def __init__(self, root: str, temp_name: str, kind: str, below: Sequence[str] = ()) -> None:
        """Open a shard, or go on with one that a crash left. Raises DiskError, InvalidRequest."""
        if kind not in KINDS:
            raise InvalidRequest.of("archive", kind, " | ".join(KINDS))
        self.path = os.path.join(root, *below, temp_name)
        self._temp = temp_name
        self._layout: Layout = LAYOUTS[kind]
        self._names: set[int] = set()
        self._unsynced: list[int] = []
        """Names of the members since the last sync."""
        self.recovered: dict[str, str] = {}
        """"JOB-INDEX" -> name of the first file, of the members that a crash left."""
        self.members = 0
        """Images in the shard."""
        try:
            with Folder.open(root, below, create=True, sync=True) as folder:
                self._fd = _open(folder, temp_name)
            self.bytes = self._synced_bytes = self._recover()
        except OSError as error:
            raise system.disk_error("write", self.path, error) from error

    def _recover(self) -> int:
        """Find the members again and cut off what is not whole; returns the size that stays."""
        size = os.fstat(self._fd).st_size
        end, image = 0, Member("", 0, 0, 0, 0)
        reader = self._reader()
        for member in self._layout.members(reader, size):
            stem, extension = _split(member.name)
            if extension != "json":
                image = image if _split(image.name)[0] == stem else member
                continue
            reader.seek(member.body)
            found = identity_of(reader.read(member.bytes), member.crc)
            if stem != _split(image.name)[0] or found is None:
                break
            self._names.add(hash(stem))
            self.members += 1
            end = member.end
            if found.get("job_id"):
                self.recovered[f"{found['job_id']}-{found['index']}"] = image.name
        os.ftruncate(self._fd, end)
        return end

    def _reader(self) -> io.BufferedReader:
        """Return what reads the file as it is now; it keeps what it has read, so use it once."""
        return io.BufferedReader(_At(self._fd), READ_BYTES)

    def holds(self, stem: str) -> bool:
        """Whether there is an image of that stem."""
        return hash(stem) in self._names

    def add(self, stem: str, given: Sequence[File], metadata: bytes) -> str:
        """Append the files of one image and its metadata (a JSON map); returns the name of the first file.

        Not synced yet. A stem that is taken gets the next free number, and %counter% in it becomes one.
        Raises DiskError; the shard is as before then.
        """
        stem = self._free(webdataset_stem(stem))
        start = self.bytes
        try:
            for extension, body in given:
                self._append(f"{stem}.{extension}", body)
            crash_point("archive.image_written")
            self._append(f"{stem}.json", [metadata])
        except OSError as error:
            self._cut(start)
            raise system.disk_error("write", self.path, error) from error
        self._names.add(hash(stem))
        self._unsynced.append(hash(stem))
        self.members += 1
        return f"{stem}.{given[0][0]}"

    def _free(self, wanted: str) -> str:
        def numbered(number: int) -> str:
            if COUNTER in wanted:
                return wanted.replace(COUNTER, f"{number:05d}")
            return with_number(f"{wanted}.x", number).rpartition(".")[0]

        if COUNTER not in wanted and not self.holds(wanted):
            return wanted
        return numbered(first_free(f"{self.path}/{wanted}", lambda number: self.holds(numbered(number))))

    def _append(self, name: str, body: Sequence[Buffer]) -> None:
        size = crc = 0
        for buffer in body:
            size += len(buffer)
            crc = zlib.crc32(buffer, crc)
        header, padding = self._layout.header(name, size, crc), self._layout.padding(size)
        self._write([header, *body, padding] if size > SMALL_BYTES else [b"".join((header, *body, padding))])

    def _write(self, parts: Sequence[Buffer]) -> None:
        os.lseek(self._fd, self.bytes, os.SEEK_SET)
        for part in parts:
            files.write_all(self._fd, memoryview(part))
            self.bytes += len(part)

    def _cut(self, size: int) -> None:
        self.bytes = size
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """Put everything on the disk: from here on the members survive.

        Raises DiskError; the members since the last sync are given up then, because a disk that failed once
        may say that it holds what it does not.
        """
        try:
            system.sync_data(self._fd)
        except OSError as error:
            self._names.difference_update(self._unsynced)
            self.members -= len(self._unsynced)
            self._unsynced.clear()
            with contextlib.suppress(OSError):  # the disk is gone: the next opening cuts
                self._cut(self._synced_bytes)
            raise system.disk_error("write", self.path, error) from error
        self._synced_bytes = self.bytes
        self._unsynced.clear()

    def end(self) -> int:
        """Write what makes a whole archive of the members, synced; returns its size. Raises DiskError."""
        try:
            for parts in _grouped(self._layout.ending(self._reader(), self.bytes)):
                self._write([parts])
            system.sync_data(self._fd)
            crash_point("archive.ended")
            return self.bytes
        except OSError as error:
            raise system.disk_error("write", self.path, error) from error

    def publish(self, path: str, output_dir: str) -> str:
        """End the archive and give it its final name, or the next free number; returns its path.

        Raises DiskError and InvalidRequest; the shard can go on then, once it is opened again.
        """
        parts = parts_below(path, output_dir)
        self.end()
        try:
            with Folder.open(output_dir, parts[:-1], create=True, sync=True) as folder:
                name = self._named(folder, parts[-1])
                folder.sync()
            self.close()
        except OSError as error:
            raise system.disk_error("write", path, error) from error
        return os.path.join(os.path.dirname(path), name)

    def _named(self, folder: Folder, name: str) -> str:
        if folder.stat(self._temp) is None:
            raise DiskError(f"{self.path} is not in {folder.path}.", self.path)
        candidate = name
        while True:
            try:
                linked = self._give(folder, candidate)
            except FileExistsError:
                candidate = next_name(candidate)
            else:
                crash_point("archive.linked")
                if linked:
                    folder.unlink(self._temp)
                return candidate

    def _give(self, folder: Folder, name: str) -> bool:
        """Give the shard a name that must not exist; returns whether the temporary one is still there."""
        try:
            folder.link(self._fd, self._temp, name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            folder.rename(self._temp, name)  # exFAT and some network folders have no links
            return False
        return True

    def remove(self) -> str:
        """Remove a shard that holds nothing; returns the name that it has then, "". Raises DiskError."""
        self.close()
        try:
            os.unlink(self.path)
        except OSError as error:
            raise system.disk_error("remove", self.path, error) from error
        return ""

    def close(self) -> None:
        """Close the file; the shard stays under its temporary name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _At(io.RawIOBase):
    """Reads an open file at a position of its own, whatever is written to it meanwhile."""

    def __init__(self, fd: int) -> None:
        self._fd, self._at = fd, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, os.fstat(self._fd).st_size)[whence]
        return self._at

    def readinto(self, into: object) -> int:
        view = memoryview(into)  # type: ignore[arg-type]
        os.lseek(self._fd, self._at, os.SEEK_SET)
        data = os.read(self._fd, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _grouped(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join small parts: one write each would cost more than they do."""
    group, size = [], 0
    for part in parts:
        group.append(part)
        size += len(part)
        if size >= READ_BYTES:
            yield b"".join(group)
            group, size = [], 0
    yield b"".join(group)


def next_name(path: str) -> str:
    """Return the name or path with the next number: `a_00001.tar` becomes `a_00002.tar`."""
    found = _SERIES.fullmatch(path)
    return f"{found[1]}{int(found[2]) + 1:05d}{found[3]}" if found else with_number(path, 1)


def identity_of(metadata: bytes, crc: int = 0) -> dict[str, object] | None:
    """Return what the metadata of a member says about its origin, None if it is not whole.

    It was written last, and a power cut may leave zeros.
    """
    if not metadata.rstrip().endswith(b"}") or (crc and zlib.crc32(metadata) != crc):
        return None
    try:
        found = json.loads(metadata).get(IDENTITY)
    except (ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, dict) else {}


def published_before(path: str, output_dir: str, kind: str, shard_id: str, temp_name: str) -> str | None:
    """Return the path under which a shard was published before a crash, None if it was not.

    A published file whose temporary name is still there loses that. Raises DiskError, InvalidRequest.
    """
    parts = parts_below(path, output_dir)
    try:
        with Folder.open(output_dir, parts[:-1], create=False, sync=False) as folder:
            temp = folder.stat(temp_name)
            if temp is not None and temp.st_nlink < 2:
                return None
            name = parts[-1]
            for _ in range(PUBLISHED_NAMES):
                if folder.stat(name) is None:
                    return None
                found = os.path.join(os.path.dirname(path), name)
                if first_identity(found, kind).get("shard") == shard_id:
                    if temp is not None:
                        folder.unlink(temp_name)
                    return found
                name = next_name(name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise system.disk_error("look at", path, error) from error
    return None


def first_identity(path: str, kind: str) -> dict[str, object]:
    """Return the identity in the first metadata of an archive, {} for another file."""
    layout = LAYOUTS[kind]
    try:
        with open(path, "rb") as file:
            for member in layout.members(file, os.fstat(file.fileno()).st_size):
                if member.name.endswith(".json"):
                    file.seek(member.body)
                    return identity_of(file.read(member.bytes)) or {}
    except OSError:
        return {}
    return {}


def _open(folder: Folder, name: str) -> int:
    """Open a shard for appending. One with two names was published before a crash and stays as it is."""
    fd = folder.open_file(name)
    if os.fstat(fd).st_nlink > 1:
        os.close(fd)
        folder.unlink(name)
        fd = folder.open_file(name)
    return fd


def _split(name: str) -> tuple[str, str]:
    """Return the stem and the extension of a member: the first dot of the last part begins the extension."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension


def webdataset_stem(stem: str) -> str:
    """Return a stem whose last part has no dot: the package takes the first one for the extension."""
    folder, slash, name = stem.rpartition("/")
    return folder + slash + name.replace(".", "_")
