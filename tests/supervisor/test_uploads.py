"""What the supervisor orders from the uploader, and what becomes of it when the uploader ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from luna_farm.core import events
from luna_farm.core.instructions import StartUpload
from luna_farm.supervisor import uploads
from luna_farm.supervisor.uploads import BYTES_PER_S, REMOVED_TOGETHER, SLACK_S, Uploads


class PretendedChild:
    """Keeps what it is sent."""

    def __init__(
        self, name: str, target: object, args: object, received: Any, ended: Any, *, start_at: float
    ) -> None:
        self.received, self.ended = received, ended
        self.sent: list[dict[str, Any]] = []
        self.killed = ""
        self.pid = 1

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        pass

    def kill(self, why: str) -> None:
        self.killed = why

    async def wait(self) -> None:
        self.ended(self.killed)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the time that the supervisor sees."""
    monkeypatch.setattr(uploads, "Child", PretendedChild)
    return lambda now: monkeypatch.setattr("luna_farm.supervisor.uploads.time.monotonic", lambda: now)


def made() -> tuple[Uploads, list[tuple[events.Event, ...]]]:
    turns: list[tuple[events.Event, ...]] = []
    return Uploads(lambda *happened: turns.append(happened), (), "/spool", "/shards"), turns


def order(index: int, size: int = 0, place: str = "store") -> StartUpload:
    return StartUpload("job", index, 0, "/spool/a", "s3://b", "a.png", False, size, 10.0, place)


def child(at: Uploads) -> PretendedChild:
    found: Any = at._uploader
    assert isinstance(found, PretendedChild)
    return found


def ready(at: Uploads) -> None:
    """Have the uploader report that it is there."""
    child(at).received({"t": "answers", "answers": [{"t": "ready", "pid": 7, "created": 1.0}]})


def test_an_uploader_gets_no_order_before_a_successor_could_fence_it_off(
    clock: Callable[[float], None],
) -> None:
    """It would carry it out beside the uploader of that successor, and put images into an archive twice."""
    clock(0)
    known: list[tuple[events.Event, ...]] = []

    def handle(*happened: events.Event) -> None:
        assert child(at).sent == []
        known.append(happened)
        at.start(order(1))  # what arises meanwhile follows in order

    at = Uploads(handle, (), "/spool", "/shards")
    for _ in range(2):
        at.start(order(0))
        assert not at.remove(["/spool/a"])
        at.flush()
        assert child(at).sent == []
        ready(at)
        assert [(message["t"], message["id"]) for message in child(at).sent] == [
            ("upload", at._last - 1),
            ("upload", at._last),
        ]
        at._handle_events = lambda *_: None
        child(at).ended("killed")
        at._handle_events = handle
    assert known == [(events.UploaderReady(7, 1.0),)] * 2


def test_answers_that_come_together_are_handled_in_one_turn(clock: Callable[[float], None]) -> None:
    clock(0)
    at, turns = made()
    at.start(order(0))
    at.start(order(1))
    ready(at)
    answers = [{"t": "uploaded", "id": message["id"], "name": "a.png"} for message in child(at).sent]
    child(at).received({"t": "answers", "answers": answers})
    assert [[type(event) for event in turn] for turn in turns] == [
        [events.UploaderReady],
        [events.UploadFinished] * 2,
    ]


def test_one_that_is_ordered_ahead_may_wait_for_the_slowest_before_it(clock: Callable[[float], None]) -> None:
    clock(0)
    at, _ = made()
    size = int(1000 * BYTES_PER_S)
    at.start(order(0, size))
    at.start(order(1))
    at.start(order(2, place="other"))
    slowest = SLACK_S + 10 + 1000
    clock(SLACK_S + 11)
    at.watch()
    assert child(at).killed, "the one for another destination is overdue"
    at, _ = made()
    clock(0)
    at.start(order(0, size))
    at.start(order(1))
    clock(slowest - 1)
    at.watch()
    assert not child(at).killed
    clock(slowest + 1)
    at.watch()
    assert child(at).killed, "the large one is overdue"


def test_files_that_an_uploader_did_not_remove_are_given_back(clock: Callable[[float], None]) -> None:
    clock(0)
    at, turns = made()
    assert not at.remove(["/spool/a"]), "there is no uploader yet"
    at.start(order(0))
    ready(at)
    paths = [f"/spool/{n}" for n in range(REMOVED_TOGETHER + 1)]
    assert at.remove(paths)
    first, second = child(at).sent[1:]
    assert [*first["paths"], *second["paths"]] == paths
    child(at).received({"t": "answers", "answers": [{"t": "removed", "id": first["id"]}]})
    child(at).ended("killed")
    assert at.take_left() == paths[-1:]
    assert at.take_left() == []
    assert turns[-1] == (events.UploadFinished("job", 0, 0, decision="interrupted"),)


def test_no_uploader_is_left_once_it_is_closed(clock: Callable[[float], None]) -> None:
    clock(0)
    at, _ = made()
    at.start(order(0))
    ready(at)
    at.remove(["/spool/a"])
    asyncio.run(at.close())
    assert at.pid == 0
    assert at.take_left() == ["/spool/a"]
    assert not at.remove(["/spool/a"])
