"""Real disks that are small, without inodes, read-only or of another user: held, and saved in the end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images import Album, shows, whole
from measured import Figures
from PIL import Image
from running_farm import IMPORTED_FROM, RunningFarm, Start, until

from luna_farm.errors import FarmBusy
from luna_farm.supervisor.disks import STILL_THERE_S
from luna_farm_client import FarmClient, Output, SaveImage, SaveRequest

ROW = "disks"
NOBODY = 65534
SIZE = (300, 300)
"""Of noise: 270 KB that nothing makes smaller."""


def noise(one: RunningFarm, folder: Path, client: FarmClient, count: int) -> Album:
    album = Album(folder, SIZE, noisy=True)
    for _ in range(count):
        album.add(client)
    return album


def failing(client: FarmClient, folder: Path) -> list[str]:
    """Why the status says that the folder fails."""
    rows = client.status()["folders"]
    return [row["error"] for row in rows if row["state"] == "failing" and Path(row["path"]) == folder]


def refuse_and_come_back(
    one: RunningFarm, folder: Path, back: Callable[[], object], jobs: int = 6
) -> tuple[dict[str, int], str]:
    """Save into a folder that refuses, see that it is told, have it come `back`, see that all is saved."""
    with one.client() as client:
        album = noise(one, folder, client, jobs)
        (error,) = until(lambda: failing(client, folder), "the status names the folder")
        told = album.add(client).receipt.warnings
        assert any("cannot be written now" in warning for warning in told)
        held = [i for p in album.promised for i in client.job(p.receipt.job_id).images if i.state == "held"]
        assert held
        assert all(whole(folder)), "half a file"
        back()
        reports = album.wait(client)
    assert one.stop() == 0
    assert "can be written again" in one.log_text()
    return album.count(reports), error


@pytest.mark.parametrize("fsync", ["true", "false"])
def test_a_disk_of_1_mb(farm: Start, figures: Figures, tmpfs: Callable[[str], Path], fsync: str) -> None:
    disk = tmpfs("size=1m")
    one = farm(fsync=fsync)
    count, error = refuse_and_come_back(
        one, disk, lambda: subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
    )
    assert "No space left on device" in error
    figures.none(ROW, f"1 MB tmpfs, fsync {fsync}", **count)


def test_a_small_ext4_that_is_full(farm: Start, figures: Figures, ext4: Callable[..., Path]) -> None:
    disk = ext4(8)
    filler = disk / "filler"
    with filler.open("wb") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        os.posix_fallocate(file.fileno(), 0, free - 600_000)
    one = farm()
    count, error = refuse_and_come_back(one, disk, filler.unlink)
    assert "No space left on device" in error
    figures.none(ROW, "8 MB ext4 in a file", **count)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_no_inodes(
    farm: Start, figures: Figures, tmpfs: Callable[[str], Path], ext4: Callable[..., Path], kind: str
) -> None:
    disk = tmpfs("size=16m,nr_inodes=20") if kind == "tmpfs" else ext4(8, inodes=32)
    fillers = []
    try:
        while True:
            fillers.append(disk / f"filler-{len(fillers)}")
            fillers[-1].touch()
    except OSError:
        fillers.pop()
    fillers.pop().unlink()
    one = farm()
    count, error = refuse_and_come_back(one, disk, lambda: [path.unlink() for path in fillers])
    assert "inodes" in error
    figures.none(ROW, f"no inodes, {kind}", **count)


def test_a_disk_that_becomes_read_only(farm: Start, figures: Figures, tmpfs: Callable[[str], Path]) -> None:
    disk = tmpfs("size=16m,ro")
    count, error = refuse_and_come_back(
        farm(), disk, lambda: subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    )
    assert "read-only" in error
    figures.none(ROW, "read-only", **count)


@pytest.fixture
def without_rights() -> Iterator[tuple[RunningFarm, str]]:
    """A farm of the user nobody, or of a root without its rights where nobody may not run this Python."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root on Linux can run a farm as a user with fewer rights")
    with tempfile.TemporaryDirectory() as home:  # the folders of pytest are for one user only
        os.chown(home, NOBODY, NOBODY)
        try:
            command = [sys.executable, "-c", "import luna_farm.supervisor.run, luna_farm.worker.main"]
            environ = {"PYTHONPATH": str(IMPORTED_FROM)}
            subprocess.run(command, user=NOBODY, env=environ, cwd=home, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            os.chown(home, 0, 0)
            drop = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
            one, who = RunningFarm(Path(home), before=drop), "without CAP_DAC_OVERRIDE"
        else:
            one, who = RunningFarm(Path(home), user=NOBODY), "as the user nobody"
        yield one, who
        one.destroy()


def test_a_folder_of_another_user(figures: Figures, without_rights: tuple[RunningFarm, str]) -> None:
    one, who = without_rights
    one.out.mkdir(mode=0o755)
    os.chown(one.out, 1234, 1234)
    count, error = refuse_and_come_back(one.start(), one.out, lambda: one.out.chmod(0o777))
    assert "Permission denied" in error
    assert "Give this user the right" in error
    figures.none(ROW, f"EACCES, {who}", **count)


def test_a_fallback_folder_takes_over_under_the_same_names(
    farm: Start, figures: Figures, tmpfs: Callable[[str], Path], tmp_path: Path
) -> None:
    disk, fallback = tmpfs("size=1m,ro"), tmp_path / "fallback"
    one = farm(fallback_dir=fallback)
    with one.client() as client:
        album = Album(disk)
        for number in range(3):
            album.add(client, save_path=f"shots/{number}")
        reports = album.wait(client)
    album.out = fallback
    paths = {path for report in reports for path in report.paths}
    assert paths == {str(fallback / f"shots/{number}/a_I0.png") for number in range(3)}
    assert one.stop() == 0
    figures.none(ROW, "read-only with a fallback folder", **album.count(reports))


def test_a_state_folder_on_a_full_disk_starts_and_says_so(
    farm: Start, figures: Figures, tmpfs: Callable[[str], Path]
) -> None:
    """The journal's disk is full for real: nothing is accepted that could be forgotten."""
    disk = tmpfs("size=2m")
    one = RunningFarm(disk, out=disk.parent / "out", journal_bytes="64KiB")
    one.log_path = disk.parent / "log"
    album = Album(one.out)
    try:
        one.start()
        with one.client() as client:
            album.add(client)
            album.wait_for_last(client)
            filler = disk / "filler"
            fill(filler)
            accepted, refused = 0, ""
            for _ in range(30):
                request = SaveRequest(
                    images=album.next_images(), output_dir=one.out, filename="a", prompt={"text": "x" * 2000}
                )
                try:
                    album.keep(client.submit(request, when_busy="report"))
                    accepted += 1
                except FarmBusy as error:
                    refused = str(error)
            assert "journal" in refused
            filler.unlink()
            album.add(client)
            reports = album.wait(client)
        one.kill()
        one.restart()
        assert one.stop() == 0
    finally:
        one.destroy()
    count = album.count(reports)
    figures.none(ROW, "state folder on a full 2 MB tmpfs", accepted=accepted, **count)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_images_are_what_they_were(tmp_path: Path) -> None:
    """The proof itself: damage of one byte of a file shows."""
    album = Album(tmp_path, SIZE, noisy=True)
    album.sample(3).tofile(tmp_path / "raw")
    Image.fromarray(album.sample(3)).save(tmp_path / "a.png")
    assert shows(tmp_path / "a.png", album.sample(3))
    assert not shows(tmp_path / "a.png", album.sample(4))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    assert not shows(tmp_path / "a.png", album.sample(3))


def unmount(disk: Path) -> None:
    """Take the disk away once nothing is open there: a farm looks at its folders whenever it likes.
    Return once no farm believes any more that it is still there."""
    until(lambda: not subprocess.run(["umount", disk], check=False, capture_output=True).returncode, "umount")
    gone_at = time.monotonic()
    until(lambda: time.monotonic() - gone_at > STILL_THERE_S, "no farm has seen it lately")


def test_nothing_is_saved_below_a_disk_that_was_unmounted(
    farm: Start, figures: Figures, tmpfs: Callable[[str], Path]
) -> None:
    """The path of the folder is then one on the disk below it."""
    disk = tmpfs("size=8m")
    one = farm(out=disk / "out")
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        album.wait(client)
        kept = (one.out / Path(album.promised[0].receipt.paths[0]).name).read_bytes()
        unmount(disk)
        promised = album.add(client)
        assert any("no disk is mounted" in warning for warning in promised.receipt.warnings)
        until(lambda: client.job(promised.receipt).images[0].state == "held", "it waits")
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)
        (one.out).mkdir()
        Path(album.promised[0].receipt.paths[0]).write_bytes(kept)
        figures.none("disks", "unmounted, then mounted again", **album.settled(client))
    one.stop()
    unmount(disk)
    one.restart()
    (note,) = [note for note in one.status()["notes"] if note.startswith("No disk")]
    assert note.startswith(f"No disk is mounted at {disk}, where the output folder {one.out} was")
    one.stop()


