"""A storm on each file system: mixed formats, gate, durable and not, while workers, supervisor and clients
are killed all the time."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images import AGAIN
from measured import LONG, Figures
from mounting import mounted
from running_farm import IMPORTED_FROM, Keeper, RunningFarm, Start, answers, until
from storm_client import number_in
from test_kill_storm import Killer

IMAGES, WORKERS, SUPERVISORS = (10_000, 200, 20) if LONG else (60, 4, 1)
CLIENTS = 3
IMAGE_MIB = 2000 if LONG else 40
CLIENT_SCRIPT = Path(__file__).parent / "storm_client.py"

Mount = Callable[[Path, Path], Path]


def image_file(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(IMAGE_MIB << 20)
    return path


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED: {program} is not installed")


def fuse(folder: Path, *command: str | Path) -> Path:
    """Mount by a program of FUSE."""
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("NOT TESTED: this machine has no /dev/fuse")
    folder.mkdir()
    done = subprocess.run([*command, folder], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: {command[0]} cannot mount here: {done.stderr.strip()}")
    return folder


def ext4(folder: Path, tmp: Path) -> Path:
    needs("mkfs.ext4")
    image = image_file(tmp / "image")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "100000", image], check=True)
    return mounted(folder, "-o", "loop", str(image))


def tmpfs(folder: Path, tmp: Path) -> Path:
    return mounted(folder, "-t", "tmpfs", "-o", f"size={IMAGE_MIB}m", "tmpfs")


def overlayfs(folder: Path, tmp: Path) -> Path:
    lower, upper, work = (tmp / name for name in ("lower", "upper", "work"))
    for each in (lower, upper, work):
        each.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    return mounted(folder, "-t", "overlay", "-o", options, "overlay")


def ntfs(folder: Path, tmp: Path) -> Path:
    needs("mkntfs", "ntfs-3g")
    image = image_file(tmp / "image")
    subprocess.run(["mkntfs", "-Q", "-F", image], check=True, capture_output=True)
    return fuse(folder, "ntfs-3g", image)


def exfat(folder: Path, tmp: Path) -> Path:
    needs("mkfs.exfat", "mount.exfat-fuse")
    image = image_file(tmp / "image")
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    device = subprocess.run(
        ["losetup", "--find", "--show", image], check=False, capture_output=True, text=True
    )
    if device.returncode:
        pytest.skip(f"NOT TESTED: this machine gives no loop device: {device.stderr.strip()}")
    try:
        return fuse(folder, "mount.exfat-fuse", device.stdout.strip())
    finally:
        subprocess.run(["losetup", "--detach", device.stdout.strip()], check=False)  # once it is unmounted


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[Mount], Path]]:
    folder = tmp_path / "disk"
    yield lambda mount: mount(folder, tmp_path)
    subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


class Clients:
    """Processes that hand over, each killed now and then and followed by another."""

    def __init__(self, farm: RunningFarm, notes: Path) -> None:
        self._farm, self.notes = farm, notes
        self.kills = -CLIENTS  # those that are followed at first are not killed
        self._next = 0
        self._running: list[subprocess.Popen[bytes]] = []
        for _ in range(CLIENTS):
            self.replace(None)

    def replace(self, old: subprocess.Popen[bytes] | None) -> None:
        """Kill one and start another, with numbers of its own."""
        if old is not None:
            assert old.poll() is None, "a client ended by itself"
            old.kill()
            old.wait()
            self._running.remove(old)
        self.kills += 1
        self._next += 1
        first = self._next << 16
        command = [sys.executable, CLIENT_SCRIPT, str(self._farm.port), self._farm.state, self._farm.out]
        environ = {**os.environ, "PYTHONPATH": str(IMPORTED_FROM)}
        for name in [n for n in environ if n.startswith(("COVERAGE_", "COV_CORE_"))]:
            del environ[name]
        self._running.append(subprocess.Popen([*command, self.notes, str(first)], env=environ))

    def kill_one(self) -> None:
        self.replace(random.choice(self._running))

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def receipts(self) -> dict[str, list[int]]:
        """Job id -> the numbers of its images, of each receipt that was noted."""
        if not self.notes.exists():
            return {}
        lines = [json.loads(line) for line in self.notes.read_text().splitlines()]
        return {line["job"]: line["numbers"] for line in lines}


@pytest.mark.parametrize("mount", [ext4, tmpfs, overlayfs, ntfs, exfat] if LONG else [overlayfs, exfat])
def test_nothing_is_lost_or_made_twice_on(
    farm: Start, figures: Figures, disk: Callable[[Mount], Path], tmp_path: Path, mount: Mount
) -> None:
    one = farm(out=disk(mount) / "out")
    clients = Clients(one, tmp_path / "receipts")
    try:
        with Keeper(one) as keeper:
            killer = Killer(one, keeper, WORKERS, SUPERVISORS)
            killer.start()
            due = 0.0
            until(lambda: len(clients.receipts()) > 0 or not killer.is_alive(), "the first receipt", 120)
            while killer.is_alive() or sum(map(len, clients.receipts().values())) < IMAGES:
                if killer.share >= due:
                    clients.kill_one()
                    due += 0.05
                killer.join(0.2)
            clients.stop()
            assert killer.error is None, killer.error
        receipts = clients.receipts()
        retried = settle(one, receipts)
    finally:
        clients.stop()
    assert one.stop() == 0
    found: Counter[int | None] = Counter(
        number_in(path)
        for path in one.out.rglob("*")
        if path.is_file() and not path.name.startswith(".luna-")
    )
    promised = {number for numbers in receipts.values() for number in numbers}
    figures.none(
        "storm on file systems",
        mount.__name__,
        images=len(promised),
        worker_kills=killer.done["worker"],
        supervisor_kills=killer.done["supervisor"],
        client_kills=clients.kills,
        set_aside_and_retried=retried,
        lost=len(promised - found.keys()),
        corrupt=found.pop(None, 0),
        twice=sum(count - 1 for count in found.values()),
        stray=len(one.temps()),
        segments=len(one.segments()),
    )
    assert one.left_processes() == []


def settle(one: RunningFarm, receipts: dict[str, list[int]]) -> int:
    """Wait until all is finished, and try again what was set aside; returns how often."""
    retried = 0
    with one.client() as client:
        for job_id in receipts:
            report = answers(client, lambda client: client.wait(job_id, 120.0))  # noqa: B023
            while report.state == "failed" and all(i.code in AGAIN for i in report.images):
                retried += 1
                client.retry(job_id)
                report = client.wait(job_id, 120.0)
        until(lambda: not client.status()["queue"]["images"], "nothing is left", 120.0)
    return retried
