"""The uploader answers for what it cannot even begin; tests/sinks runs it against servers."""

from __future__ import annotations

import socket
from pathlib import Path

from luna_farm.core import frames
from luna_farm.storage.upload_spool import UploadSpool
from luna_farm.worker.uploader import Uploader


def test_a_place_that_an_older_version_accepted_fails_alone(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        uploader = Uploader(theirs, (), UploadSpool(str(tmp_path)), str(tmp_path))
        uploader._submit({"t": "upload", "id": 7, "root": "ftp://nas:70000/x"})
        read = frames.FrameBuffer()
        read.feed(ours.recv(4096))
        answer = read.next()
    assert answer is not None
    assert (answer["t"], answer["id"], answer["decision"]) == ("uploaded", 7, "fail")
    assert "65535" in answer["error"]
