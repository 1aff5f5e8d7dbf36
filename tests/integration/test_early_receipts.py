"""Receipts that come while pixels are still copied: whatever process is killed, and when, the mark counts."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess, Wire, until
from PIL import Image

from luna_farm.errors import InvalidRequest, UnknownJob
from luna_farm.storage.arena import Arena
from luna_farm.storage.marks import MARK_BYTES, Mark
from luna_farm_client import AsyncFarmClient, SaveImage, SaveRequest

SIDE = 64
PIXELS = np.random.default_rng(4).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@dataclass
class Copying:
    """A client in another language that has its receipt, and has copied nothing yet."""

    wire: Wire
    arena: Arena
    lease: dict[str, Any]
    receipt: dict[str, Any]
    request_id: str

    @property
    def mark(self) -> Mark:
        at = self.lease["offset"] + self.lease["size"] - MARK_BYTES
        return Mark(self.arena.view(at, MARK_BYTES), self.lease["lease"])

    def copy(self, flaws: int = 0) -> None:
        self.arena.view(self.lease["offset"], PIXELS.nbytes)[:] = PIXELS.tobytes()
        self.mark.complete(flaws)


Begin = Callable[..., Copying]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """`begin(farm)`: a client that is in the middle of its copy."""
    made: list[Copying] = []

    def start(farm: FarmProcess, **fields: Any) -> Copying:
        wire = farm.wire()
        welcome = wire.hello(farm.token)
        assert welcome["early"] is True
        arena = Arena.attach(welcome["arena"]["segment"])
        asked = {"cmd": "lease", "sizes": [PIXELS.nbytes + MARK_BYTES], "id": 1}
        (lease,) = wire.ask(asked)["leases"]
        request_id = os.urandom(8).hex()
        submit = {
            "cmd": "save_images_async",
            "id": 2,
            "request_id": request_id,
            "timestamp": "2026-01-02T03:04:05",
            "filename": "a",
            "images": [{"shape": [1, SIDE, SIDE, 3], "subdir": False}],
            "into": [lease["lease"]],
        }
        made.append(Copying(wire, arena, lease, wire.ask({**submit, **fields}), request_id))
        return made[-1]

    yield start
    for client in made:
        client.wire.socket.close()
        client.arena.close()


def saved(farm: FarmProcess, job_id: str) -> Any:
    with farm.client() as client:
        report = client.wait(job_id, 300)
        assert report.state == "done", report
        (image,) = report.images
        assert np.array_equal(np.asarray(Image.open(image.path)), PIXELS)
        return image


def unknown(farm: FarmProcess, job_id: str) -> bool:
    with farm.client() as client:
        try:
            client.job(job_id)
        except UnknownJob:
            return True
        return False


def test_what_is_marked_is_saved_without_another_word(start_farm: Any, begin: Begin) -> None:
    farm = start_farm()
    client = begin(farm)
    assert client.receipt["paths"] == [str(farm.out / "a.png")]
    assert not (farm.out / "a.png").exists()
    client.copy(flaws=2)
    until((farm.out / "a.png").exists, "the farm looks at the mark by itself")
    assert saved(farm, client.receipt["job_id"]).scores["nan_count"] == 2
    assert not client.mark.given_up


def test_a_mark_with_a_count_that_is_none_costs_no_other_row(start_farm: Any, begin: Begin) -> None:
    farm = start_farm()
    client = begin(farm)
    client.copy(flaws=2**64 - 1)
    found = saved(farm, client.receipt["job_id"]).path
    with farm.client() as other:
        until(lambda: [row.path for row in other.find()] == [found], "it is in the catalogue")


def test_a_client_that_dies_after_its_mark_has_saved(start_farm: Any, begin: Begin) -> None:
    farm = start_farm()
    client = begin(farm)
    client.copy()
    client.wire.socket.close()
    saved(farm, client.receipt["job_id"])


def test_a_client_that_dies_before_its_mark_leaves_nothing(start_farm: Any, begin: Begin) -> None:
    farm = start_farm()
    client = begin(farm)
    client.wire.socket.close()
    until(lambda: client.mark.given_up, "the farm gives it up")
    assert unknown(farm, client.receipt["job_id"])
    farm.kill()
    farm.start()
    assert unknown(farm, client.receipt["job_id"])
    assert list(farm.out.glob("*")) == []


def test_a_farm_that_is_killed_saves_what_was_marked_after_its_death(start_farm: Any, begin: Begin) -> None:
    farm = start_farm()
    client = begin(farm)
    farm.kill()
    client.copy(flaws=1)
    assert not client.mark.given_up
    farm.start()
    assert saved(farm, client.receipt["job_id"]).scores["nan_count"] == 1
    assert client.mark.given_up, "a client that is as late as this asks again, under the same request"


def test_a_farm_that_is_killed_tells_the_client_that_it_came_too_late(start_farm: Any, begin: Begin) -> None:
    farm = start_farm()
    client = begin(farm)
    farm.kill()
    farm.start()
    assert client.mark.given_up
    assert unknown(farm, client.receipt["job_id"])


@pytest.mark.parametrize("complete", [True, False])
def test_a_farm_that_is_stopped_decides_before_it_removes_its_memory(
    start_farm: Any, begin: Begin, complete: bool
) -> None:
    farm = start_farm()
    client = begin(farm)
    if complete:
        client.copy()
    assert farm.stop() == 0
    assert client.mark.given_up is not complete or (farm.out / "a.png").exists()
    farm.start()
    if complete:
        saved(farm, client.receipt["job_id"])
    else:
        assert unknown(farm, client.receipt["job_id"])


def test_the_connection_takes_the_next_request_at_once(start_farm: Any, begin: Begin) -> None:
    farm = start_farm()
    client = begin(farm)
    client.copy()
    answer = client.wire.ask({"cmd": "wait", "job_id": client.receipt["job_id"], "id": 3})
    assert [image["state"] for image in answer["images"]] == ["saved"]


def test_a_durable_image_is_asked_for_its_seal(start_farm: Any, begin: Begin) -> None:
    client = begin(start_farm(), durable=True)
    assert client.receipt == {"seal": True, "id": 2}


# --- our own client

LARGE = np.random.default_rng(5).integers(0, 256, (640, 640, 3), np.uint8)


def test_our_client_is_answered_before_its_pixels_are_there(
    start_farm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luna_farm_client.session import Session

    farm = start_farm()
    journal = farm.state / "journal"
    seen: list[bool] = []
    real = Session._copy

    def slow(self: Session, *given: Any) -> Any:
        until(lambda: b"filling" in journal.read_bytes(), "the job is journaled")
        seen.append(True)
        return real(self, *given)

    monkeypatch.setattr(Session, "_copy", slow)
    with farm.client() as client:
        receipt = client.submit(SaveRequest([SaveImage(LARGE)], filename="large"))
        assert seen == [True]
        report = client.wait(receipt, 300)
    assert report.paths == receipt.paths
    assert np.array_equal(np.asarray(Image.open(report.paths[0])), LARGE)


WITHOUT_TICKS = """
import sys
from luna_farm.cli import entry
from luna_farm.supervisor import supervisor
supervisor.TICK_S = 3600.0
sys.exit(entry.main())
"""


def test_no_image_waits_for_the_clock_of_the_farm(tmp_path: Path) -> None:
    farm = FarmProcess(tmp_path)
    farm.program = ("-c", WITHOUT_TICKS)
    try:
        farm.start()
        with farm.client() as client:
            assert client.wait(client.submit(SaveRequest([SaveImage(LARGE)])), 60).state == "done"
            receipt = client.submit(SaveRequest([SaveImage(LARGE)]))
            until(Path(receipt.paths[0]).exists, "it is saved while no client asks")
        assert farm.stop() == 0
    finally:
        farm.destroy()


def test_the_asynchronous_client_is_answered_early_too(
    start_farm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = start_farm()
    sealed: list[Any] = []
    monkeypatch.setattr("luna_farm_client.session.Session._seal", lambda *given: sealed.append(given))
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(farm.state))

    async def save() -> Any:
        async with AsyncFarmClient("127.0.0.1", farm.port) as client:
            return await client.wait(await client.submit(SaveRequest([SaveImage(LARGE)] * 2)), 60)

    report = asyncio.run(save())
    assert (report.state, sealed) == ("done", [])


def test_our_client_goes_on_after_pixels_that_are_refused(start_farm: Any) -> None:
    farm = start_farm()
    bad = np.full((640, 640, 3), 200.0, np.float32)
    with farm.client() as client:
        for _ in range(2):
            with pytest.raises(InvalidRequest, match="floats up to 200"):
                client.submit(SaveRequest([SaveImage(bad)]))
        assert client.jobs() == []
        report = client.wait(client.submit(SaveRequest([SaveImage(LARGE), SaveImage(LARGE)], durable=True)))
    assert report.state == "done"


def test_our_client_asks_again_when_the_farm_ended_meanwhile(
    start_farm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The farm is killed while the client copies, and another has given the submit up when it is done."""
    from luna_farm_client.session import Session

    farm = start_farm()
    real = Session._copy
    killed: list[bool] = []

    def interrupted(self: Session, *given: Any) -> Any:
        if not killed:
            until(lambda: b"filling" in (farm.state / "journal").read_bytes(), "the job is journaled")
            farm.kill()
            killed.append(True)
            farm.start()
        return real(self, *given)

    with farm.client() as client:
        client.ping()
        monkeypatch.setattr(Session, "_copy", interrupted)
        receipt = client.submit(SaveRequest([SaveImage(LARGE)], filename="large"))
        report = client.wait(receipt, 300)
        assert [job.job_id for job in client.jobs()] == [receipt.job_id]
    assert killed
    assert np.array_equal(np.asarray(Image.open(report.paths[0])), LARGE)


