"""Every error of every call on the way of a file to its name: what the table says happens, and in the end
there is exactly one whole file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from publishing import TEMP, files, linux_only, publish

from luna_farm.core.messages import Note
from luna_farm.errors import DiskError
from luna_farm.storage import folder as folder_module
from luna_farm.storage import writer
from luna_farm.storage.folder import Folder
from luna_farm.storage.ways import DECISIONS, OTHER, Then, Way

pytestmark = linux_only

NAMED = {number for decisions in DECISIONS.values() for number in decisions if number != OTHER}
OTHERS = {
    *(
        errno.EIO,
        errno.EINTR,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.ENOENT,
        errno.EISDIR,
        errno.ENODEV,
        errno.ENXIO,
    ),
    *(errno.EBADF, errno.EMLINK, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN, errno.ETXTBSY),
}
"""No row of the table names these, and file systems do return them."""
ERRORS = sorted(NAMED | OTHERS)
UNNAMED = getattr(os, "O_TMPFILE", 0)


def _opens(kind: str) -> Callable[..., bool]:
    def opens(path: object, flags: int, *args: object, **named: object) -> bool:
        if UNNAMED and flags & UNNAMED == UNNAMED:
            return kind == "open unnamed"
        if flags & os.O_DIRECTORY:
            return kind == "open folder"
        return kind == "open" and bool(flags & os.O_EXCL) and str(path).startswith(".luna-")

    return opens


def _always(*args: object, **named: object) -> bool:
    return True


def _is_final(source: object, target: object, *args: object, **named: object) -> bool:
    return not str(target).startswith(".")


CALLS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "open folder": (os, "open", _opens("open folder")),
    "mkdir": (os, "mkdir", _always),
    "open unnamed": (os, "open", _opens("open unnamed")),
    "open": (os, "open", _opens("open")),
    "write": (os, "writev", _always),
    "utimens": (os, "utime", _always),
    "fsync": (os, "fdatasync", _always),
    "close": (os, "dup", _always),
    "link": (os, "link", _always),
    "rename to a free name": (folder_module, "rename_no_replace", _always),
    "rename over an empty file": (os, "replace", _is_final),
    "fsync folder": (os, "fsync", _always),
    "unlink": (os, "unlink", _always),
}
"""Call of the table -> the function that makes it, and whether a call of that is this one. `dup` stands for
the close that is asked whether the disk is full."""
NEEDS = {"open": Way.LINK, "rename to a free name": Way.RENAME, "rename over an empty file": Way.CLAIM}
"""A way on which the call is made."""


class Disk:
    """A file system on which a call fails with `number`, so many times; `done`: it does its work first."""

    def __init__(self, call: str, number: int, times: int, done: bool) -> None:
        self.call, self.number, self.left, self.done = call, number, times, done
        self.failed = 0

    def wrap(self, real: Callable[..., Any], is_it: Callable[..., bool]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            if self.left <= 0 or not is_it(*args, **named):
                return real(*args, **named)
            self.left -= 1
            self.failed += 1
            if self.done:
                real(*args, **named)
            raise OSError(self.number, os.strerror(self.number), *args[:1])

        return wrapped


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, call: str, number: int, times: int = 1, *, done: bool = False
) -> Iterator[Disk]:
    disk = Disk(call, number, times, done)
    owner, name, is_it = CALLS[call]
    with monkeypatch.context() as patch:
        writer._ways.clear()
        for at, method in enumerate(("create_unnamed", "link", "rename")):
            if at < NEEDS.get(call, Way.UNNAMED):
                patch.setattr(Folder, method, missing)
        wrapped = disk.wrap(getattr(owner, name), is_it)
        patch.setattr(owner, name, wrapped)
        patch.setattr(os, "supports_fd", {*os.supports_fd, wrapped})
        yield disk


def missing(*args: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "this file system has no such call")


class Image:
    """An image that is published as a worker does it: an attempt that fails is followed by another one."""

    def __init__(self, root: Path) -> None:
        self.root, self.noted = root, None
        self.notes: list[Note] = []

    def attempt(self, name: str = "a/x.png") -> DiskError | None:
        try:
            self.path = publish(
                self.root, name, b"whole", note=self.notes.append, noted=self.noted, fsync=True
            ).path
        except DiskError as error:
            self.noted = Note.from_map(error.noted[TEMP]) if error.noted else None
            return error
        return None


def expected(call: str, number: int) -> Then:
    return DECISIONS[call].get(number, DECISIONS[call][OTHER])


def clean(call: str, after: Then, found: dict[str, bytes]) -> None:
    """One whole file, and nothing beside it but a temporary name that could not be removed."""
    temps = [name for name in found if Path(name).name.startswith(".luna-")]
    if call != "unlink":
        assert not temps
    assert [data for name, data in found.items() if name not in temps] == [b"whole"]


@pytest.mark.parametrize("call", CALLS)
def test_each_error_has_the_decision_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fired = 0
    for number in ERRORS:
        image = Image(tmp_path / str(number))
        if call != "mkdir":
            (image.root / "a").mkdir(parents=True)
        with failing(monkeypatch, call, number) as disk:
            error = image.attempt()
        fired += disk.failed
        after = expected(call, number)
        name = errno.errorcode[number]
        if after is Then.HOLD or after is Then.TRY_EMPTY:  # an empty file can be synced: the call fails once
            assert error is not None, name
            assert error.errno == number or call == "open folder", (name, error.errno)
            assert files(image.root) == {}, name
            assert image.attempt() is None
        elif call == "mkdir" and after is Then.GO_ON and error is not None:
            assert image.attempt() is None  # said to be there, and is not
        else:
            assert error is None, name
        clean(call, after, files(image.root))
    assert fired >= len(ERRORS) or call == "unlink", "the error was met"


@pytest.mark.parametrize(
    "call", ["link", "rename to a free name", "rename over an empty file", "fsync folder"]
)
def test_what_was_done_although_the_answer_was_an_error_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for number in ERRORS:
        image = Image(tmp_path / str(number))
        with failing(monkeypatch, call, number, done=True) as disk:
            attempts = 1
            while image.attempt() is not None:
                attempts += 1
        assert (disk.failed, attempts <= 2) == (1, True), errno.errorcode[number]
        clean(call, expected(call, number), files(image.root))


@pytest.mark.parametrize("way", Way)
def test_a_disk_that_became_read_only_right_after_the_name_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """The folder cannot be synced, and the name cannot be taken back: the next attempt finds it."""
    image = Image(tmp_path / "out")
    monkeypatch.setitem(NEEDS, "fsync folder", way)
    (image.root / "a").mkdir(parents=True)
    with failing(monkeypatch, "fsync folder", errno.EIO):
        monkeypatch.setattr(
            folder_module.os, "unlink", Disk("unlink", errno.EROFS, 9, False).wrap(os.unlink, _always)
        )
        assert image.attempt() is not None
        monkeypatch.undo()
    assert image.noted is not None
    assert image.attempt() is None
    assert image.path == str(image.root / "a/x.png")
    assert files(image.root) == {"a/x.png": b"whole"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM], ids=errno.errorcode.get)
def test_a_file_system_that_permits_no_sync_is_taken_at_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    image = Image(tmp_path)
    with failing(monkeypatch, "fsync", number, 99) as disk:
        assert image.attempt() is None
    assert disk.failed >= 2, "an empty file was tried as well"
    assert files(tmp_path) == {"a/x.png": b"whole"}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EEXIST, errno.EACCES], ids=errno.errorcode.get)
def test_where_a_rename_replaces_nothing_the_name_is_free_when_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """SFTP servers without an extension: no links, and a rename over a file is refused."""
    real = os.replace

    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if os.path.lexists(tmp_path / "a" / target):
            raise OSError(number, os.strerror(number))
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "replace", rename)
    for method in ("create_unnamed", "link", "rename"):
        monkeypatch.setattr(Folder, method, missing)
    for content in (b"first", b"second"):
        publish(tmp_path, "a/x.png", content)
    assert files(tmp_path) == {"a/x.png": b"first", "a/x_00001.png": b"second"}

    def taken(source: str, target: str, **dirs: int) -> None:
        """Another program takes the name between the two."""
        path = tmp_path / "a" / target
        if target == "y.png" and not path.exists():
            path.write_bytes(b"of another program")
        rename(source, target, **dirs)

    monkeypatch.setattr(os, "replace", taken)
    assert publish(tmp_path, "a/y.png").path == str(tmp_path / "a/y_00001.png")
    assert files(tmp_path)["a/y.png"] == b"of another program"


def test_a_worse_way_is_left_once_the_better_one_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "link", missing)
        publish(tmp_path, "x.png")
    assert writer.way_of(str(tmp_path)) is Way.RENAME
    publish(tmp_path, "y.png")
    assert writer.way_of(str(tmp_path)) is Way.RENAME, "not tried for each file"
    monkeypatch.setattr(writer, "WAY_FRESH_S", 0.0)
    publish(tmp_path, "z.png")
    assert writer.way_of(str(tmp_path)) is Way.UNNAMED


def test_an_empty_file_that_a_crash_left_goes_when_the_next_attempt_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").touch()
    noted = Note(TEMP, "x.png", 1, 5, 1, True)
    for method in ("create_unnamed", "link", "rename"):
        monkeypatch.setattr(Folder, method, missing)
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", Disk("write", errno.ENOSPC, 1, False).wrap(os.writev, _always))
        with pytest.raises(DiskError):
            publish(tmp_path, "a/x.png", b"whole", noted=noted)
    assert files(tmp_path) == {}


def test_each_call_of_the_table_is_tested() -> None:
    elsewhere = {"openat2", "stat", "rename", "close at the end", "statvfs"}
    assert DECISIONS.keys() == {*CALLS, *elsewhere}
    assert all(OTHER in decisions for decisions in DECISIONS.values())
