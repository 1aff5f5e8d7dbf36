"""What arrives at the job port and is no client: refused by one clear frame, and nothing of it stays."""

from __future__ import annotations

import os
import pickle
import socket
import struct

import msgpack
import pytest
from real_farm import RealFarm, Wire

from luna_farm.core import frames, protocol

HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: null\r\n\r\n"
)
TLS = bytes.fromhex("16030100c8010000c40303") + bytes(195)
PREAMBLES = {
    "http": HTTP,
    "http-post-that-goes-on": b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
    "websocket": WEBSOCKET,
    "tls": TLS,
    "pickle": pickle.dumps({"cmd": "save_images_async", "images": [b"x" * 5000]}),
    "length-and-pickle": struct.pack(">I", 60) + pickle.dumps(os.getcwd, protocol=4).ljust(60, b"."),
    "nothing-as-length": bytes(64),
    "two-gigabytes": struct.pack(">I", 2**31) + b"x" * 4096,
}


@pytest.mark.parametrize("preamble", PREAMBLES.values(), ids=PREAMBLES)
def test_foreign_protocols_hear_one_refusal_and_the_end(farm: RealFarm, preamble: bytes) -> None:
    with Wire(farm.knock()) as wire:
        wire.sock.sendall(preamble)
        (told,) = wire.last_words()
    assert told["code"] == "protocol"
    assert told["error"]
    assert not farm.out.exists()


HELLO = {"cmd": "hello", "protocol": "luna-farm", "version": 2, "token": "x" * 43, "pid": 1}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, "unauthorized"),
        ({"token": ""}, "unauthorized"),
        ({"token": None}, "unauthorized"),
        ({"token": b"x"}, "unauthorized"),
        ({"token": "x" * 3000}, "unauthorized"),
        ({"token": "\u202e\u0000é"}, "unauthorized"),
        ({"version": 1}, "protocol"),
        ({"version": [[1]]}, "protocol"),
        ({"protocol": "http"}, "protocol"),
        ({"cmd": "save_images_async"}, "protocol"),
        ({"cmd": "shutdown"}, "protocol"),
    ],
)
def test_a_hello_that_is_wrong_is_refused(farm: RealFarm, changed: dict[str, object], code: str) -> None:
    with Wire(farm.knock()) as wire:
        wire.send({**HELLO, **changed})
        (told,) = wire.last_words()
    assert told["code"] == code
    assert farm.token not in str(told)


def test_commands_behind_a_wrong_hello_are_not_heard(farm: RealFarm) -> None:
    with Wire(farm.knock()) as wire:
        wire.sock.sendall(frames.encode(HELLO) + frames.encode({"cmd": "shutdown", "id": 1}) * 500)
        assert [told["code"] for told in wire.last_words()] == ["unauthorized"]
    with farm.let_in() as wire:
        assert wire.ask({"cmd": "ping", "id": 2})["pong"]


def deep(levels: int) -> bytes:
    """A hello frame whose id is nested lists that claim 4,000 items each."""
    body = b"\x82\xa3cmd\xa5hello\xa2id" + b"\xdc\x0f\xa0" * levels
    return struct.pack(">I", len(body)) + body


def test_a_hello_of_nested_claims_is_refused(farm: RealFarm) -> None:
    with Wire(farm.knock()) as wire:
        wire.sock.sendall(deep(1300))
        assert [told["code"] for told in wire.last_words()] == ["protocol"]


@pytest.mark.parametrize("value", [True, 1.5, "7", [1], {"a": {"b": 1}}, None, b"x"])
def test_an_id_that_is_no_number_is_refused(farm: RealFarm, value: object) -> None:
    with Wire(farm.knock()) as wire:
        wire.send({**protocol.hello(farm.token, os.getpid()), "id": value})
        assert [told["code"] for told in wire.last_words()] == ["protocol"]
    with farm.let_in() as wire:
        wire.send({"cmd": "ping", "id": value})
        assert [told["code"] for told in wire.last_words()] == ["protocol"]


