"""Folders opened without following links, names given without replacing: each call and its stand-in."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from luna_farm import system_files

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: only Linux has such calls")
posix_only = pytest.mark.skipif(os.name == "nt", reason="NOT TESTED: Windows has no such calls")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """An open folder that holds a/b, a file, a link that leads out and one that stays."""
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/file").write_bytes(b"x")
    (tmp_path / "root/out").symlink_to(tmp_path)
    (tmp_path / "root/in").symlink_to("a")
    fd = os.open(tmp_path / "root", system_files.ROOT_FLAGS)
    yield fd
    os.close(fd)


@pytest.fixture(params=["openat2", "walk", "forbidden"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to open a folder: in one call, by hand, and by hand because the call is not allowed."""
    if request.param == "walk":
        monkeypatch.setattr(system_files, "_openat2", lambda: None)
    elif request.param == "forbidden":
        monkeypatch.setattr(system_files, "_openat2", lambda: lambda fd, relative: None)
    return str(request.param)


@posix_only
@pytest.mark.usefixtures("way")
def test_a_folder_below_is_opened(root: int, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    fd = system_files.open_folder_beneath(root, ["a", "b"])
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "root/a/b"))
    assert not os.get_inheritable(fd)
    os.close(fd)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


@posix_only
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("parts", [["out"], ["in"], ["in", "b"], ["out", "root"], ["file"], ["file", "x"]])
def test_links_and_files_are_refused(root: int, parts: list[str]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        system_files.open_folder_beneath(root, parts)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)


@posix_only
@pytest.mark.usefixtures("way")
def test_what_is_missing_is_missing(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        system_files.open_folder_beneath(root, ["a", "none", "x"])


@posix_only
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("parts", [[".."], ["a", "..", ".."], ["a", "..", "a"]])
def test_there_is_no_way_up(root: int, parts: list[str]) -> None:
    with pytest.raises(OSError, match="not below the folder"):
        system_files.open_folder_beneath(root, parts)


@linux_only
def test_the_kernel_itself_refuses_to_leave(root: int) -> None:
    openat2 = system_files._openat2()
    assert openat2 is not None
    assert openat2(root, b"..") is None


def test_elsewhere_there_is_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert system_files._openat2.__wrapped__() is None


@linux_only
def test_a_name_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path, system_files.ROOT_FLAGS)
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    system_files.rename_no_replace("one", "new", fd)
    with pytest.raises(FileExistsError):
        system_files.rename_no_replace("two", "new", fd)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"new": "one", "two": "two"}
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **named: object())
    with pytest.raises(OSError, match=r"[Ff]unction not implemented"):
        system_files.rename_no_replace("two", "three", fd)
    os.close(fd)


def test_on_windows_a_plain_rename_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    (tmp_path / "one").touch()
    system_files.rename_no_replace(str(tmp_path / "one"), str(tmp_path / "two"), None)
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_what_a_real_folder_is(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert system_files.is_real_folder(os.lstat(tmp_path))
    assert not system_files.is_real_folder(os.lstat(tmp_path / "link"))
