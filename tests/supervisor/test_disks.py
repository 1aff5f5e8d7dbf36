"""On which disk files belong, while disks come and go and mirrors do not answer."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from luna_farm import system
from luna_farm.storage import mounts
from luna_farm.supervisor import disks as module
from luna_farm.supervisor.disks import Disks, since_last_start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has drives instead")


@pytest.fixture
def mounted(mounted: set[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The mount points that there are; each question is asked anew."""
    monkeypatch.setattr(module, "STILL_THERE_S", 0.0)
    monkeypatch.setattr(module, "MOUNT_FRESH_S", 0.0)
    return mounted


def test_a_folder_belongs_on_the_disk_that_it_was_on(mounted: set[str]) -> None:
    disks = Disks()
    assert disks.of("/mnt/disk/out") == ("/mnt/disk", True)
    assert disks.of("/home/out") == ("", True)
    mounted.remove("/mnt/disk")
    assert disks.of("/mnt/disk/out") == ("/mnt/disk", False)
    assert disks.of("/mnt/disk2/out") == ("", True)
    mounted.add("/mnt/disk")
    assert disks.of("/mnt/disk/out") == ("/mnt/disk", True)


def test_a_folder_that_was_never_used_belongs_on_a_disk_that_was(mounted: set[str]) -> None:
    """A save_path with the date, or another output folder on the same disk."""
    disks = Disks()
    disks.of("/mnt/disk/2026-11-26")
    mounted.remove("/mnt/disk")
    assert disks.of("/mnt/disk/2026-11-27") == ("/mnt/disk", False)
    assert disks.of("/mnt/disk") == ("/mnt/disk", False)


def test_a_disk_inside_another_one_is_known_by_itself(mounted: set[str]) -> None:
    disks = Disks()
    mounted.add("/mnt/disk/thumbs")
    assert disks.of("/mnt/disk/thumbs/a") == ("/mnt/disk/thumbs", True)
    mounted.remove("/mnt/disk/thumbs")
    assert disks.of("/mnt/disk/thumbs/b") == ("/mnt/disk/thumbs", False)
    assert disks.of("/mnt/disk/out") == ("/mnt/disk", True)


