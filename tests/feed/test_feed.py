"""The feed by real WebSocket clients over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fake_farm import TOKEN, FakeFarm
from feed_visitor import PATIENCE_S, Visitor, settles
from free_ports import free_port
from websockets.exceptions import ConnectionClosed, InvalidStatus

from luna_farm.feed import requests, subscriber
from luna_farm.feed import server as feed_module
from luna_farm.feed.requests import Act
from luna_farm.feed.server import Feed

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "feed.schema.json").read_text("utf-8"))
VALID = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def seqs(messages: list[dict[str, Any]]) -> list[int]:
    return [message["seq"] for message in messages if "event" in message]


def is_last(seq: int) -> Any:
    return lambda message: message.get("event") and message["seq"] >= seq


async def test_the_status_comes_first_and_when_asked_for(visitor: Visitor, farm: FakeFarm) -> None:
    async with visitor.subscribe() as subscription:
        first = await subscription.next()
        assert (first["type"], first["seq"], first["data"]) == ("status", 0, farm.status())
        await subscription.send(type="get_status")
        assert (await subscription.next())["type"] == "status"


async def test_the_status_comes_again_and_again(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "STATUS_EVERY_S", 0.01)
    async with visitor.subscribe() as subscription:
        assert [(await subscription.next())["type"] for _ in range(4)] == ["status"] * 4


async def test_events_arrive_in_order_to_everybody(visitor: Visitor, farm: FakeFarm) -> None:
    async with visitor.subscribe() as one, visitor.subscribe() as two:
        sent = [event for _ in range(3) for event in farm.job()]
        for subscription in (one, two):
            got = [m for m in await subscription.until(is_last(len(sent))) if "event" in m]
            assert seqs(got) == list(range(1, len(sent) + 1))
            assert [{key: value for key, value in message.items() if key != "seq"} for message in got] == sent


async def test_every_message_follows_the_schema(visitor: Visitor, farm: FakeFarm) -> None:
    for _ in range(12):
        farm.job()
    async with visitor.subscribe("?after=2&thumbnails=1") as subscription:
        await subscription.until(lambda message: message.get("type") == "resumed")
        for _ in range(12):
            farm.job()
        for name, more in {
            "worker_started": {"worker": 1},
            "worker_ready": {"worker": 1, "pid": 4100},
            "worker_reaped": {"worker": 1, "pid": 4100, "reason": "idle"},
            "worker_lost": {"worker": 2, "pid": 4101, "reason": "killed by signal 9"},
        }.items():
            farm.event(name, None, **more)
        farm.event("image_failed", "a1b2c3d4", index=0, path="/x.png", error="full", code="disk")
        farm.event("folder_failing", "a1b2c3d4", path="/full", error="No space left on device")
        farm.event("folder_recovered", None, path="/full")
        last = farm.event("job_lost", "a1b2c3d4", index=0, path="/lost.png", error="The machine stopped.")
        farm.dead_letters.append({"job_id": "a1b2c3d4", "index": 0, "path": "/x.png", "error": "full"})
        await subscription.send(type="action", name="retry", job_id="a1b2c3d4", token=TOKEN, id="1")
        await subscription.send(type="action", name="cancel", job_id="ffffffff", token=TOKEN)
        await subscription.send(type="nonsense")
        seen = await subscription.until(lambda message: message.get("type") == "error")
    kinds = {message.get("event") or message["type"] for message in seen}
    assert kinds >= {
        "image_saved",
        "image_rejected",
        "image_failed",
        "worker_lost",
        last["event"],
        "answer",
        "error",
    }
    assert any("thumbnail" in message for message in seen)
    for message in seen:
        VALID.validate(message)


def test_the_schema_is_strict_about_what_matters() -> None:
    event = {
        "event": "image_saved",
        "job_id": "a",
        "timestamp": "2026-05-04T21:00:00Z",
        "seq": 1,
        "path": "/a",
        "bytes": 1,
        "ms": 1.0,
    }
    VALID.validate(event)
    for key in event:
        assert not VALID.is_valid({name: value for name, value in event.items() if name != key})
    assert not VALID.is_valid({**event, "score": 1.5})
    assert not VALID.is_valid({**event, "event": "image_saved_twice"})
    assert not VALID.is_valid({**event, "timestamp": "yesterday"})


async def test_an_event_is_completed_by_the_feed(visitor: Visitor, farm: FakeFarm) -> None:
    assert farm.feed is not None
    farm.feed.publish({"event": "worker_started", "worker": 1, "thumbnail": b""})
    farm.feed.publish(
        {
            "event": "image_saved",
            "job_id": "a",
            "path": "/a\udcff",
            "bytes": 1,
            "ms": 1.0,
            "thumbnail": b"\xff\xd8",
        }
    )
    async with visitor.subscribe("?after=0") as subscription:
        started, saved = [m for m in await subscription.until(is_last(2)) if "event" in m]
    assert started["job_id"] is None
    assert "thumbnail" not in started
    assert base64.b64decode(saved["thumbnail"]) == b"\xff\xd8"
    assert saved["path"] == "/a\udcff"
    VALID.validate(started)


@pytest.mark.parametrize("bad", [{"score": float("nan")}, {"path": object()}, {"num_images": "three"}])
async def test_an_event_that_cannot_be_sent_harms_nobody(
    visitor: Visitor, farm: FakeFarm, caplog: pytest.LogCaptureFixture, bad: dict[str, Any]
) -> None:
    async with visitor.subscribe() as subscription:
        farm.event("save_job_queued", "a", **bad)
        farm.event("save_started", "b", num_images=1)
        assert [m["job_id"] for m in await subscription.until(is_last(1)) if "event" in m] == ["b"]
    assert "left out" in caplog.text


async def test_going_on_after_a_break_without_hole_or_repetition(visitor: Visitor, farm: FakeFarm) -> None:
    async with visitor.subscribe() as subscription:
        farm.job()
        seen = seqs(await subscription.until(is_last(3)))
        epoch = farm.feed.epoch if farm.feed else ""
    for _ in range(3):
        farm.job()
    async with visitor.subscribe(f"?after={seen[-1]}&epoch={epoch}") as subscription:
        farm.job()
        end = farm.event("save_started", "last", num_images=1)
        got = await subscription.until(lambda message: message.get("job_id") == end["job_id"])
    assert [message.get("type") for message in got[:2]] == ["status", "resumed"]
    assert got[1]["complete"] is True
    assert seen + seqs(got) == list(range(1, got[-1]["seq"] + 1))


@pytest.mark.parametrize("query", ["?after=9999", "?after=2&epoch=deadbeef"])
async def test_numbers_of_another_farm_get_all_that_is_held(
    visitor: Visitor, farm: FakeFarm, query: str
) -> None:
    sent = len(farm.job())
    async with visitor.subscribe(query) as subscription:
        got = await subscription.until(is_last(sent))
    assert got[1]["complete"] is False
    assert seqs(got) == list(range(1, sent + 1))


async def test_a_resume_that_makes_no_sense_is_refused(visitor: Visitor) -> None:
    async with visitor.subscribe("?after=soon") as subscription:
        assert [(await subscription.next())["type"] for _ in range(2)] == ["status", "error"]


async def test_resuming_in_the_middle(visitor: Visitor, farm: FakeFarm) -> None:
    farm.job()
    async with visitor.subscribe() as subscription:
        first = (await subscription.next())["seq"]
        header = await subscription.answer(type="resume", after=first - 2)
        assert (header["first"], header["last"], header["complete"]) == (first - 1, first, True)
        assert seqs([await subscription.next(), await subscription.next()]) == [first - 1, first]


async def test_retry_works_with_the_token(visitor: Visitor, farm: FakeFarm) -> None:
    farm.dead_letters.append({"job_id": "a1b2c3d4"})
    async with visitor.subscribe() as subscription:
        answer = await subscription.answer(
            type="action", name="retry", job_id="a1b2c3d4", token=TOKEN, id="7"
        )
    assert answer == {
        "type": "answer",
        "name": "retry",
        "job_id": "a1b2c3d4",
        "id": "7",
        "ok": True,
        "result": {"job_id": "a1b2c3d4", "state": "queued"},
    }
    assert farm.acted == [("retry", "a1b2c3d4")]


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "0", "\ud800", TOKEN.upper()])
async def test_nothing_is_done_without_the_token(visitor: Visitor, farm: FakeFarm, token: str) -> None:
    farm.dead_letters.append({"job_id": "a1b2c3d4"})
    async with visitor.subscribe() as subscription:
        answer = await subscription.answer(type="action", name="retry", job_id="a1b2c3d4", token=token)
    assert (answer["ok"], answer["code"]) == (False, "unauthorized")
    assert farm.acted == []


async def test_the_farms_refusal_is_passed_on(
    visitor: Visitor, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = {"type": "action", "name": "cancel", "job_id": "ffffffff", "token": TOKEN}
    async with visitor.subscribe() as subscription:
        raised = await subscription.answer(**action)
        assert (raised["ok"], raised["code"]) == (False, "unknown_job")

        async def told(action: Act) -> dict[str, Any]:
            return {"error": "It is done already.", "code": "not_possible"}

        monkeypatch.setattr(farm.feed._actions, "_action", told)
        assert (await subscription.answer(**action))["code"] == "not_possible"


async def test_an_action_that_breaks_or_hangs_is_answered(
    visitor: Visitor, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = {"type": "action", "name": "cancel", "job_id": "a", "token": TOKEN}

    async def breaks(action: Act) -> dict[str, Any]:
        raise RuntimeError("inside")

    async def hangs(action: Act) -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()

    async with visitor.subscribe() as subscription:
        monkeypatch.setattr(farm.feed._actions, "_action", breaks)
        broken = await subscription.answer(**action)
        assert (broken["code"], "inside" in broken["error"]) == ("error", False)
        monkeypatch.setattr(farm.feed._actions, "_action", hangs)
        monkeypatch.setattr("luna_farm.feed.actions.ACTION_TIMEOUT_S", 0.0)
        assert (await subscription.answer(**action))["code"] == "timeout"


async def test_who_asks_too_often_is_shown_out(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "REQUESTS_PER_S", 0.0)
    async with visitor.subscribe() as subscription:
        await subscription.send(type="get_status")
        with pytest.raises(ConnectionClosed) as closed:
            await subscription.until(lambda message: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_a_long_message_ends_the_connection(visitor: Visitor) -> None:
    async with visitor.subscribe() as subscription:
        await subscription.connection.send("x" * (requests.MAX_BYTES + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await subscription.until(lambda message: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"additional_headers": {"Host": "evil"}}, 403),
    ],
)
async def test_foreign_pages_are_kept_out(visitor: Visitor, options: dict[str, Any], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with visitor.subscribe(**options):
            raise AssertionError("let in")
    assert refused.value.response.status_code == status


async def test_the_own_page_is_let_in_also_with_a_token(visitor: Visitor) -> None:
    names = [
        "luna-farm.v1",
        "luna-farm.token." + base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("="),
    ]
    async with visitor.subscribe(
        origin=f"http://127.0.0.1:{visitor.port}", subprotocols=names
    ) as subscription:
        assert subscription.connection.subprotocol == "luna-farm.v1"


async def test_other_paths_are_no_feed(visitor: Visitor) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with visitor.subscribe("feed"):
            raise AssertionError("let in")
    assert refused.value.response.status_code == 404


async def test_places_are_limited(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_SUBSCRIBERS", 1)
    async with visitor.subscribe() as subscription:
        await subscription.next()
        with pytest.raises(InvalidStatus) as refused:
            async with visitor.subscribe():
                raise AssertionError("let in")
    assert refused.value.response.status_code == 503


async def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_CONNECTIONS", 2)
    farm = FakeFarm()
    feed = await farm.serve()
    half_open = [await asyncio.open_connection("127.0.0.1", feed.port) for _ in range(2)]
    assert (await Visitor(farm).ask("/healthz")).status == 0
    for _, writer in half_open:
        writer.close()
        await writer.wait_closed()
    await settles(lambda: not feed._connections)
    assert (await Visitor(farm).ask("/healthz")).status == 200
    await feed.close()


@pytest.mark.parametrize(("subscribers", "window_s"), [(1, 0.05), (25, 0.05), (100, 0.2)])
async def test_the_window_grows_with_the_subscribers(
    farm: FakeFarm, subscribers: int, window_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed: Any = farm.feed
    monkeypatch.setattr(feed, "_subscribers", set(range(subscribers)))
    feed._flushed_at = feed._loop.time()
    farm.event("save_started", "a", num_images=1)
    assert feed._flush_timer.when() - feed._flushed_at == pytest.approx(window_s, abs=0.03)
    feed._flush_timer.cancel()
    feed._pending.clear()


async def test_nobody_connected_costs_nothing(
    visitor: Visitor, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "STATUS_EVERY_S", 0.001)
    feed: Any = farm.feed
    farm.job()
    assert (farm.calls, feed._flush_timer, feed._status_timer) == (0, None, None)
    async with visitor.subscribe() as subscription:
        await subscription.next()
    await settles(lambda: feed._status_timer is None)
    calls = farm.calls
    farm.job()
    assert (farm.calls, feed._flush_timer, feed._pending) == (calls, None, [])


async def test_thumbnails_are_wanted_only_by_who_looks_and_four_a_second(
    visitor: Visitor, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed: Any = farm.feed
    assert not feed.wants_thumbnail()
    async with visitor.subscribe() as subscription:
        await subscription.next()
        assert not feed.wants_thumbnail()
    async with visitor.subscribe("?thumbnails=1") as subscription:
        await subscription.next()
        before = feed._loop.time()
        with monkeypatch.context() as stopped:
            stopped.setattr(feed._loop, "time", lambda: before)
            wanted = [feed.wants_thumbnail() for _ in range(50)]
        assert wanted == [True] * 4 + [False] * 46
        feed._thumbnail_times.extend([before - 1.0] * 4)
        assert feed.wants_thumbnail()


async def silent(port: int, query: str = "") -> socket.socket:
    """Subscribe and do not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    key = base64.b64encode(b"0123456789abcdef").decode()
    first = (
        f"GET /{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    )
    lines = f"{first}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    await loop.sock_sendall(sock, lines.encode())
    return sock


async def test_one_that_never_reads_is_dropped_and_a_hundred_others_miss_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriber, "QUEUE_BYTES", 2**15)
    monkeypatch.setattr(feed_module, "KERNEL_BYTES", 2**13)
    monkeypatch.setattr(subscriber, "CLOSE_S", 0.05)
    monkeypatch.setattr(feed_module, "WINDOW_S", 0.0)
    monkeypatch.setattr(feed_module, "WRITES_PER_S", 10**9)
    farm = FakeFarm()
    feed = await farm.serve()
    visitor: Any = Visitor(farm)
    mute = await silent(feed.port)
    async with contextmany(visitor, 100) as readers:
        await settles(lambda: len(feed._subscribers) == 101)

        async def follow(reader: Any) -> list[int]:
            return seqs(await reader.until(lambda message: message.get("job_id") == "the end"))

        following = [asyncio.ensure_future(follow(reader)) for reader in readers]

        def burst() -> bool:
            farm.event("save_job_queued", "many", num_images=20, paths=["/a/long/path/" + "x" * 100] * 20)
            return feed.dropped > 0

        await settles(burst)
        last = farm.event("save_started", "the end", num_images=1)
        got = await asyncio.wait_for(asyncio.gather(*following), PATIENCE_S)
        assert last["job_id"] == "the end"
        assert all(numbers == list(range(1, feed._history.last + 1)) for numbers in got)
        assert feed.dropped == 1
        # It was told in vain and is cut off, not left to the library, which would take half a minute.
        await settles(lambda: len(feed._connections) == 100, patience_s=10)
    mute.close()
    await feed.close()


