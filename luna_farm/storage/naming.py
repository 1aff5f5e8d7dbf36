"""Gives a file its name in a way that never replaces another file, and takes it back after an error.

Before each try the name is noted; a note that no longer holds is withdrawn. This module must never leave it
open whether a file has its name without a note that says so.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from luna_farm.core.filenames import with_number
from luna_farm.core.messages import Note
from luna_farm.storage.folder import Folder
from luna_farm.storage.names import first_free
from luna_farm.storage.ways import Then, Way, then
from luna_farm.testing.faults import crash_point


@dataclass(slots=True)  # not frozen, here and below: that takes three times as long to make
class File:
    """What is published: its wanted name, its temporary one, its content, and how careful to be."""

    name: str
    temp: str
    views: list[memoryview]
    fsync: bool
    note: Callable[[Note], None] | None
    time_ns: int = 0
    claimed: str = ""
    """The name that an attempt before took by an empty file and died."""
    noted: Note | None = None
    """What was noted last of it. After an error: the file may have this name nevertheless."""


@dataclass(slots=True)
class Named:
    """A file under its final name."""

    name: str
    size: int


class NotThisWay(Exception):
    """This file system does not give names in this way."""


def give_name(folder: Folder, fd: int, file: File, way: Way, size: int) -> tuple[Named, Way]:
    """Give the file, open as `fd`, its name or the next free number behind it; return the way that worked."""
    candidate = file.claimed or file.name
    while True:
        if file.note:
            status = os.fstat(fd)
            moved = way > Way.LINK
            note = Note(file.temp, candidate, status.st_ino, size, status.st_mtime_ns, moved)
            file.note(note)
            file.noted = note
            crash_point("writer.noted")
        if way > Way.LINK and not folder.is_file(
            file.temp, fd
        ):  # another process put a file of its own there
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.temp)
        try:
            _give(folder, fd, file, candidate, way)
            return Named(candidate, size), way
        except FileExistsError:
            if folder.is_file(candidate, fd):  # another way was late
                folder.discard(file.temp)
                return Named(candidate, size), way
            number = first_free(
                folder.path + file.name, lambda n: folder.stat(with_number(file.name, n)) is not None
            )
            candidate = with_number(file.name, number)
        except OSError as error:
            if _was_given(folder, fd, file, candidate, way):
                return Named(candidate, size), way
            if then(_CALLS[way], error) is not Then.NEXT_WAY:
                raise
            if way is Way.UNNAMED:
                raise NotThisWay from error
            way = Way(way + 1)


def _was_given(folder: Folder, fd: int, file: File, name: str, way: Way) -> bool:
    """Whether a call that failed did its work: on NFS an answer can get lost, and the repetition fails."""
    if folder.is_file(name, fd):
        return True
    # Inode numbers are no proof where files are renamed, but then the temporary name is gone.
    return way > Way.LINK and folder.stat(file.temp) is None and folder.stat(name) is not None


_CALLS = {
    Way.UNNAMED: "link",
    Way.LINK: "link",
    Way.RENAME: "rename to a free name",
    Way.CLAIM: "rename",
}
"""The call of `DECISIONS` that gives the name, in each way."""


def _give(folder: Folder, fd: int, file: File, name: str, way: Way) -> None:
    """Give one name in one way. Raises FileExistsError if it is taken."""
    if way <= Way.LINK:
        try:
            folder.link(fd, file.temp, name)
        except FileExistsError:
            if not folder.is_file(name, fd):  # else it was done, see above
                raise
    elif way is Way.RENAME:
        folder.rename(file.temp, name)
    else:
        _claim(folder, file, name)


def _claim(folder: Folder, file: File, name: str) -> None:
    """Take the name by an empty file, and rename the file over that."""
    if name != file.claimed:
        os.close(folder.create(name))
        crash_point("writer.claimed")
    try:
        folder.replace(file.temp, name)
        return
    except OSError as error:
        if folder.stat(file.temp) is None:  # it was done
            return
        folder.unlink(name)
        if then("rename over an empty file", error) is not Then.NEXT_WAY:
            raise
    try:
        folder.replace(file.temp, name)  # this file system replaces nothing, as it has just shown
    except OSError as error:
        if folder.stat(name) is None:
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error


def take_back(folder: Folder, fd: int, file: File, named: Named | None) -> None:
    """Remove the name after an error. What is not there for certain is noted no more: a successor must not
    take a file of another program for it."""
    left = True
    with suppress(OSError):
        left = _may_have_name(folder, fd, file, named)
        if file.claimed and (status := folder.stat(file.claimed)) and not status.st_size:
            folder.unlink(file.claimed)
    if left or not file.noted:
        return
    if file.note:
        file.note(file.noted.withdrawn())
    file.noted = None


def _may_have_name(folder: Folder, fd: int, file: File, named: Named | None) -> bool:
    """Whether the open file may have its final name, although that was taken back if possible."""
    name = named.name if named else file.noted.name if file.noted else ""
    if name and folder.is_file(name, fd):
        folder.unlink(name)
        return False
    moved = file.noted is not None and file.noted.moved
    return bool(named) or (moved and folder.stat(file.temp) is None)
