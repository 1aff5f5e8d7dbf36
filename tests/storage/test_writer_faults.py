"""Publishing while processes die and disks refuse: one whole file in the end, none by halves, none twice."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from publishing import TEMP, fail, files, noted, posix_only, publish

from luna_farm.errors import DiskError
from luna_farm.storage import writer
from luna_farm.storage.folder import Folder
from luna_farm.storage.ways import Way
from luna_farm.storage.writer import Published

# --- after a crash ----------------------------------------------------------------------------------------

CRASH = """
import errno, sys
from luna_farm.storage import notes, writer
from luna_farm.storage.folder import Folder

def missing(*args):
    raise OSError(errno.EOPNOTSUPP, "no")

out, relative, temp, state, way = sys.argv[1:]
for method in ("create_unnamed", "link", "rename")[:int(way)]:
    setattr(Folder, method, missing)
left = notes.read(f"{state}/1")
kept = notes.Notes(f"{state}/1")
published = writer.publish(f"{out}/{relative}", [b"pic", b"ture" * 1000], output_dir=out, temp_name=temp,
                           fsync=True, noted=left[-1] if left else None,
                           note=lambda note: kept.write(note, sync=False))
print(published.path)
"""
POINTS = ["created", "half_written", "written", "synced", "noted", "claimed", "named", "folder_synced"]


@posix_only
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("way", Way)
def test_killed_anywhere_the_next_try_leaves_one_whole_file(
    tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]], point: str, way: Way
) -> None:
    if point == "claimed" and way is not Way.CLAIM:
        return
    out, state = tmp_path / "out", tmp_path / "state"
    state.mkdir()
    (out / "a").mkdir(parents=True)
    (out / "a/x.png").write_bytes(b"of another program")
    wanted = {"a/x.png": b"of another program", "a/x_00001.png": b"pic" + b"ture" * 1000}
    given = (str(out), "a/x.png", TEMP, str(state), str(int(way)))
    killed = python(CRASH, *given, LUNA_FARM_CRASH=f"writer.{point}")
    assert killed.returncode == -9, killed.stderr
    half = {name: data for name, data in files(out).items() if not name.endswith(".tmp")}
    if point == "claimed":
        assert half.pop("a/x_00001.png") == b""
    assert half in ({"a/x.png": wanted["a/x.png"]}, wanted)
    again = python(CRASH, *given)
    assert again.stdout.strip() == str(out / max(wanted)), again.stderr
    assert files(out) == wanted


@pytest.mark.parametrize("fsync", [True, False])
def test_a_file_published_before_the_crash_is_found_under_another_name(tmp_path: Path, fsync: bool) -> None:
    note = noted(tmp_path, "a/x.png", named=True)
    os.rename(tmp_path / "a/x.png", tmp_path / "a/renamed by the user.png")
    again = publish(tmp_path, "a/x.png", b"other bytes", noted=note, fsync=fsync)
    assert again == Published(str(tmp_path / "a/renamed by the user.png"), 7)
    assert writer.published_before(str(tmp_path / "a/x.png"), str(tmp_path), note) == again
    os.rename(again.path, tmp_path / "moved away.png")
    assert writer.published_before(str(tmp_path / "a/x.png"), str(tmp_path), note) is None
    last = publish(tmp_path, "a/x.png", noted=note)
    assert last.path == str(tmp_path / "a/x.png")


def test_another_file_with_the_same_bytes_is_another_image(tmp_path: Path) -> None:
    """Two equal rejected images of one name: the second meets a worker that dies."""
    publish(tmp_path, "x.png")
    note = noted(tmp_path, "x.png", temp_name=writer.temp_name("job1", 1))
    assert publish(tmp_path, "x.png", noted=note).path == str(tmp_path / "x_00001.png")
    assert files(tmp_path) == {"x.png": b"content", "x_00001.png": b"content"}


def test_without_a_note_a_file_of_its_time_and_content_is_its_own(tmp_path: Path) -> None:
    """The state folder was full, so neither results nor notes were kept, and then all was killed."""
    time_ns = 1_700_000_000_000_001_000
    first = publish(tmp_path, "x.png", time_ns=time_ns)
    again = publish(tmp_path, "x.png", time_ns=time_ns, recovered=True)
    assert again == first
    others = [
        publish(tmp_path, "x.png", time_ns=time_ns + 1000, recovered=True),
        publish(tmp_path, "x.png", b"CONTENT", time_ns=time_ns, recovered=True),
        publish(tmp_path, "x.png", b"longer content", time_ns=time_ns, recovered=True),
        publish(tmp_path, "x.png", time_ns=time_ns),
        publish(tmp_path, "x.png", recovered=True),
    ]
    assert [Path(other.path).name for other in others] == [f"x_{n:05}.png" for n in range(1, 6)]
    assert publish(tmp_path, "y.png", time_ns=time_ns, recovered=True).path == str(tmp_path / "y.png")


def test_an_inode_number_that_is_used_again_is_another_file(tmp_path: Path) -> None:
    note = noted(tmp_path, "x.png")
    (tmp_path / "y.png").write_bytes(b"another")
    found = replace(note, inode=os.stat(tmp_path / "y.png").st_ino)
    assert publish(tmp_path, "x.png", noted=found).path == str(tmp_path / "x.png")


def test_a_folder_that_cannot_be_looked_at_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = noted(tmp_path, "x.png", named=True)
    assert writer.published_before(str(tmp_path / "gone/x.png"), str(tmp_path), note) is None
    monkeypatch.setattr(Folder, "stat", fail(errno.EIO))
    with pytest.raises(DiskError, match="Cannot look at"):
        writer.published_before(str(tmp_path / "x.png"), str(tmp_path), note)


@pytest.mark.parametrize("way", [Way.UNNAMED, Way.LINK])
def test_what_lies_under_the_temporary_name_is_replaced_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    if way is Way.LINK:
        monkeypatch.setattr(Folder, "create_unnamed", fail(errno.EISDIR))
    (tmp_path / "outside").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TEMP).symlink_to(tmp_path / "outside")
    publish(tmp_path / "out", "x.png")
    found = files(tmp_path)
    assert found.pop(f"out/{TEMP}", b"precious") == b"precious"
    assert found == {"outside": b"precious", "out/x.png": b"content"}


# --- disks that refuse ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("size=1m")`: a file system of its own, with these mount options."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("NOT TESTED: a small disk needs Linux and root")
    mounted = tmp_path / "disk"
    mounted.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", mounted], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip("NOT TESTED: this container does not let its root mount a small disk")
        return mounted

    yield mount
    subprocess.run(["umount", mounted], check=False, capture_output=True)


@pytest.mark.parametrize("fsync", [True, False])
def test_a_full_disk_holds_no_half_file_and_takes_it_once_there_is_room(
    small_disk: Callable[[str], Path], fsync: bool
) -> None:
    disk = small_disk("size=1m")
    (disk / "filler").write_bytes(bytes(700_000))
    with pytest.raises(DiskError, match="No space left on device") as caught:
        publish(disk, "a/x.png", bytes(500_000), fsync=fsync)
    assert (caught.value.errno, caught.value.path) == (errno.ENOSPC, str(disk / "a/x.png"))
    assert list(files(disk)) == ["filler"]
    (disk / "filler").unlink()
    assert publish(disk, "a/x.png", bytes(500_000), fsync=fsync).bytes == 500_000


@pytest.mark.parametrize("inodes", [2, 3])
def test_without_inodes_nothing_is_left_behind(small_disk: Callable[[str], Path], inodes: int) -> None:
    disk = small_disk(f"size=1m,nr_inodes={inodes}")
    (disk / "filler").touch()
    with pytest.raises(DiskError) as caught:
        publish(disk, "a/x.png")
    assert caught.value.errno == errno.ENOSPC
    assert list(files(disk)) == ["filler"]


def test_a_disk_that_became_read_only(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m")
    (disk / "a").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for relative in ("a/x.png", "new/x.png"):
        with pytest.raises(DiskError, match="Read-only file system"):
            publish(disk, relative)


OTHER_USER = """
import os, sys
from luna_farm.errors import DiskError
from luna_farm import system_files
from luna_farm.storage import writer
out = sys.argv[1]
system_files._openat2()  # loads a library, which the other user may not be allowed to read
os.setgid(65534)
os.setuid(65534)
for folder in ("of root", "of nobody"):
    try:
        writer.publish(f"{out}/{folder}/x.png", [b"x"], output_dir=out, temp_name=".luna-x.tmp", fsync=True)
        print("saved")
    except DiskError as error:
        print(error.errno)
