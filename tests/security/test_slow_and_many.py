"""Those who connect and say nothing, little, or too much: none of them keeps a good client waiting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_farm import RealFarm, Wire

from luna_farm.core import frames, protocol
from luna_farm.supervisor import admission, connection, listener
from luna_farm_client import SaveImage, SaveRequest

SERVED_S = 60.0
"""A good client that is not served within this time is kept waiting, however busy the machine is."""


def serve(farm: RealFarm, tmp: object) -> float:
    """Seconds from nothing to an accepted image: connect, hello, lease, copy, submit."""
    begun = time.perf_counter()
    with farm.client() as client:
        client.submit(SaveRequest([SaveImage(np.zeros((64, 64, 3), np.uint8))], output_dir=str(tmp)))
        return time.perf_counter() - begun


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\0\x0f\xff", b"\0\0\x0f\xff\x85\xa3cmd"], ids=repr)
def test_two_hundred_slow_connections_keep_nobody_waiting(
    farm: RealFarm, tmp_path: object, said: bytes
) -> None:
    before = psutil.Process(farm.pid).memory_info().rss
    slow = [farm.knock() for _ in range(200)]
    for sock in slow:
        with contextlib.suppress(OSError):
            sock.sendall(said)
    took = [serve(farm, tmp_path) for _ in range(5)]
    print(f"a good client beside 200 slow connections: {[round(t * 1e3, 1) for t in took]} ms")
    assert sorted(took)[2] < SERVED_S
    assert psutil.Process(farm.pid).memory_info().rss - before < 8 * 2**20
    for sock in slow:
        sock.close()


def test_more_than_are_allowed_are_told_so(farm: RealFarm) -> None:
    """Known clients fill the farm; the next hears busy, and strangers give way to a good one."""
    wires = [farm.let_in() for _ in range(256)]
    with Wire(farm.knock()) as wire:
        wire.send(protocol.hello(farm.token, os.getpid()))
        assert [told["code"] for told in wire.last_words()] == ["busy"]
    for wire in wires:
        wire.sock.close()


def send_for_ever(sock: socket.socket, data: bytes) -> None:
    """The system takes megabytes for a farm that does not read them yet: some more makes no difference."""
    while True:
        sock.sendall(data)


def test_a_client_that_does_not_read_is_dropped_at_a_bound(farm: RealFarm) -> None:
    with farm.let_in() as wire:
        for n in range(40):
            wire.ask({"cmd": "lease", "id": n, "sizes": [1] * 20})
        questions = frames.encode({"cmd": "status", "id": 1}) * 200_000
        before = psutil.Process(farm.pid).memory_info().rss
        wire.sock.settimeout(60)
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            send_for_ever(wire.sock, questions)
        assert psutil.Process(farm.pid).memory_info().rss - before < 3 * connection.WRITE_BYTES
    with farm.let_in() as wire:
        assert wire.ask({"cmd": "ping", "id": 2})["pong"]


# --- deadlines, by a clock of our own


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Transport:
    """As much of a transport as a connection uses."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        self.peer, self.sent, self.closed, self.ended, self.reading = peer, b"", False, False, True

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str) -> object:
        return (self.peer, 5) if name == "peername" else None

    def write(self, data: bytes) -> None:
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = abort

    @property
    def told(self) -> list[dict[str, object]]:
        buffer = frames.FrameBuffer()
        buffer.feed(self.sent)
        return list(iter(buffer.next, None))