def test_a_segment_that_went_with_its_farm_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image larger than the arena lies in a segment of its own, which the next farm removes."""
    from luna_farm_client.session import Session

    farm = FarmProcess(tmp_path, arena_bytes="4MiB")
    image = np.random.default_rng(7).integers(0, 256, (1200, 1200, 3), np.uint8)
    real = Session._copy
    stopped: list[int] = []

    def restarted(self: Session, *given: Any) -> Any:
        if not stopped:
            stopped.append(farm.stop())
            farm.start()
        return real(self, *given)

    monkeypatch.setattr(Session, "_copy", restarted)
    try:
        farm.start()
        with farm.client() as client:
            report = client.wait(client.submit(SaveRequest([SaveImage(image)])), 60)
        assert stopped == [0]
        assert np.array_equal(np.asarray(Image.open(report.paths[0])), image)
        assert farm.stop() == 0
    finally:
        farm.destroy()


def test_a_hand_over_that_is_cancelled_meanwhile_costs_nothing_else(
    start_farm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image lies in memory that belongs to all: another client must find it there afterwards."""
    from luna_farm_client.session import Session

    farm = start_farm()
    real = Session._copy
    with farm.client() as client, farm.client() as other:

        def cancelled(self: Session, *given: Any) -> Any:
            job = until(other.jobs, "the job is there")[0]
            assert other.cancel(job.job_id).state == "cancelled"
            return real(self, *given)

        monkeypatch.setattr(Session, "_copy", cancelled)
        receipt = client.submit(SaveRequest([SaveImage(LARGE)]))
        monkeypatch.undo()
        assert client.job(receipt).state == "cancelled"
        for one in (client, other):
            report = one.wait(one.submit(SaveRequest([SaveImage(LARGE)])), 60)
            assert report.state == "done"
            assert np.array_equal(np.asarray(Image.open(report.paths[0])), LARGE)


