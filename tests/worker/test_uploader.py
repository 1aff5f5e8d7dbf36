"""The uploader answers for what it cannot even begin; tests/sinks runs it against servers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from luna_farm.core import frames
from luna_farm.storage.upload_spool import UploadSpool
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
        for n, path in enumerate(spooled):
            path.write_bytes(b"x")
            made.take({"t": "remove", "id": n, "paths": [str(path)]})
        made.take({"t": "upload", "id": 3, "root": "ftp://nas:70000/x"})
        made._say({"t": "ready"})  # until it is said, the others wait
        read = frames.FrameBuffer()
        while (message := read.next()) is None:
            read.feed(ours.recv(4096))
    assert sorted(answer.get("id", -1) for answer in message["answers"]) == [-1, 0, 1, 2, 3]
    assert not any(map(Path.exists, spooled))


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