class Hall:
    """A listener with a clock of ours, and connections without sockets."""

    def __init__(self, most: int = 64) -> None:
        self.clock = Clock()
        self.heard: list[dict[str, object]] = []
        self.gone: list[int] = []
        handler = SimpleNamespace(
            welcome=lambda: {"welcome": 1},
            message=lambda connection, message: self.heard.append(message),
            gone=lambda connection: self.gone.append(connection.number),
        )
        self.listener = listener.Listener(handler, "token", most, self.clock)  # type: ignore[arg-type]

    def visit(self, peer: str = "127.0.0.1") -> tuple[connection.ClientConnection, Transport]:
        visitor, transport = self.listener._connection(), Transport(peer)
        visitor.connection_made(transport)  # type: ignore[arg-type]
        return visitor, transport

    def member(self) -> tuple[connection.ClientConnection, Transport]:
        visitor, transport = self.visit()
        self.say(visitor, frames.encode(protocol.hello("token", 1)))
        assert transport.told == [{"welcome": 1, "id": 0}]
        return visitor, transport

    def say(self, visitor: connection.ClientConnection, data: bytes) -> None:
        while data:
            space = visitor.get_buffer(-1)
            count = min(len(space), len(data))
            space[:count] = data[:count]
            visitor.buffer_updated(count)
            data = data[count:]

    def wait(self, seconds: float, step: float = 0.25) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += step
            self.listener.sweep()


def test_a_stranger_has_five_seconds_however_busily_it_says_little() -> None:
    hall = Hall()
    visitor, transport = hall.visit()
    for byte in frames.HEADER.pack(4000) + bytes(14):
        hall.say(visitor, bytes([byte]))
        hall.wait(0.25)
    assert not transport.ended
    hall.wait(1.0)
    assert [told["code"] for told in transport.told] == ["protocol"]
    hall.wait(2.0)
    assert transport.closed


def test_a_member_may_be_silent_but_not_in_the_middle_of_a_frame() -> None:
    hall = Hall()
    visitor, transport = hall.member()
    hall.wait(1000)
    assert not transport.ended
    hall.say(visitor, frames.HEADER.pack(1000))
    for _ in range(19):
        hall.say(visitor, b"\x81")
        hall.wait(0.25)
    assert not transport.ended
    hall.wait(0.5)
    assert [told.get("code") for told in transport.told] == [None, "protocol"]
    assert hall.gone == [visitor.number]


def test_a_large_frame_has_the_time_that_a_slow_network_takes() -> None:
    hall = Hall()
    visitor, transport = hall.member()
    hall.say(visitor, frames.HEADER.pack(10_000_000) + b"\x81\xa1x\xc6" + (9_999_991).to_bytes(4, "big"))
    hall.wait(40)
    assert not transport.ended
    hall.wait(6)
    assert transport.ended


def test_pixels_that_trickle_are_not_waited_for() -> None:
    hall = Hall()
    visitor, transport = hall.member()
    done = []
    slot = memoryview(bytearray(1_000_000))
    visitor.receive_pixels([slot], lambda: done.append(True))
    for _ in range(35):
        hall.say(visitor, b"p")
        hall.wait(0.25)
    assert not transport.ended
    hall.wait(0.5)
    assert transport.ended
    assert done == []


def test_nobody_is_late_when_the_farm_itself_was_stopped() -> None:
    hall = Hall()
    visitor, transport = hall.visit()
    hall.wait(4)
    hall.clock.now += 3600
    hall.listener.sweep()
    hall.say(visitor, frames.encode(protocol.hello("token", 1)))
    assert transport.told == [{"welcome": 1, "id": 0}]


async def test_who_sends_much_at_once_waits_for_its_turn() -> None:
    hall = Hall()
    hall.listener.handler.message = lambda *said: (  # each message takes longer than a turn
        hall.heard.append(said[1]),
        setattr(hall.clock, "now", hall.clock.now + 2 * connection.TURN_S),
    )
    visitor, transport = hall.member()
    hall.say(visitor, frames.encode({"cmd": "ping"}) * 5)
    assert (len(hall.heard), transport.reading) == (1, False)
    for turn in range(2, 6):
        await asyncio.sleep(0)
        assert len(hall.heard) == turn
    await asyncio.sleep(0)
    assert transport.reading