KILLED_WHILE_IT_COPIES = """
import os, signal, sys
import numpy as np
from luna_farm_client import FarmClient, SaveImage, SaveRequest
from luna_farm_client.session import Session

Session._copy = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
image = np.zeros((1024, 1024, 3), np.uint8)
FarmClient("127.0.0.1", int(sys.argv[1])).submit(SaveRequest([SaveImage(image)]))
"""
SLOTS_REST_FOR_AN_HOUR = """
import sys
from luna_farm.cli import entry
from luna_farm.core import intake
intake.QUARANTINE_S = 3600.0
sys.exit(entry.main())
"""


@pytest.mark.skipif(os.name == "nt", reason="NOT TESTED: there is no SIGKILL")
def test_the_memory_of_a_client_that_was_killed_comes_back_when_it_has_ended(tmp_path: Path) -> None:
    farm = FarmProcess(tmp_path, arena_bytes="16MiB")
    farm.program = ("-c", SLOTS_REST_FOR_AN_HOUR)
    try:
        farm.start()
        environ = {**os.environ, "LUNA_FARM_STATE_DIR": str(farm.state)}
        died = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_COPIES, str(farm.port)], env=environ)
        assert died.returncode == -9
        with farm.client() as client:
            until(lambda: client.status()["arena"]["used_bytes"] == 0, "its process is gone")
            assert client.jobs() == []
        assert farm.stop() == 0
    finally:
        farm.destroy()


