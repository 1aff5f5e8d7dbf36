"""The uploader answers for what it cannot even begin; tests/sinks runs it against servers."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from luna_farm.core import frames
from luna_farm.core.shards import ShardPlace
from luna_farm.storage import mounts
from luna_farm.storage.upload_spool import Target, UploadSpool
from luna_farm.worker import uploader
from luna_farm.worker.uploader import Uploader


def test_answers_go_together_while_others_are_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "GATHER_S", 600.0)
    spooled = [tmp_path / f"{n}.upload" for n in range(3)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = Uploader(theirs, (), UploadSpool(str(tmp_path)), str(tmp_path))
        all_taken = threading.Event()
        made._remover.submit(all_taken.wait)  # no file is removed before
        for n, path in enumerate(spooled):
            path.write_bytes(b"x")
            made.take({"t": "remove", "id": n, "paths": [str(path)]})
        made.take({"t": "upload", "id": 3, "root": "ftp://nas:70000/x"})
        all_taken.set()
        read = frames.FrameBuffer()
        while (message := read.next()) is None:
            read.feed(ours.recv(4096))
    assert sorted(answer["id"] for answer in message["answers"]) == [0, 1, 2, 3]
    assert not any(map(Path.exists, spooled))


def test_places_that_are_done_with_keep_no_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "PLACES", 3)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = Uploader(theirs, (), UploadSpool(str(tmp_path / "spool")), str(tmp_path))
        spooled = made._spool.write("job", 0, [b"bytes"], [], content_type="image/png")
        read = frames.FrameBuffer()
        for n in range(10):
            root = str(tmp_path / f"mirror-{n}")
            made.take(
                {
                    "t": "upload",
                    "id": n,
                    "path": spooled.path,
                    "root": root,
                    "name": "a",
                    "again": False,
                    "mount": "",
                }
            )
            answers: list[int] = []
            while n not in answers:
                while (message := read.next()) is None:
                    read.feed(ours.recv(4096))
                answers = [answer["id"] for answer in message["answers"]]
            while made._pending[root]:
                time.sleep(0)  # its thread is about to say that it is done
            assert len(made._threads) <= 3
    assert [path.read_bytes() for path in sorted(tmp_path.glob("mirror-*/a"))] == [b"bytes"] * 10


def test_a_place_that_an_older_version_accepted_fails_alone(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = Uploader(theirs, (), UploadSpool(str(tmp_path)), str(tmp_path))
        made.take({"t": "upload", "id": 7, "root": "ftp://nas:70000/x"})
        read = frames.FrameBuffer()
        read.feed(ours.recv(4096))
        message = read.next()
    assert message is not None
    (answer,) = message["answers"]
    assert (answer["t"], answer["id"], answer["decision"]) == ("uploaded", 7, "fail")
    assert "65535" in answer["error"]


def test_a_copy_waits_for_the_disk_that_it_belongs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror is a folder of the disk below then."""
    spool, mirror = UploadSpool(str(tmp_path / "spool")), tmp_path / "mirror"
    target = Target(str(mirror), "a.png")
    spooled = spool.write("job-0001", 0, [b"png"], [target], content_type="image/png")
    message = {"t": "upload", "id": 7, "path": spooled.path, "root": str(mirror), "name": "a.png"}
    there = False
    monkeypatch.setattr(mounts, "is_there", lambda mount: not mount or there)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = Uploader(theirs, (), spool, str(tmp_path))
        read = frames.FrameBuffer()
        for there in (False, True):
            made.take({**message, "again": False, "mount": str(mirror)})
            while (said := read.next()) is None:
                read.feed(ours.recv(4096))
            (answer,) = said["answers"]
            if there:
                assert answer["name"] == "a.png"
            else:
                assert answer["decision"] == "hold", "nothing works there now"
                assert f"no disk is mounted at {mirror}" in answer["error"]
                assert not mirror.exists()
    assert (mirror / "a.png").read_bytes() == b"png"


@pytest.mark.parametrize("order", ["upload", "member"])
@pytest.mark.parametrize(
    ("what", "decision"), [("file", "fail"), ("trailer", "fail"), ("folder", "hold or retry")]
)
def test_what_was_removed_from_the_spool_is_not_waited_for(
    tmp_path: Path, order: str, what: str, decision: str
) -> None:
    """It would hold up all others for good. A folder that is gone may be on a disk that comes back."""
    spool, out = UploadSpool(str(tmp_path / "spool")), str(tmp_path / "out")
    target = [Target(out, "a.png")]
    form = {"content_type": "image/png", "files_in_it": [("png", 3)], "metadata": b"{}"}
    spooled = spool.write("job-0001", 0, [b"png"], target, **form)
    message = {"id": 7, "path": spooled.path, "name": "a.png", "again": False}
    if order == "upload":
        message |= {"root": out, "mount": ""}
    else:
        message |= {"shard": ShardPlace("job-0001-0-s1", "zip", out, f"{out}/a.zip").to_map()}
    if what == "trailer":
        Path(spooled.path).write_bytes(b"png")
    else:
        shutil.rmtree(spool.folder)
        if what == "file":
            Path(spool.folder).mkdir()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Uploader(theirs, (), spool, str(tmp_path)).take({"t": order, **message})
        read = frames.FrameBuffer()
        while (said := read.next()) is None:
            read.feed(ours.recv(4096))
    (answer,) = said["answers"]
    assert answer["decision"] in decision
    assert spooled.path in answer["error"]