def test_a_burst_asks_once(mounted: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STILL_THERE_S", 60.0)
    disks = Disks()
    disks.of("/mnt/disk/out")
    monkeypatch.setattr(mounts, "_device", lambda _: pytest.fail("asked again"))
    assert disks.of("/mnt/disk/out") == ("/mnt/disk", True)


def test_what_is_remembered_of_folders_is_bounded(mounted: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 3)
    disks = Disks()
    for number in range(10):
        disks.of(f"/mnt/disk/{number}")
        assert len(disks._folders) <= 3
    mounted.remove("/mnt/disk")
    assert disks.of("/mnt/disk/0") == ("/mnt/disk", False), "the disk is known nevertheless"


def test_mirrors_are_looked_up_without_urls(mounted: set[str]) -> None:
    disks = Disks()
    places = ("s3://bucket", "/mnt/disk/copy", "/home/copy")
    assert disks.of_mirrors(places) == ({"/mnt/disk/copy": "/mnt/disk"}, [])
    mounted.remove("/mnt/disk")
    gone = [("/mnt/disk/copy", "/mnt/disk")]
    assert disks.of_mirrors(places) == ({"/mnt/disk/copy": "/mnt/disk"}, gone)


def test_a_disk_inside_a_mirror_is_known_by_itself(mounted: set[str]) -> None:
    """Also one inside a mirror that is on the disk of the system, and two mirrors have one each."""
    disks = Disks()
    mounted |= {"/mnt/disk/a/inner", "/home/b"}
    asked = ("/mnt/disk/a", "/home"), ("inner", "inner/deep", "b", "c")
    found = {
        "/mnt/disk/a": "/mnt/disk",
        "/mnt/disk/a/inner": "/mnt/disk/a/inner",
        "/mnt/disk/a/inner/deep": "/mnt/disk/a/inner",
        "/home/b": "/home/b",
    }
    assert disks.of_mirrors(*asked) == (found, [])
    mounted -= {"/mnt/disk/a/inner", "/mnt/disk"}
    gone = ["/mnt/disk/a", "/mnt/disk/a/inner", "/mnt/disk/a/inner/deep"]
    assert disks.of_mirrors(*asked) == (found, [(folder, found[folder]) for folder in gone])


def test_a_folder_in_a_mirror_that_hangs_holds_up_nothing(
    mounted: set[str], hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted.add("/mnt/nas")
    monkeypatch.setattr(os.path, "realpath", lambda path: path.replace("/mnt/disk/a/link", "/mnt/nas"))
    monkeypatch.setattr(module, "MIRROR_S", 0.01)
    disks = Disks()
    disks.look("/mnt/disk/a")
    for _ in range(2):
        assert disks.of_mirrors(["/mnt/disk/a"], ["link"])[1] == []
    assert not disks.are_local(["/mnt/disk/a/link"])


def test_a_disk_that_is_missing_since_the_last_start_is_named(mounted: set[str]) -> None:
    out = "/mnt/disk/out"
    kept, said = since_last_start(out, {})
    assert (kept, said) == ({"output_dir": out, "output_mount": "/mnt/disk"}, "")
    mounted.remove("/mnt/disk")
    for _ in range(2):
        kept, said = since_last_start(out, kept)
        assert said.startswith(f"No disk is mounted at /mnt/disk, where the output folder {out} was")
    assert since_last_start("/home/out", kept)[1] == "", "another folder"
    assert since_last_start("s3://bucket", kept)[1] == ""
    assert since_last_start(out, {**kept, "output_mount": 7})[1] == "", "nonsense"
    mounted.add("/mnt/disk")
    assert since_last_start(out, kept) == (kept, "")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is not set, looking at /mnt/nas hangs."""
    go_on = threading.Event()
    real = mounts.mount_of

    def mount_of(folder: str) -> str:
        if folder.startswith("/mnt/nas"):
            go_on.wait()
        return real(folder)

    monkeypatch.setattr(mounts, "mount_of", mount_of)
    monkeypatch.setattr(system, "on_local_disk", lambda path: not str(path).startswith("/mnt/nas"))
    yield go_on
    go_on.set()


def test_a_mirror_that_does_not_answer_is_waited_for_once(
    mounted: set[str], hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted.add("/mnt/nas")
    monkeypatch.setattr(module, "MIRROR_S", 0.01)
    disks = Disks()
    assert disks.of_mirrors(["/mnt/nas/a"]) == ({}, [])
    monkeypatch.setattr(module, "MIRROR_S", 600.0)  # nothing is waited for again
    assert disks.of_mirrors(["/mnt/nas/a", "/mnt/disk/a"]) == ({"/mnt/disk/a": "/mnt/disk"}, [])


def test_several_mirrors_that_do_not_answer_are_waited_for_together(
    mounted: set[str], hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job with eight of them is not refused because its folder takes so long."""
    monkeypatch.setattr(module, "MIRROR_S", 0.01)
    waited: list[float] = []
    real = queue.SimpleQueue

    class Queue:
        """Notes how long it is waited for."""

        def __init__(self) -> None:
            self._queue: Any = real()
            self.put = self._queue.put

        def get(self, timeout: float) -> Any:
            waited.append(timeout)
            return self._queue.get(timeout=timeout)

    monkeypatch.setattr(queue, "SimpleQueue", Queue)
    assert Disks().of_mirrors([f"/mnt/nas/{n}" for n in range(8)]) == ({}, [])
    assert waited[1:] == [0.0] * 7


def test_a_mirror_that_stops_answering_is_believed_to_be_where_it_was(
    mounted: set[str], hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted.add("/mnt/nas")
    hanging.set()
    disks = Disks()
    known = {"/mnt/nas/a": "/mnt/nas"}
    assert disks.of_mirrors(["/mnt/nas/a"]) == (known, [])
    hanging.clear()
    monkeypatch.setattr(module, "MIRROR_S", 0.01)
    assert disks.of_mirrors(["/mnt/nas/a"]) == (known, [])


def test_a_mirror_that_cannot_be_looked_at_holds_up_nothing(
    mounted: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = Disks()
    with monkeypatch.context() as patched:
        patched.setattr(
            threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no threads"))
        )
        assert disks.of_mirrors(["/mnt/disk/a"]) == ({}, [])
    with monkeypatch.context() as patched:
        patched.setattr(mounts, "mount_of", lambda _: (_ for _ in ()).throw(OSError("swapped")))
        assert disks.of_mirrors(["/mnt/disk/a"]) == ({}, [])
    assert disks.of_mirrors(["/mnt/disk/a"]) == ({"/mnt/disk/a": "/mnt/disk"}, [])


def test_folders_of_this_machine_are_known_once_they_were_looked_at(tmp_path: Path) -> None:
    disks = Disks()
    assert disks.are_local([])
    disks.of_mirrors([str(tmp_path)])
    assert disks.are_local([str(tmp_path)]) == system.on_local_disk(tmp_path.resolve())
