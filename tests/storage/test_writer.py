"""Publishing: whole or not at all, under its own name, never over another file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from publishing import TEMP, fail, files, linux_only, posix_only, publish

from luna_farm.errors import DiskError, InvalidRequest
from luna_farm.storage import writer
from luna_farm.storage.folder import Folder
from luna_farm.storage.ways import DECISIONS, Then, Way
from luna_farm.storage.writer import Published

# --- the road ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fsync", [True, False])
def test_a_file_is_whole_and_nothing_lies_beside_it(tmp_path: Path, fsync: bool) -> None:
    published = publish(tmp_path / "new/out", "a/b/x.png", fsync=fsync)
    folder = tmp_path / "new/out/a/b"
    assert published == Published(str(folder / "x.png"), 7)
    assert files(tmp_path) == {"new/out/a/b/x.png": b"content"}
    assert os.stat(published.path).st_nlink == 1


def test_a_file_right_below_the_output_folder_which_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    published = publish(tmp_path / "out", "x.png")
    assert published.path == str(tmp_path / "out/x.png")
    assert files(tmp_path / "real") == {"x.png": b"content"}


@posix_only
def test_the_umask_decides_the_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        published = publish(tmp_path, "a/x.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(published.path).st_mode) == 0o640
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o750


def test_many_buffers_of_all_kinds_and_none(tmp_path: Path) -> None:
    parts: list[writer.Buffer] = [b"", b"a", bytearray(b"bc"), memoryview(b"def")]
    parts *= 700
    how: dict[str, Any] = {"output_dir": str(tmp_path), "fsync": False}
    published = writer.publish(str(tmp_path / "x"), parts, temp_name=TEMP, **how)
    assert published.bytes == 700 * 6
    assert (tmp_path / "x").read_bytes() == b"abcdef" * 700
    empty = writer.publish(str(tmp_path / "y"), [], temp_name=".luna-y.tmp", **how)
    assert (empty.bytes, (tmp_path / "y").read_bytes()) == (0, b"")


@posix_only
def test_a_system_that_takes_a_few_bytes_at_a_time_gets_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "writev", lambda fd, views: os.write(fd, b"".join(views)[:7]))
    fd = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    parts = [memoryview(part) for part in (b"0123", b"456789", b"", b"abcdefghijklmnop")]
    assert writer.write_all(fd, parts) == 26
    monkeypatch.delattr(os, "writev")
    assert writer.write_all(fd, parts) == 26
    os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"".join(parts) * 2


def test_a_name_that_is_taken_gets_the_next_number(tmp_path: Path) -> None:
    for number in range(4):
        publish(tmp_path, "x.png", str(number).encode(), temp_name=writer.temp_name("j", number))
    assert files(tmp_path) == {"x.png": b"0", "x_00001.png": b"1", "x_00002.png": b"2", "x_00003.png": b"3"}


def test_a_link_with_the_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(tmp_path / "target")
    assert publish(tmp_path, "x.png").path == str(tmp_path / "x_00001.png")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    "path", ["/else/x.png", "out/../x.png", "out/a/../x.png", "out/\0", "out/", "out2/x"]
)
def test_a_path_that_is_not_below_is_refused(tmp_path: Path, path: str) -> None:
    how: dict[str, Any] = {"temp_name": TEMP, "fsync": False}
    with pytest.raises(InvalidRequest):
        writer.publish(os.path.join(tmp_path, path), [b"x"], output_dir=str(tmp_path / "out"), **how)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("temp", ["x.tmp", ".luna-x", ".luna-/../x.tmp", ""])
def test_a_temporary_name_of_another_make_is_refused(tmp_path: Path, temp: str) -> None:
    with pytest.raises(InvalidRequest, match="temp_name: "):
        publish(tmp_path, "x.png", temp_name=temp)
    assert files(tmp_path) == {}


@posix_only
def test_a_name_that_the_system_cannot_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="a name that the file system can hold"):
        publish(tmp_path, "\ud800.png")
    assert files(tmp_path) == {}


# --- temporary files of attempts that died -----------------------------------------------------------------


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    writer.remove_temp(str(tmp_path / TEMP), str(tmp_path))
    writer.remove_temp(str(tmp_path / "gone" / TEMP), str(tmp_path))
    writer.remove_temp(str(tmp_path / "gone" / TEMP), str(tmp_path / "gone"))


def test_nothing_is_removed_but_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    for path in (tmp_path / "x.png", tmp_path / "../x.png"):
        with pytest.raises(InvalidRequest):
            writer.remove_temp(str(path), str(tmp_path))
    assert files(tmp_path) == {"x.png": b""}


def test_removing_tells_what_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "unlink", fail(errno.EROFS))
    with pytest.raises(DiskError, match="Cannot remove"):
        writer.remove_temp(str(tmp_path / TEMP), str(tmp_path))


# --- ways to give a name ----------------------------------------------------------------------------------

REFUSED = sorted(number for number, after in DECISIONS["link"].items() if after is Then.HOLD)
NUMBERS = sorted({*errno.errorcode} - {*REFUSED, errno.EEXIST})


def without(patch: pytest.MonkeyPatch, way: Way, number: int = errno.EOPNOTSUPP) -> None:
    """A file system where all ways better than `way` fail with `number`."""
    for at, method in enumerate(("create_unnamed", "link", "rename")):
        if at < way:
            patch.setattr(Folder, method, fail(number))


@linux_only
@pytest.mark.parametrize("way", [Way.LINK, Way.RENAME, Way.CLAIM])
@pytest.mark.parametrize("number", NUMBERS, ids=[errno.errorcode[number] for number in NUMBERS])
def test_where_a_way_is_missing_the_next_one_is_taken_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way, number: int
) -> None:
    without(monkeypatch, way, number)
    (tmp_path / "x.png").write_bytes(b"of another program")
    assert publish(tmp_path, "x.png") == Published(str(tmp_path / "x_00001.png"), 7)
    assert files(tmp_path) == {"x.png": b"of another program", "x_00001.png": b"content"}
    assert writer.way_of(str(tmp_path)) is way
    tried: list[str] = []
    monkeypatch.setattr(Folder, "create_unnamed", lambda self: tried.append("again"))
    assert publish(tmp_path, "y.png").path == str(tmp_path / "y.png")
    assert not tried, "found out once"


@linux_only
def test_a_way_that_stops_working_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "x.png")
    assert writer.way_of(str(tmp_path)) is Way.UNNAMED
    without(monkeypatch, Way.RENAME)
    publish(tmp_path, "x.png")
    assert writer.way_of(str(tmp_path)) is Way.RENAME
    assert sorted(files(tmp_path)) == ["x.png", "x_00001.png"]


def test_of_a_folder_that_is_not_there_no_way_is_known(tmp_path: Path) -> None:
    assert writer.way_of(str(tmp_path / "gone")) is None


@pytest.mark.parametrize("number", REFUSED, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("method", ["create_unnamed", "link"])
def test_a_disk_that_refuses_is_no_missing_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, method: str
) -> None:
    monkeypatch.setattr(Folder, method, fail(number))
    with pytest.raises(DiskError) as caught:
        publish(tmp_path, "x.png")
    assert caught.value.errno == number
    assert (files(tmp_path), writer.way_of(str(tmp_path))) == ({}, None)


@pytest.mark.parametrize("method", ["rename", "replace"])
def test_an_error_of_the_last_way_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    without(monkeypatch, Way.CLAIM if method == "replace" else Way.RENAME)
    monkeypatch.setattr(Folder, method, fail(errno.EIO))
    monkeypatch.setattr(Folder, "replace", fail(errno.EIO))
    with pytest.raises(DiskError, match="Input/output error"):
        publish(tmp_path, "x.png")
    assert files(tmp_path) == {}


@linux_only
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY])
def test_a_file_system_without_sync_is_taken_at_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fdatasync", fail(number))
    monkeypatch.setattr(os, "fsync", fail(number))
    assert publish(tmp_path, "a/x.png").path == str(tmp_path / "a/x.png")


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO])
@pytest.mark.parametrize("way", [Way.UNNAMED, Way.LINK])
def test_a_link_that_was_made_although_the_server_said_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, way: Way
) -> None:
    link = Folder.link
    without(monkeypatch, way)

    def lost_answer(self: Folder, fd: int, source: str, target: str) -> None:
        link(self, fd, source, target)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Folder, "link", lost_answer)
    assert publish(tmp_path, "x.png").path == str(tmp_path / "x.png")
    assert sorted(files(tmp_path)) == ["x.png"]