def test_a_client_that_its_program_forgets_gives_back_what_it_held(tmp_path: Path) -> None:
    """The farm cannot know that nothing writes into its slots any more; the client can."""
    farm = FarmProcess(tmp_path, arena_bytes="16MiB")
    farm.program = ("-c", SLOTS_REST_FOR_AN_HOUR)
    try:
        farm.start()
        for _ in range(4):
            forgotten = farm.client()
            assert forgotten.wait(forgotten.submit(SaveRequest([SaveImage(LARGE)])), 60).state == "done"
            del forgotten
            gc.collect()
        with farm.client() as client:
            until(lambda: client.status()["arena"]["used_bytes"] == 0, "all of it is back")
        assert farm.stop() == 0
    finally:
        farm.destroy()


def test_a_request_that_is_sent_once_more_costs_no_memory(tmp_path: Path) -> None:
    """Twenty of them would fill the arena, if the leases of each were kept."""
    farm = FarmProcess(tmp_path, arena_bytes="16MiB")
    request = SaveRequest([SaveImage(LARGE)], request_id="sent-again")
    try:
        farm.start()
        with farm.client(timeout=30.0) as client:
            first = client.submit(request, when_busy="report")
            for _ in range(20):
                assert client.submit(request, when_busy="report") == first
            assert client.wait(first, 300).state == "done"
            assert len(client.jobs()) == 1
        with farm.client() as client:
            until(lambda: client.status()["arena"]["used_bytes"] == 0, "all of it comes back")
        assert farm.stop() == 0
    finally:
        farm.destroy()


def test_a_batch_that_is_broken_off_keeps_no_memory(tmp_path: Path) -> None:
    """Of a client that goes on with something else: its images are larger than the arena, and only one such
    image has room."""
    farm = FarmProcess(tmp_path, arena_bytes="4MiB", max_pixels=1_400_000)
    whole = np.random.default_rng(6).integers(0, 256, (1152, 1200, 4), np.uint8)
    flawed = np.full((1152, 1200, 4), 200.0, np.float32)
    try:
        farm.start()
        with farm.client() as client, farm.client() as other:
            for images in ([flawed], [whole, flawed]):
                with pytest.raises(InvalidRequest, match="floats up to 200"):
                    client.submit(SaveRequest([SaveImage(image) for image in images]))
                until(lambda: client.status()["queue"]["images"] == 0, "what was sealed is saved")
                receipt = other.submit(SaveRequest([SaveImage(whole)]), when_busy="report")
                assert other.wait(receipt, 300).state == "done"
        assert farm.stop() == 0
    finally:
        farm.destroy()


def test_a_refusal_is_told_at_once_and_keeps_no_memory(tmp_path: Path) -> None:
    """Its pixels are copied by then: 20 of them would fill the arena, were they kept."""
    farm = FarmProcess(tmp_path, allowed_dirs=str(tmp_path / "out"), arena_bytes="16MiB")
    image = np.zeros((1024, 1024, 3), np.uint8)
    try:
        farm.start()
        with farm.client() as client:
            client.wait(client.submit(SaveRequest([SaveImage(image)])), 60)
            for _ in range(20):
                with pytest.raises(InvalidRequest, match="not allowed"):
                    client.submit(SaveRequest([SaveImage(image)], output_dir=tmp_path), when_busy="report")
            assert client.wait(client.submit(SaveRequest([SaveImage(image)])), 60).state == "done"
        assert farm.stop() == 0
    finally:
        farm.destroy()
