"""One subscriber of the feed: how much may wait for it, and how often it may ask.

Finished frames go straight to the transport, many in one write; the websockets library does the handshake,
the pings and the close. This module must never wait for a subscriber: one that reads too slowly is
asked to come back and is dropped.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode
from websockets.protocol import State

from luna_farm.feed.history import Published

log = logging.getLogger("luna_farm.feed")

QUEUE_BYTES = 2**19
"""What may wait in the farm for one subscriber, beyond what the kernel holds."""
KERNEL_BYTES = 2**18
CLOSE_S = 2.0
REQUESTS_PER_S = 20.0

# ASCII on the wire: also a path that is no valid Unicode (a lone surrogate) makes a valid JSON text and a
# valid frame.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def frame(message: Mapping[str, Any]) -> bytes:
    """Encode one message as a whole, unmasked WebSocket text frame. Raises TypeError or ValueError if it is
    not JSON."""
    text = _encode(message).encode()
    size = len(text)
    # RFC 6455, section 5.2: FIN and TEXT, then the length in one of three forms. The library's own way there
    # takes as long as the JSON, and every event of the farm comes by.
    if size < 126:
        return bytes((0x81, size)) + text
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text


def event_frame(told: Published) -> bytes:
    """Encode an event with its `seq`, and `timestamp` and `job_id` (null: of no job) if they are missing;
    the bytes of a `thumbnail` become base64. Raises TypeError or ValueError if it is not JSON."""
    message = {"job_id": None, "timestamp": "", **told.event, "seq": told.seq}
    message["timestamp"] = message["timestamp"] or utc_text(told.at)
    image = message.pop("thumbnail", b"")
    if image:
        message["thumbnail"] = image if isinstance(image, str) else base64.b64encode(image).decode()
    return frame(message)


def utc_text(at: float) -> str:
    """Return a time as the feed writes it: ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")


class Subscriber:
    """An open connection. `thumbnails`: the reader shows images."""

    def __init__(self, connection: ServerConnection, *, thumbnails: bool, now: float) -> None:
        self.thumbnails = thumbnails
        self._connection = connection
        self._transport = connection.transport
        self._grace = 0
        self._allowance = REQUESTS_PER_S
        self._asked_at = now
        self._closing: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """True if nothing waits for this subscriber."""
        return self._transport.get_write_buffer_size() == 0

    def push(self, buffer: bytes) -> bool:
        """Hand over whole frames. False: it reads too slowly and got nothing."""
        if self._connection.state is not State.OPEN:
            return True  # it is leaving by itself
        waiting = self._transport.get_write_buffer_size()
        if waiting > QUEUE_BYTES + self._grace:
            return False
        if waiting <= QUEUE_BYTES:
            self._grace = 0
        self._transport.write(buffer)
        return True

    def replay(self, buffer: bytes) -> bool:
        """Hand over a piece of history: it may wait beyond the usual bound, once, until it is read."""
        pushed = self.push(buffer)
        self._grace = len(buffer) if pushed else 0
        return pushed

    def may_ask(self, now: float) -> bool:
        """Count one request; False if they come faster than `REQUESTS_PER_S`, with as many in one go."""
        gained = (now - self._asked_at) * REQUESTS_PER_S
        self._allowance = min(REQUESTS_PER_S, self._allowance + gained) - 1
        self._asked_at = now
        return self._allowance >= 0

    def drop(self, code: CloseCode, reason: str) -> None:
        """Close, and after `CLOSE_S` no longer politely. Returns at once."""
        if self._closing is None:
            loop = asyncio.get_running_loop()
            # The close frame waits behind everything unread, possibly forever: only abort() is sure to end
            # it.
            loop.call_later(CLOSE_S, self._transport.abort)
            self._closing = loop.create_task(self._connection.close(code, reason))


def guest_type(connections: set[ServerConnection], limit: int) -> type[ServerConnection]:
    """Return the kind of connection that keeps itself in `connections`, and turns away what is above
    `limit`."""

    class Peer(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            connections.add(self)
            if len(connections) > limit:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            connections.discard(self)
            super().connection_lost(exc)

    return Peer
