"""Frames: any cut of the stream gives the same messages, and nothing is buffered that was not allowed."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luna_farm.core import frames
from luna_farm.errors import ProtocolError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)


@settings(max_examples=40)
@given(st.lists(MESSAGES, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_however_the_stream_is_cut_the_messages_are_the_same(
    messages: list[dict[str, Any]], cuts: list[int]
) -> None:
    stream = b"".join(map(frames.encode, messages))
    buffer = frames.FrameBuffer()
    seen = []
    at = step = 0
    while at < len(stream):
        size = cuts[step % len(cuts)]
        buffer.feed(stream[at : at + size])
        at, step = at + size, step + 1
        while (message := buffer.next()) is not None:
            seen.append(message)
    assert seen == messages
    assert buffer.pending == 0


@pytest.mark.parametrize(
    "preamble",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes.fromhex("1603010200010001fc0303"),
        b"\x80\x04\x95\x0c\x00\x00\x00",
        b"\x00\x00\x00\x00",
        struct.pack(">I", frames.HELLO_LIMIT + 1),
    ],
    ids=["http", "tls", "pickle", "nothing", "one-too-many"],
)
def test_a_length_above_the_limit_is_refused_at_its_fourth_byte(preamble: bytes) -> None:
    buffer = frames.FrameBuffer(frames.HELLO_LIMIT)
    for byte in preamble[:3]:
        buffer.feed(bytes([byte]))
        assert buffer.next() is None
    buffer.feed(preamble[3:4])
    with pytest.raises(ProtocolError, match="allowed here are 1 to 4096"):
        buffer.next()


def test_the_limit_itself_is_allowed() -> None:
    assert frames.check_length(frames.HELLO_LIMIT, frames.HELLO_LIMIT) == frames.HELLO_LIMIT


def test_what_follows_the_last_message_can_be_taken_as_it_is() -> None:
    buffer = frames.FrameBuffer()
    buffer.feed(frames.encode({"a": 1}) + b"raw pixels")
    assert buffer.next() == {"a": 1}
    assert buffer.take_rest() == b"raw pixels"
    assert buffer.pending == 0


@pytest.mark.parametrize(
    "body",
    [
        msgpack.packb([1, 2]),
        msgpack.packb(7),
        msgpack.packb({1: 2}),
        msgpack.packb({b"bytes": 2}),
        msgpack.packb({"x": msgpack.ExtType(5, b"data")}),
        msgpack.packb({"x": msgpack.ExtType(5, b"")}),
        msgpack.packb({"x": msgpack.Timestamp(1)}),
        b"\x81\xa1\xff\x01",
        b"\x81",
        msgpack.packb({"a": 1}) + b"more",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x81\xa1a" + b"\x91" * 4000 + b"\x01",
        b"\xc1",
    ],
    ids=[
        "list",
        "number",
        "number-key",
        "bytes-key",
        "extension",
        "empty-extension",
        "timestamp",
        "not-utf8",
        "cut",
        "too-long",
        "huge-map",
        "huge-list",
        "deep",
        "reserved",
    ],
)
def test_what_is_not_one_plain_map_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="one msgpack map"):
        frames.decode(body)


@given(st.binary(max_size=200))
@example(b"\xc7\x00\x05")
def test_any_bytes_are_a_map_or_a_protocol_error(body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(frames.decode(body), dict)


def test_lists_and_maps_are_bounded_in_length_and_in_number() -> None:
    assert frames.decode(msgpack.packb({"x": list(range(9))}), items=9)
    with pytest.raises(ProtocolError):
        frames.decode(msgpack.packb({"x": list(range(10))}), items=9)
    nested = {"x": [[[] for _ in range(9)] for _ in range(9)]}
    with pytest.raises(ProtocolError, match="too many lists and maps"):
        frames.decode(msgpack.packb(nested), items=9)
    assert frames.decode(msgpack.packb(nested), items=18) == nested


def test_it_knows_how_long_the_frame_will_be_that_has_begun() -> None:
    buffer = frames.FrameBuffer()
    frame = frames.encode({"a": 1})
    assert (buffer.announced, buffer.pending) == (0, 0)
    buffer.feed(frame[:3])
    assert (buffer.announced, buffer.pending) == (0, 3)
    buffer.feed(frame[3:5])
    assert (buffer.announced, buffer.pending) == (len(frame) - 4, 5)


def test_a_frame_that_does_not_decode_leaves_the_buffer_usable() -> None:
    buffer = frames.FrameBuffer()
    buffer.feed(struct.pack(">I", 1) + b"\xc1")
    with pytest.raises(ProtocolError):
        buffer.next()
    assert buffer.take_rest() != b""