def nest(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"images": nest(400)},
        {"images": [nest(300)]},
        {"images": [{"shape": nest(300)}]},
        {"images": [{"shape": [1, 2**63, 2**63, 3]}]},
        {"images": [{"shape": [2**32, 2**16, 2**16, 3]}]},
        {"images": [{"shape": [1, 8, 8, 3], "dtype": "O"}]},
        {"images": [{"shape": [1, 8, 8, 3], "dtype": "float64"}]},
        {"images": [{"shape": [1, 8, 8, 2]}]},
        {"images": [{"shape": [True, 8, 8, 3]}]},
        {"images": [{}] * 2000},
        {"images": {"a": 1}},
        {"images": [{"shape": [1, 8, 8, 3]}], "want": [-1]},
        {"images": [{"shape": [1, 8, 8, 3]}], "output_dir": "../up"},
        {"images": [{"shape": [1, 8, 8, 3]}], "min_quality_threshold": float("nan")},
        # What is no JSON is kept as a text: metadata never costs an image. Only its length is bounded.
        {"images": [{"shape": [1, 8, 8, 3]}], "custom_metadata": "[" * (15 * 2**20 + 1)},
        {"images": [{"shape": [1, 8, 8, 3]}], "timestamp": "9999-99-99"},
        {"images": [{"shape": [1, 8, 8, 3]}], "save_path": b"\xff"},
        {"request_id": "../../x", "images": [{"shape": [1, 8, 8, 3]}]},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_every_field_of_a_submit_has_a_bound(farm: RealFarm, fields: dict[str, object]) -> None:
    submit = {"cmd": "save_images_async", "request_id": "abcdefgh", "timestamp": "2026-01-02T03:04:05"}
    with farm.let_in() as wire:
        told = wire.ask({**submit, "id": 5, **fields})
        assert told["code"] in ("invalid", "too_large", "protocol", "stale_lease")
        assert len(told["error"]) < 600
        if told.get("id") == 5:  # it goes on: nothing of the refused request is left
            assert wire.ask({"cmd": "ping", "id": 6}) == {"pong": True, "id": 6}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"cmd": "x" * 100_000}, "protocol"),
        ({"cmd": "__class__"}, "protocol"),
        ({"cmd": None}, "protocol"),
        ({"cmd": "job", "job_id": "x" * 65}, "invalid"),
        ({"cmd": "job", "job_id": "../../etc"}, "unknown_job"),
        ({"cmd": "jobs", "limit": 2**40}, "invalid"),
        ({"cmd": "wait", "job_id": "a", "timeout": 1e9}, "invalid"),
        ({"cmd": "lease", "sizes": [2**62]}, "too_large"),
        ({"cmd": "lease", "sizes": [2**62, 2**62]}, "too_large"),
        ({"cmd": "lease", "sizes": [2**61]}, "too_large"),
        ({"cmd": "lease", "sizes": [1] * 100_001}, "protocol"),
        ({"cmd": "lease", "sizes": [1] * 1025}, "invalid"),
        ({"cmd": "release", "leases": ["a"]}, "invalid"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_field_of_the_other_commands_has_a_bound(
    farm: RealFarm, message: dict[str, object], code: str
) -> None:
    with farm.let_in() as wire:
        told = wire.ask({**message, "id": 9})
        assert told["code"] == code
        assert len(told["error"]) < 600


def test_one_client_holds_a_bounded_number_of_leases(farm: RealFarm) -> None:
    with farm.let_in() as wire:
        answers = [wire.ask({"cmd": "lease", "id": n, "sizes": [1] * 512}) for n in range(3)]
        assert [len(a["leases"]) for a in answers[:2]] == [512, 512]
        assert answers[2]["code"] == "too_large"
        assert "release" in answers[2]["error"]
        for answer in answers[:2]:
            assert wire.ask(
                {"cmd": "release", "id": 9, "leases": [lease["lease"] for lease in answer["leases"]]}
            )["success"]


def bomb(lists: int) -> bytes:
    """A message of empty lists: a byte each on the wire, 64 in memory."""
    inner = b"\xdc" + struct.pack(">H", 500) + b"\x90" * 500
    body = b"\x83\xa2id\x01\xa3cmd\xa4ping\xa1x\xdc" + struct.pack(">H", lists // 500)
    body += inner * (lists // 500)
    return struct.pack(">I", len(body)) + body


def test_a_message_that_would_unfold_in_memory_is_refused(farm: RealFarm) -> None:
    import psutil

    with farm.let_in() as wire:
        assert wire.ask({"cmd": "ping", "id": 1})["pong"]
        before = psutil.Process(farm.pid).memory_info().rss
        wire.sock.sendall(bomb(250_000))
        assert [told["code"] for told in wire.last_words()] == ["protocol"]
    assert psutil.Process(farm.pid).memory_info().rss - before < 8 * 2**20


def test_extensions_are_refused(farm: RealFarm) -> None:
    with farm.let_in() as wire:
        for value in (msgpack.ExtType(1, b""), msgpack.Timestamp(1)):
            body = msgpack.packb({"cmd": "ping", "id": 1, "x": value})
            with farm.let_in() as other:
                other.sock.sendall(struct.pack(">I", len(body)) + body)
                assert [told["code"] for told in other.last_words()] == ["protocol"]
        assert wire.ask({"cmd": "ping", "id": 1})["pong"]


def test_a_refused_seal_with_pixels_behind_it_is_told_why(farm: RealFarm) -> None:
    """The client is in the middle of sending megabytes: it must find the sentence, not a broken pipe."""
    with farm.let_in() as wire:
        wire.send({"cmd": "seal", "id": 3, "parts": [[99, 1]], "inline": True, "sizes": [3_000_000]})
        wire.sock.sendall(bytes(3_000_000))
        (told,) = wire.last_words()
    assert told["code"] == "invalid"


def test_a_seal_with_fewer_sizes_than_parts_is_refused(farm: RealFarm) -> None:
    """A slot that nothing is written into holds pixels of another job."""
    with farm.let_in() as wire:
        leases = [row["lease"] for row in wire.ask({"cmd": "lease", "id": 1, "sizes": [64, 64]})["leases"]]
        parts = [[lease, 1] for lease in leases]
        wire.send({"cmd": "seal", "id": 2, "parts": parts, "inline": True, "sizes": [64]})
        (told,) = wire.last_words()
    assert (told["code"], told["error"].startswith("sizes: 1 is not allowed; allowed: 2 sizes")) == (
        "invalid",
        True,
    )


def test_the_job_port_answers_on_loopback_only(farm: RealFarm) -> None:
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {
        "127.0.0.1",
        "127.0.1.1",
    }
    for address in others:
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((address, farm.port), 1.0)