"""


@posix_only
def test_a_folder_of_another_user(python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can become another user")
    with tempfile.TemporaryDirectory() as out:  # tmp_path lets nobody through
        os.chmod(out, 0o755)
        os.mkdir(f"{out}/of root", 0o755)
        os.mkdir(f"{out}/of nobody")
        os.chown(f"{out}/of nobody", 65534, 65534)
        assert python(OTHER_USER, out).stdout.split() == [str(errno.EACCES), "saved"]
        assert not os.listdir(f"{out}/of root")


@pytest.mark.parametrize("broken", ["sync_data", "write_all"])
def test_after_a_failed_sync_nothing_is_there_and_it_was_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    asked = []

    def failing(*args: object) -> None:
        asked.append(args)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writer, broken, failing)
    with pytest.raises(DiskError, match="Input/output error"):
        publish(tmp_path, "x.png")
    assert len(asked) == 1
    assert files(tmp_path) == {}


def test_a_failed_sync_of_the_folder_takes_the_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "sync", fail(errno.EIO))
    with pytest.raises(DiskError):
        publish(tmp_path, "x.png")
    assert files(tmp_path) == {}


def test_a_network_folder_that_is_full_says_so_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "dup", fail(errno.EDQUOT))
    with pytest.raises(DiskError, match="quota"):
        publish(tmp_path, "x.png", fsync=False)
    assert files(tmp_path) == {}


def test_an_error_that_cannot_be_cleaned_up_is_still_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "sync_data", fail(errno.EIO))
    monkeypatch.setattr(Folder, "unlink", fail(errno.EROFS))
    with pytest.raises(DiskError, match="Input/output error"):
        publish(tmp_path, "x.png")