def test_a_burst_of_good_clients_does_not_push_each_other_out() -> None:
    hall = Hall(256)
    visitors = [hall.visit() for _ in range(200)]
    for visitor, _ in visitors:
        hall.say(visitor, frames.encode(protocol.hello("token", 1)))
    assert all(transport.told == [{"welcome": 1, "id": 0}] for _, transport in visitors)


def test_silent_strangers_give_way_even_when_all_places_are_taken() -> None:
    hall = Hall(64)
    silent = [hall.visit()[1] for _ in range(64)]
    _, refused = hall.visit()
    assert [told["code"] for told in refused.told] == ["busy"]
    hall.wait(0.25)
    hall.member()
    assert [transport.closed for transport in silent] == [True] + [False] * 63


def test_another_machine_has_a_share_of_strangers_and_of_places() -> None:
    hall = Hall(64)
    here = [hall.visit()[1] for _ in range(10)]
    there = [hall.visit("10.0.0.5")[1] for _ in range(8)]
    hall.wait(0.25)
    ninth = hall.visit("10.0.0.5")[1]
    assert [there[0].closed, there[1].closed, ninth.closed] == [True, False, False]
    assert not any(transport.closed for transport in here)
    for _ in range(24):
        visitor, _ = hall.visit("10.0.0.6")
        hall.say(visitor, frames.encode(protocol.hello("token", 1)))
    for _ in range(8):
        hall.visit("10.0.0.6")
    _, refused = hall.visit("10.0.0.6")
    assert "from one other machine" in str(refused.told)


def test_refused_peers_that_linger_are_bounded() -> None:
    hall = Hall(4)
    for _ in range(4):
        hall.member()
    refused = [hall.visit()[1] for _ in range(40)]
    assert sum(not transport.closed for transport in refused) == listener.MAX_LEAVING
    assert all(transport.told for transport in refused)
    hall.wait(2)
    assert all(transport.closed for transport in refused)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        (("127.0.0.1", 1), ""),
        (("127.8.8.8", 1), ""),
        (("::1", 1, 0, 0), ""),
        (("::ffff:127.0.0.1", 1, 0, 0), ""),
        (("::ffff:10.0.0.5", 1, 0, 0), "10.0.0.5"),
        (("10.0.0.5", 1), "10.0.0.5"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        (("nonsense", 1), "?"),
        ((), "?"),
        (None, "?"),
        ("/run/socket", "?"),
    ],
)
def test_what_a_peer_is_counted_as(address: object, counted: str) -> None:
    assert admission.origin(address) == counted


GUESTS = st.builds(
    SimpleNamespace,
    peer=st.sampled_from(("", "10.0.0.5", "10.0.0.6")),
    unauthenticated=st.booleans(),
    since=st.floats(0, 10),
)


@given(st.lists(GUESTS, max_size=40), st.sampled_from(("", "10.0.0.5")), st.integers(4, 40))
def test_whoever_decides_keeps_the_bounds(guests: list[SimpleNamespace], peer: str, most: int) -> None:
    guests = sorted(guests, key=lambda guest: guest.since)[:most]
    decided = admission.decide(guests, peer, most, 10.0)
    left = len(guests) - (decided.evict is not None) + decided.admitted
    assert left <= most
    if decided.evict is not None:
        assert decided.evict.unauthenticated
        assert 10.0 - decided.evict.since > admission.GRACE_S
        assert decided.admitted
    if not decided.admitted:
        assert len(guests) == most or sum(guest.peer == peer for guest in guests) >= most // 2


def test_sockets_of_a_burst_are_taken_whole(farm: RealFarm) -> None:
    """Real ones: 120 clients at once, each with its hello on the way, all let in."""
    socks = []
    for _ in range(120):
        sock = socket.socket()
        sock.connect(("127.0.0.1", farm.port))
        sock.sendall(frames.encode(protocol.hello(farm.token, os.getpid())))
        socks.append(sock)
    for sock in socks:
        sock.settimeout(60)
        answer = Wire(sock).hear()
        assert answer is not None
        assert answer["protocol"] == "luna-farm"
        sock.close()
