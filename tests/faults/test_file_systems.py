"""File systems without hard links, by FUSE: nothing is replaced, nothing is seen half written, and `doctor`
says how files get their names there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from measured import LONG, PATIENCE_S, Figures

from luna_farm.cli import checks_storage
from luna_farm.core.messages import Note
from luna_farm.errors import DiskError
from luna_farm.storage import writer
from luna_farm.storage.ways import DECISIONS, Way

SAVES = 500 if LONG else 60
WRITERS = 4
CONTENT = 20_000
LINKLESS = Path(__file__).with_name("linkless.py")
LIBRARIES = {"libfuse 2": "libfuse.so.2", "libfuse 3": "libfuse3.so.3"}
WRITER = f"""
import sys
from luna_farm.storage import writer
out, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for n in range(count):
    content = f"{{who}} {{n}}\\n".encode().ljust({CONTENT}, b".")
    temp = writer.temp_name(who, n)
    done = writer.publish(f"{{out}}/a.png", [content], output_dir=out, temp_name=temp, fsync=False)
    print(done.path)
"""


class Disk:
    """A mounted file system. `refuse("rename", number)`: from now on that operation fails with this error."""

    def __init__(self, folder: Path, errno_file: Path) -> None:
        self.folder = folder
        self._errno_file = errno_file

    def refuse(self, operation: str, number: int) -> None:
        new = self._errno_file.with_suffix(".new")
        new.write_text(f"{operation} {number}")
        new.replace(self._errno_file)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Disk]]:
    """`disk("exFAT")`, `disk("NTFS")`, `disk("libfuse 2")`: mounted until the test is over."""
    folder, image, errno_file = tmp_path / "disk", tmp_path / "image", tmp_path / "errno"
    servers: list[subprocess.Popen[bytes]] = []
    loops: list[str] = []
    monkeypatch.setattr(writer, "_ways", {})  # the next mount may have the device number of the last one
    errno_file.write_text(f"link {errno.EPERM}")

    def start(command: list[str | Path], **environ: str) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        servers.append(subprocess.Popen(command, env={**os.environ, **environ}, **quiet))
        end = time.monotonic() + PATIENCE_S
        while not os.path.ismount(folder):
            if servers[-1].poll() is not None or time.monotonic() > end:
                pytest.skip(f"NOT TESTED: {command[0]} does not mount here")
            time.sleep(0.01)

    def make(kind: str) -> Disk:
        if sys.platform != "linux" or os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK):
            pytest.skip("NOT TESTED: file systems by FUSE need Linux, root and /dev/fuse")
        folder.mkdir()
        if kind in LIBRARIES:
            pytest.importorskip(
                "mfusepy", reason="NOT TESTED: mfusepy is not installed", exc_type=ImportError
            )
            (tmp_path / "backing").mkdir()
            served = [sys.executable, LINKLESS, tmp_path / "backing", folder, errno_file]
            start(served, FUSE_LIBRARY_PATH=LIBRARIES[kind])
            return Disk(folder, errno_file)
        programs = {"exFAT": ("mkfs.exfat", "mount.exfat-fuse"), "NTFS": ("mkntfs", "ntfs-3g")}[kind]
        if not all(map(shutil.which, programs)):
            pytest.skip(
                f"NOT TESTED: {' and '.join(programs)} are not installed (exfatprogs, exfat-fuse, ntfs-3g)"
            )
        with image.open("wb") as file:
            file.truncate(256 << 20)
        make_it = [programs[0], *(["-F", "-q", "-f"] if kind == "NTFS" else []), image]
        subprocess.run(make_it, check=True, capture_output=True)
        start(
            [programs[1], *(["-d"] if kind == "exFAT" else ["-o", "no_detach"]), loop_device(image), folder]
        )
        return Disk(folder, errno_file)

    def loop_device(image: Path) -> str:
        command = ["losetup", "--find", "--show", image]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"NOT TESTED: no loop device: {done.stderr.strip()}")
        loops.append(done.stdout.strip())
        return loops[-1]

    yield make
    subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
    for server in servers:
        server.wait(timeout=PATIENCE_S)
    for loop in loops:
        subprocess.run(["losetup", "--detach", loop], check=False, capture_output=True)


def writers(out: Path) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(out), f"writer{number}", str(SAVES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(WRITERS)
    ]


def half_files(out: Path) -> int:
    """How many files with a final name have a part of their content. An empty one has only taken its name."""
    sizes = []
    for entry in os.scandir(out):
        if not entry.name.startswith("."):
            try:
                sizes.append(entry.stat().st_size)
            except FileNotFoundError:
                continue
    return sum(size not in (0, CONTENT) for size in sizes)


WAYS = {
    "exFAT": Way.CLAIM,
    "NTFS": Way.LINK,
    "libfuse 2": Way.CLAIM,
    "libfuse 3": Way.RENAME,
}


@pytest.mark.parametrize("kind", WAYS)
def test_4_processes_under_one_name(kind: str, disk: Callable[[str], Disk], figures: Figures) -> None:
    out = disk(kind).folder / "out"
    out.mkdir()
    processes = writers(out)
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    seen_half = 0
    while any(process.poll() is None for process in processes):
        seen_half += half_files(out)
    told = [process.communicate()[0].split() for process in processes]
    contents = [path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")]
    heads = {content.split(b"\n")[0].decode() for content in contents if len(content) == CONTENT}
    figures.none(
        "names",
        f"{WRITERS} processes x {SAVES} under one name, {kind} by FUSE",
        files=len(contents),
        half_files=sum(len(content) != CONTENT for content in contents) + seen_half,
        overwritten=WRITERS * SAVES - len(heads),
        duplicate=len(contents) - len(heads),
        told_wrong=sum(map(len, told)) - len({path for paths in told for path in paths}),
        stray=sum(path.name.startswith(".") for path in out.iterdir()),
    )
    assert len(contents) == WRITERS * SAVES


@pytest.mark.parametrize("kind", WAYS)
def test_doctor_names_the_way_and_leaves_nothing(kind: str, disk: Callable[[str], Disk]) -> None:
    folder = disk(kind).folder
    before = sorted(os.listdir(folder))
    place = checks_storage.look(folder)
    assert place.way is WAYS[kind]
    assert sorted(os.listdir(folder)) == before


NUMBERS = sorted({*errno.errorcode} - {number for number in DECISIONS["link"] if number})


@pytest.mark.parametrize("kind", LIBRARIES)
def test_whatever_error_a_missing_link_gives(
    kind: str, disk: Callable[[str], Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = disk(kind)
    out = mounted.folder
    for number in NUMBERS:
        monkeypatch.setattr(writer, "_ways", {})
        mounted.refuse("link", number)
        name = f"{out}/{number}.png"
        for content in (b"first", b"second"):
            writer.publish(
                name, [content], output_dir=str(out), temp_name=writer.temp_name("job", number), fsync=True
            )
        assert writer.way_of(str(out)) is WAYS[kind], errno.errorcode[number]
        second = Path(f"{out}/{number}_00001.png")
        assert (Path(name).read_bytes(), second.read_bytes()) == (b"first", b"second"), errno.errorcode[
            number
        ]
    assert not list(out.glob(".*"))


class Attempts:
    """One image on a disk, published again after each failure, as a worker does it."""

    def __init__(self, out: Path, number: int) -> None:
        self.out, self._number = out, number
        self.noted: Note | None = None

    def attempt(self) -> int:
        """Return the error, 0 once it is published."""
        temp = writer.temp_name("job", self._number)
        name = f"{self.out}/{self._number}.png"
        given = {"output_dir": str(self.out), "temp_name": temp, "fsync": True, "note": lambda note: None}
        try:
            self.path = writer.publish(name, [b"whole"], noted=self.noted, **given).path
        except DiskError as error:
            self.noted = Note.from_map(error.noted[temp]) if error.noted else None
            return error.errno
        return 0


SAVED_THOUGH = {"utimens", "rename_over"}
"""Operations whose errors, whatever they are, cost nothing."""
NO_CALL = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}
"""Errors of a sync that say that there is none. Of ENOSYS the kernel asks no second time."""
SYNCED_THOUGH = {
    "fsync": NO_CALL | {errno.EACCES, errno.EPERM},
    "fsyncdir": NO_CALL | {errno.EACCES, errno.EPERM},
}
TRIED = sorted(
    {
        *(errno.EACCES, errno.EPERM, errno.EIO, errno.EXDEV, errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP),
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EBUSY, errno.EMLINK, errno.ETIMEDOUT),
        *(
            errno.ENOTEMPTY,
            errno.EISDIR,
            errno.ESTALE,
            errno.EFBIG,
            errno.ENXIO,
            errno.ENODEV,
            errno.ENOTCONN,
        ),
    }
)


@pytest.mark.parametrize(
    "operation", ["rename", "rename_over", "utimens", "fsync", "fsyncdir", "flush", "create", "write"]
)
@pytest.mark.parametrize("kind", LIBRARIES)
def test_an_operation_that_fails_holds_the_image_or_costs_nothing(
    kind: str, operation: str, disk: Callable[[str], Disk], monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    mounted = disk(kind)
    held = saved = 0
    for number in TRIED:
        monkeypatch.setattr(writer, "_ways", {})
        out = mounted.folder / str(number)
        out.mkdir()
        image = Attempts(out, number)
        mounted.refuse(operation, number)
        error = image.attempt()
        name = errno.errorcode[number]
        may_be_saved = operation in SAVED_THOUGH or number in SYNCED_THOUGH.get(operation, ())
        if operation == "rename_over" and error:  # one that says nothing about replacing
            may_be_saved = number in NO_CALL | {errno.EACCES, errno.EPERM, errno.ENOTEMPTY}
        assert (error == 0) is may_be_saved, (name, error)
        held, saved = held + (error != 0), saved + (error == 0)
        if error:
            assert os.listdir(out) == [], name
            mounted.refuse("link", errno.EPERM)
            assert image.attempt() == 0, name
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {f"{number}.png": b"whole"}, name
    what = f"{operation} failing with each of {len(TRIED)} errors, {kind} by FUSE"
    figures.none("names", what, held_then_saved=held, saved_at_once=saved, lost=0, twice=0, stray=0)
