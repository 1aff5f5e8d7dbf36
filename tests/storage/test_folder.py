"""An open folder: nothing lands outside, nothing of others is published or replaced."""

from __future__ import annotations

import errno
import ntpath
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from publishing import TEMP, fail, files, linux_only, posix_only, publish

from luna_farm import system_files
from luna_farm.errors import DiskError
from luna_farm.storage import folder as folder_module
from luna_farm.storage import writer
from luna_farm.storage.folder import Folder


@linux_only
def test_what_another_process_puts_under_the_temporary_name_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(fd: int) -> None:
        (tmp_path / TEMP).unlink()
        (tmp_path / TEMP).write_bytes(b"half of another wor")

    monkeypatch.setattr(Folder, "create_unnamed", fail(errno.EOPNOTSUPP))
    monkeypatch.setattr(writer, "sync_data", slow)
    with pytest.raises(DiskError):
        publish(tmp_path, "x.png")
    assert not (tmp_path / "x.png").exists()


@posix_only
def test_without_names_for_open_files_it_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_OPEN_FILES", "")
    (tmp_path / "x.png").touch()
    publish(tmp_path, "x.png")
    assert files(tmp_path) == {"x.png": b"", "x_00001.png": b"content"}


MANY = """
import sys
from luna_farm.storage import writer
from luna_farm.storage.folder import Folder
out, mine = sys.argv[1:]
for number in range(500):
    data = f"{mine} {number} ".encode() * 50
    published = writer.publish(f"{out}/shots/x.png", [data[:99], data[99:]], output_dir=out,
                               temp_name=writer.temp_name(mine, number), fsync=False)
"""


@posix_only
def test_four_processes_save_five_hundred_each_under_one_name(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", MANY, str(tmp_path), f"p{n}"]) for n in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    found = files(tmp_path)
    assert len(found) == 2000
    assert sorted(found.values()) == sorted(f"p{n} {m} ".encode() * 50 for n in range(4) for m in range(500))
    numbers = {"shots/x.png", *(f"shots/x_{number:05d}.png" for number in range(1, 2000))}
    assert set(found) == numbers


SWAP = """
import ctypes, os, sys
os.chdir(sys.argv[1])
rename = ctypes.CDLL(None, use_errno=True).renameat2
swaps = 0
while swaps < 1000 or not os.path.exists("stop"):
    assert rename(-100, b"out/shots", -100, b"link", 2) == 0  # in one instant
    swaps += 1
"""
ENOUGH = 500


@linux_only
@pytest.mark.parametrize("openat2", [True, False])
@pytest.mark.parametrize("relative", ["shots/x.png", "shots/deep/x.png"])
def test_a_folder_swapped_for_a_link_while_saving_leads_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openat2: bool, relative: str
) -> None:
    if not openat2:
        monkeypatch.setattr(system_files, "_openat2", lambda: None)
    for name in ("out/shots/deep", "outside/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    swapping = subprocess.Popen([sys.executable, "-c", SWAP, str(tmp_path)])
    saved = 0
    errors: list[int] = []
    for attempt in range(100 * ENOUGH):
        if saved >= ENOUGH and len(errors) >= ENOUGH:
            break
        temp = writer.temp_name("swap", attempt)
        try:
            publish(tmp_path / "out", relative, b"x", temp_name=temp, fsync=False)
            saved += 1
        except DiskError as error:
            errors.append(error.errno)
    (tmp_path / "stop").touch()
    assert swapping.wait(60) == 0
    assert files(tmp_path / "outside") == {}
    assert errors, "the swap never came in between: nothing was tried"
    assert set(errors) <= {errno.ELOOP, errno.ENOTDIR}
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["deep"]


# --- Windows' way, tried on any system --------------------------------------------------------------------


def test_by_path_where_folders_cannot_be_held_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "HAS_DIR_FD", False)
    monkeypatch.setattr(folder_module, "_OPEN_FILES", "")
    (tmp_path / "outside").mkdir()
    out = tmp_path / "new/out"
    for number in range(2):
        publish(out, "a/x.png", temp_name=writer.temp_name("j", number))
    assert sorted(files(out)) == ["a/x.png", "a/x_00001.png"]
    (out / "link").symlink_to(tmp_path / "outside")
    (out / "file").touch()
    for relative in ("link/x.png", "file/x.png"):
        with pytest.raises(DiskError, match="a link or a file is where a folder should be"):
            publish(out, relative)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_relative_output_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="not an absolute path") as refused:
        Folder.open("s3:/bucket/x", [], create=True, sync=False)
    assert refused.value.errno == errno.EINVAL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(10)
@pytest.mark.parametrize("output_dir", ["Z:\\out\\x", "Z:\\", "\\\\server\\share\\x"])
def test_a_drive_or_share_that_is_not_there_is_an_error(
    output_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: str, dir_fd: int | None) -> None:
        raise FileNotFoundError(errno.ENOENT, "the device is not there", path)

    windows = SimpleNamespace(
        path=SimpleNamespace(
            isabs=ntpath.isabs, dirname=ntpath.dirname, join=ntpath.join, isdir=lambda _: False
        ),
        sep="\\",
        mkdir=gone,
    )
    monkeypatch.setattr(folder_module, "HAS_DIR_FD", False)
    monkeypatch.setattr(folder_module, "os", windows)
    with pytest.raises(FileNotFoundError, match="not there"):
        Folder.open(output_dir, [], create=True, sync=False)
