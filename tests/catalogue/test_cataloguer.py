"""The process that writes the catalogue, in a thread: what it confirms is written, what goes wrong passes."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from luna_farm.catalogue import cataloguer, images, schema
from luna_farm.catalogue.rows import FIELDS, CatalogueRow
from luna_farm.catalogue.search import Catalogue, Query
from luna_farm.core import frames
from luna_farm.core.messages import ImageTask, SaveOptions

MakeRow = Callable[..., CatalogueRow]
PATIENCE_S = 60.0


class Peer:
    """The supervisor's side: sends messages, and waits for answers."""

    def __init__(self, pipe: socket.socket) -> None:
        self.pipe = pipe
        self._frames = frames.FrameBuffer()
        self._last = 0
        self.notes: list[str] = []
        self.problems: list[str] = []
        pipe.settimeout(PATIENCE_S)

    def send(self, kind: str, **fields: Any) -> int:
        self._last += 1
        self.pipe.sendall(frames.encode({"t": kind, "id": self._last, **fields}))
        return self._last

    def put(self, *rows: CatalogueRow) -> int:
        return self.send("rows", rows=[(images.pack(row.to_map()), "") for row in rows])

    def confirmed(self, number: int) -> None:
        """Wait until a message is confirmed."""
        while (message := self.next())["t"] != "done" or message["id"] != number:
            pass

    def next(self) -> dict[str, Any]:
        while not (message := self._frames.next()):
            self._frames.feed(self.pipe.recv(65536))
        if message["t"] == "note":
            self.notes.append(message["text"])
        elif message["t"] == "problem":
            self.problems.append(message["text"])
        return message

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Read messages until a condition holds."""
        while not condition():
            self.next()


StartPeer = Callable[..., Peer]


@pytest.fixture
def start(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartPeer]:
    """`start(days=3)`: a cataloguer, and the other end of its pipe."""
    monkeypatch.setattr(schema, "BUSY_MS", 20)
    monkeypatch.setattr(cataloguer, "PAUSE_S", 0.01)
    running: list[tuple[threading.Thread, socket.socket]] = []

    def start(names: Any = tuple(FIELDS), days: int = 0, roots: Any = ()) -> Peer:
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=cataloguer.serve, args=(theirs, str(path), names, days, roots))
        thread.start()
        running.append((thread, ours))
        return Peer(ours)

    yield start
    for thread, ours in running:
        ours.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_what_is_confirmed_is_written(start: StartPeer, catalogue: Catalogue, make_row: MakeRow) -> None:
    peer = start()
    peer.confirmed(peer.put(make_row(prompt="a cat"), make_row(prompt="a dog")))
    assert [row.prompt for row in catalogue.search()] == ["a dog", "a cat"]
    number = peer.send("rows", rows=[(images.pack(make_row(prompt="a bird").to_map()), "s3://bucket/b.png")])
    peer.confirmed(number)
    assert catalogue.search("bird")[0].path == "s3://bucket/b.png"
    peer.send("stop")
    assert peer.pipe.recv(1) == b""


def test_with_nothing_to_do_it_ends(
    start: StartPeer, catalogue: Catalogue, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cataloguer, "IDLE_S", 0.01)
    peer = start()
    assert peer.pipe.recv(1) == b""
    peer = start()
    peer.put(make_row())
    while peer.pipe.recv(65536):
        pass
    assert catalogue.count(Query()) == 1


def test_a_failed_image_comes_and_leaves(start: StartPeer, catalogue: Catalogue) -> None:
    task = ImageTask("a1b2c3d4", 1, "RAW", "png", 0, 1, "/out/x.png", "", 0, 8, 8, 3)
    options = SaveOptions(output_dir="/out", timestamp="2026-01-02T03:04:05", metadata='{"positive":"a cat"}')
    peer = start(names=("prompt", "warnings"))
    peer.confirmed(peer.send("failed", task=task.to_map(), options=options.to_map(), error="no memory"))
    (row,) = catalogue.search(failed=True)
    assert (row.path, row.prompt, row.error, row.job_id, row.index) == (
        "/out/x.png",
        "a cat",
        "no memory",
        "a1b2c3d4",
        1,
    )
    peer.confirmed(peer.send("remove", job_id="a1b2c3d4", index=1))
    assert catalogue.search(failed=True) == []


def known(row: CatalogueRow, **fields: Any) -> dict[str, Any]:
    return {**row.to_map(), "timestamp": "2026-01-02T03:04:05+00:00", "state": "saved", **fields}


def test_missing_rows_are_added_from_the_files(
    start: StartPeer, catalogue: Catalogue, make_row: MakeRow, tmp_path: Path
) -> None:
    there = tmp_path / "there.png"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(there)
    rows = [
        known(make_row(path=str(there), job_id="aaaaaaaa", bytes=there.stat().st_size), variance=0.25),
        known(make_row(path=str(tmp_path / "gone.png"), job_id="bbbbbbbb")),
        known(make_row(path="s3://bucket/x.png", job_id="cccccccc")),
        known(make_row(path="/x.png", job_id="dddddddd"), state="failed", error="no"),
        known(make_row(path=str(there), job_id="eeeeeeee")),
    ]
    peer = start()
    peer.confirmed(peer.put(make_row(path="/known.png", job_id="eeeeeeee", prompt="known")))
    peer.confirmed(peer.send("check", rows=rows))
    found = {row.job_id: row for row in catalogue.search()}
    assert set(found) == {"aaaaaaaa", "cccccccc", "eeeeeeee"}
    assert (found["aaaaaaaa"].width, found["aaaaaaaa"].variance) == (6, 0.25)
    assert found["cccccccc"].saved_at == 1767323045.0
    assert found["eeeeeeee"].prompt == "known"
    assert [row.job_id for row in catalogue.search(failed=True)] == ["dddddddd"]


def test_while_another_program_writes_it_waits_and_says_so(
    start: StartPeer, path: Path, catalogue: Catalogue, make_row: MakeRow
) -> None:
    peer = start()
    peer.confirmed(peer.put(make_row()))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    number = peer.put(make_row())
    peer.wait_for(lambda: peer.problems)
    assert "cannot be written now: database is locked" in peer.problems[0]
    assert catalogue.count(Query()) == 1
    other.execute("ROLLBACK")
    other.close()
    peer.confirmed(number)
    assert peer.problems[-1] == ""
    assert catalogue.count(Query()) == 2


def test_a_supervisor_that_dies_while_it_waits_ends_it(
    start: StartPeer, path: Path, make_row: MakeRow
) -> None:
    peer = start()
    peer.confirmed(peer.put(make_row()))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    peer.put(make_row())
    peer.wait_for(lambda: peer.problems)
    peer.pipe.shutdown(socket.SHUT_WR)
    while peer.pipe.recv(65536):
        pass
    other.close()


def test_what_arrived_before_the_supervisor_died_is_written(
    start: StartPeer, catalogue: Catalogue, make_row: MakeRow
) -> None:
    peer = start()
    for _ in range(50):
        peer.put(make_row())
    peer.pipe.shutdown(socket.SHUT_WR)
    while peer.pipe.recv(65536):
        pass
    assert catalogue.count(Query()) == 50


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
def test_a_damaged_file_is_set_aside_and_read_again_from_the_images(
    start: StartPeer, path: Path, catalogue: Catalogue, make_row: MakeRow, tmp_path: Path, when: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(out / name)
    if when == "before the start":
        path.write_bytes(b"garbage" * 5000)
    peer = start(roots=(str(out), str(tmp_path / "not there")))
    if when == "while it runs":
        peer.confirmed(peer.put(*(make_row(prompt="words " * n) for n in range(300))))
        peer.pipe.sendall(b"")
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
    number = peer.put(make_row(path=str(tmp_path / "new.png"), saved_at=time.time() + 100))
    peer.confirmed(number)
    peer.wait_for(lambda: len(peer.notes) >= 2)
    assert "was set aside" in peer.notes[0]
    assert "read from the files again" in peer.notes[1]
    assert path.with_name(path.name + ".damaged").exists()
    assert sorted(Path(row.path).name for row in catalogue.search()) == ["a.png", "b.png", "new.png"]


def test_a_file_that_is_removed_is_made_again(
    start: StartPeer, path: Path, catalogue: Catalogue, make_row: MakeRow
) -> None:
    peer = start()
    peer.confirmed(peer.put(make_row()))
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    peer.confirmed(peer.put(make_row()))
    assert catalogue.count(Query()) == 1


def test_rows_that_are_too_old_leave(start: StartPeer, catalogue: Catalogue, make_row: MakeRow) -> None:
    peer = start(days=3)
    old, new = make_row(saved_at=time.time() - 4 * 86400), make_row(saved_at=time.time() - 2 * 86400)
    peer.confirmed(peer.put(old, new))
    assert [row.path for row in catalogue.search()] == [new.path]
    gone = known(make_row(path="s3://bucket/x.png", job_id="cccccccc"))
    peer.confirmed(peer.send("check", rows=[gone]))
    assert catalogue.count(Query()) == 1


def test_a_row_that_makes_no_sense_costs_itself(
    start: StartPeer, catalogue: Catalogue, make_row: MakeRow
) -> None:
    peer = start()
    peer.confirmed(peer.send("rows", rows=[(b"\xc1", "")]))
    assert "left out" in peer.notes[0]
    peer.confirmed(peer.put(make_row()))
    assert catalogue.count(Query()) == 1


def test_a_row_that_cannot_be_stored_costs_no_row_beside_it(
    start: StartPeer, catalogue: Catalogue, make_row: MakeRow
) -> None:
    peer = start()
    bad, good = make_row(nan_count=2**63, job_id="aaaaaaaa"), make_row()
    peer.confirmed(peer.put(bad, good))
    assert peer.notes[0].startswith(f"{bad.path} is left out of the catalogue: OverflowError")
    assert [row.path for row in catalogue.search()] == [good.path]
