"""Frames: a 4-byte big-endian unsigned length, then one msgpack map of that many bytes.

Used alike by clients, the job listener and the pipes to the workers. No pickle, ever. This module knows
bytes, not sockets, and must never buffer more than the limit that its caller set: a declared length is judged
before its payload.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import msgpack

from luna_farm.errors import ProtocolError

T = TypeVar("T")
HEADER = struct.Struct(">I")
HELLO_LIMIT = 4 * 1024
"""Bytes that an unauthenticated peer may declare. Read as a length, "GET " is 1.1 GB, a TLS hello 352 MB, a
pickle 2 GB."""
FRAME_LIMIT = 16 * 1024 * 1024
"""Bytes of a later frame; workflows of ComfyUI stay below 1 MiB, this leaves room for embedded inputs."""
MAX_ITEMS = 100_000
"""Items of one list or map of a trusted peer; msgpack's own recursion limit bounds the depth."""
HELLO_ITEMS = 16
"""Items of one list or map of an unauthenticated peer. A list gets the length that it claims before its first
item is read, so 4 KB of nested claims would cost 27 MB."""


def encode(message: dict[str, Any]) -> bytes:
    """Return the frame of one message: header and msgpack map."""
    body: bytes = msgpack.packb(message)
    return HEADER.pack(len(body)) + body


def decode(body: bytes | bytearray | memoryview, items: int = MAX_ITEMS) -> dict[str, Any]:
    """Return the map in the payload of one frame.

    Raises ProtocolError when it is not one msgpack map with text keys, holds extension types, is nested too
    deep, has a list or map of more than `items`, or more than 2 * `items` + 64 of them: an empty list is one
    byte on the wire and 64 in memory.
    """
    most = 2 * items + 64
    # Each takes a byte at least: a short frame cannot hold too many, and need not call back for each.
    count = _Count(most) if len(body) > most else None
    try:
        message = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            max_array_len=items,
            max_map_len=items,
            max_ext_len=0,
            list_hook=count,
            object_hook=count,
            ext_hook=_refuse_extension,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(
            f"A frame must hold one msgpack map; this one does not decode: {error}."
        ) from None
    if not isinstance(message, dict) or not set(map(type, message)) <= {str}:
        raise ProtocolError("A frame must hold one msgpack map with text keys.")
    return message


class _Count:
    """Lets `left` lists and maps pass."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, container: T) -> T:
        self.left -= 1
        if self.left < 0:
            raise ValueError("too many lists and maps")
        return container


def _refuse_extension(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code}")  # one without data is within any length


def check_length(length: int, limit: int) -> int:
    """Return `length`, or raise ProtocolError when it is 0 or above `limit` bytes."""
    if not 0 < length <= limit:
        raise ProtocolError(
            f"A frame of {length} bytes was announced; allowed here are 1 to {limit}. "
            "Speak the luna-farm protocol on this port (the dashboard is on the feed port)."
        )
    return length


class FrameBuffer:
    """Cuts a stream of bytes into messages, sans input and output: `feed` bytes, iterate over whole messages.

    `limit` (bytes of a frame) and `items` (of one list or map in it) may be raised after a hello. Holds at
    most one frame of `limit` bytes plus what one `feed` brought.
    """

    def __init__(self, limit: int = FRAME_LIMIT, items: int = MAX_ITEMS) -> None:
        self.limit = limit
        self.items = items
        self._held = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes as they came from the wire."""
        self._held += data

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._held)

    @property
    def announced(self) -> int:
        """Bytes that the frame which is not whole yet will have, as far as that is known."""
        return HEADER.unpack_from(self._held)[0] if len(self._held) >= HEADER.size else 0

    def take_rest(self) -> bytes:
        """Return and forget the bytes behind the last whole message (raw pixels may follow a submit)."""
        # A new buffer: an error on its way up may still hold a view on the old one.
        rest, self._held = bytes(self._held), bytearray()
        return rest

    def next(self) -> dict[str, Any] | None:
        """Return the next whole message, or None when more bytes are needed. Raises ProtocolError."""
        if len(self._held) < HEADER.size:
            return None
        end = HEADER.size + check_length(HEADER.unpack_from(self._held)[0], self.limit)
        if len(self._held) < end:
            return None
        with memoryview(self._held) as view:
            message = decode(view[HEADER.size : end], self.items)
        del self._held[:end]
        return message