def test_no_copy_and_no_archive_is_saved_below_a_disk_that_was_unmounted(
    farm: Start, tmpfs: Callable[[str], Path], tmp_path: Path
) -> None:
    """Mirrors, archives and further outputs, each where the output folder itself is on another disk."""
    disk = tmpfs("size=8m")
    one = farm(out=tmp_path / "out")
    image = Album(one.out).sample(0)
    small = [Output("png"), Output("jpeg", save_path="disk/small")]
    requests = {
        "mirror": {"output_dir": str(one.out), "mirrors": [str(disk / "copy")]},
        "archive": {"output_dir": str(disk / "sets"), "archive": "tar"},
        "mirrored archive": {"output_dir": str(one.out), "archive": "zip", "mirrors": [str(disk / "sets")]},
        "outputs": {"output_dir": str(tmp_path), "save_path": "out"},
        "mirror around it": {
            "output_dir": str(one.out),
            "save_path": f"{disk.name}/around",
            "mirrors": [str(disk.parent)],
        },
        "mirrored archive around it": {
            "output_dir": str(one.out),
            "save_path": f"{disk.name}/around",
            "archive": "tar",
            "mirrors": [str(disk.parent)],
        },
        "mirror of a date": {"output_dir": str(one.out), "save_path": "b", "mirrors": [str(disk / "b")]},
    }
    with one.client() as client:
        for name, fields in requests.items():
            outputs = small if name == "outputs" else []
            request = SaveRequest([SaveImage(image, outputs=outputs)], filename=name, **fields)
            assert client.wait(client.submit(request), 60).state == "done"
        unmount(disk)
        jobs = []
        for name, fields in requests.items():
            outputs = small if name == "outputs" else []
            receipt = client.submit(SaveRequest([SaveImage(image, outputs=outputs)], filename=name, **fields))
            # A mirror is not waited for longer than a second, and said to be gone if it says so by then.
            told = any("no disk is mounted" in warning for warning in receipt.warnings)
            assert told or "mirror" in name
            jobs.append(receipt)
        places = {str(at) for at in (disk.parent, disk / "copy", disk / "sets", disk / "b")}

        def failing() -> set[str]:
            return {row["destination"] for row in client.status()["destinations"] if row["error"]}

        until(lambda: places <= failing(), "the copies wait")
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)
        assert [client.wait(job, 300).state for job in jobs] == ["done"] * len(jobs)
    assert sorted({path.parent.name for path in disk.rglob("*.*")}) == [
        "around",
        "b",
        "copy",
        "sets",
        "small",
    ]
    one.stop()