async def test_a_long_history_may_be_read_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "QUEUE_BYTES", 2**12)
    monkeypatch.setattr(feed_module, "KERNEL_BYTES", 2**13)
    monkeypatch.setattr(feed_module, "WINDOW_S", 0.0)
    monkeypatch.setattr(feed_module, "WRITES_PER_S", 10**9)
    farm = FakeFarm()
    feed = await farm.serve()
    for _ in range(400):
        farm.event("save_job_queued", "many", num_images=20, paths=["/a/long/path/" + "x" * 100] * 20)
    slow = await silent(feed.port, "?after=0")
    await settles(lambda: feed._subscribers)
    for _ in range(3):
        farm.event("save_started", "more", num_images=1)
        await settles(lambda: not feed._pending)
    assert feed.dropped == 0
    farm.event("save_started", "the end", num_images=1)
    received = b""
    while b"the end" not in received[-300:]:
        piece = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(slow, 2**20), PATIENCE_S)
        assert piece
        received += piece
    assert received.count(b"save_job_queued") == 400
    slow.close()
    await feed.close()


async def test_a_dropped_one_is_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch, visitor: Visitor, farm: FakeFarm
) -> None:
    feed: Any = farm.feed
    async with visitor.subscribe() as subscription:
        await subscription.next()
        monkeypatch.setattr(subscriber, "QUEUE_BYTES", -1)
        farm.job()
        with pytest.raises(ConnectionClosed) as closed:
            await subscription.until(lambda message: False)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, feed.dropped) == (1013, 1)


async def test_the_end_is_said_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "CLOSE_S", 0.05)
    monkeypatch.setattr(feed_module, "OPEN_TIMEOUT_S", 3600.0)
    farm = FakeFarm()
    feed = await farm.serve()
    half_open = await asyncio.open_connection("127.0.0.1", feed.port)
    mute = await silent(feed.port)
    async with Visitor(farm).subscribe() as subscription:
        await subscription.next()
        farm.event("save_started", "the end", num_images=1)
        await asyncio.wait_for(feed.close(), PATIENCE_S)
        with pytest.raises(ConnectionClosed) as closed:
            await subscription.until(lambda message: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    half_open[1].close()
    mute.close()
    await feed.close()


async def test_a_taken_port_is_an_error(farm: FakeFarm) -> None:
    assert farm.feed is not None
    with pytest.raises(OSError, match="in use"):
        await FakeFarm().serve(farm.feed.port)


async def test_the_python_example_follows_a_farm_across_a_restart() -> None:
    farm = FakeFarm()
    feed = await farm.serve(free_port())  # its successor wants it, too
    command = [
        sys.executable,
        "-u",
        str(EXAMPLES / "follow_feed.py"),
        "--url",
        f"ws://127.0.0.1:{feed.port}",
        "--retry",
    ]
    run = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, env={"LUNA_FARM_TOKEN": TOKEN, "PATH": ""}
    )
    assert run.stdout is not None

    async def line_with(text: str) -> str:
        assert run.stdout is not None
        while text not in (line := (await asyncio.wait_for(run.stdout.readline(), PATIENCE_S)).decode()):
            assert line, "the example has ended"
        return line

    await settles(lambda: feed._subscribers)
    farm.dead_letters.append({"job_id": "a1b2c3d4"})
    farm.event("image_failed", "a1b2c3d4", index=0, path="/x.png", error="the disk is full", code="disk")
    assert "the disk is full" in await line_with("image_failed")
    await line_with("queued again")
    await feed.close()
    await line_with("away")
    again = FakeFarm(seed=2)
    successor: Feed = await again.serve(feed.port)
    again.event("image_saved", "bbbbbbbb", index=0, path="/night.png", bytes=1_500_000, ms=12.0)
    assert "/night.png  1.5 MB in 12 ms" in await line_with("bbbbbbbb")
    run.kill()
    await run.wait()
    await successor.close()


class contextmany:  # noqa: N801 - reads as a word
    """Many subscriptions at once."""

    def __init__(self, visitor: Visitor, count: int) -> None:
        self._contexts = [visitor.subscribe() for _ in range(count)]

    async def __aenter__(self) -> list[Any]:
        return [await context.__aenter__() for context in self._contexts]

    async def __aexit__(self, *failure: Any) -> None:
        for context in self._contexts:
            await context.__aexit__(None, None, None)
