"""The job listener: bytes of a TCP connection <-> messages, and pixels from a socket straight into a slot.

Judges who may speak (token, user, number, patience) and what may be buffered; what a message means is
`commands.py`. This module must never hold more of a stranger than one small frame, and never wait for
anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import ssl
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, cast

from luna_farm import system
from luna_farm.core import frames
from luna_farm.core.intake import refusal
from luna_farm.core.protocol import NAME, VERSION
from luna_farm.errors import FarmBusy, FarmError, ProtocolError, Unauthorized

log = logging.getLogger("luna_farm.listener")

READ_BYTES = 64 * 1024
HELLO_S = 5.0
"""Time for the hello, and for the rest of any frame that has begun."""
PIXELS_S = 30.0
"""Time without a single byte of announced pixels."""
MAX_STRANGERS = 32
"""Connections without a hello; another one pushes the oldest out, so that slow ones cannot keep good ones
waiting."""
WRITE_BYTES = 32 * 1024 * 1024
"""Answers that a client may leave unread before it is dropped."""


class Phase(Enum):
    """Where a connection is: nothing but a hello is taken from a STRANGER."""

    STRANGER = "stranger"
    OPEN = "open"
    PIXELS = "pixels"
    CLOSED = "closed"


PHASES: dict[Phase, frozenset[Phase]] = {
    Phase.STRANGER: frozenset({Phase.OPEN, Phase.CLOSED}),
    Phase.OPEN: frozenset({Phase.PIXELS, Phase.CLOSED}),
    Phase.PIXELS: frozenset({Phase.OPEN, Phase.CLOSED}),
    Phase.CLOSED: frozenset(),
}


class Handler(Protocol):
    """What the listener needs of `commands.py`."""

    def welcome(self) -> dict[str, Any]:
        """Return what a client learns about the farm when it is let in."""

    def message(self, connection: Connection, message: dict[str, Any]) -> None:
        """Take a message of a known client; raises FarmError to have it refused."""

    def gone(self, connection: Connection) -> None:
        """A known client is gone."""


class Connection(asyncio.BufferedProtocol):
    """One client. `number` names it in events; `may_write` tells that its process may outlive it."""

    def __init__(self, listener: Listener, number: int) -> None:
        self.number = number
        self.pid = 0
        self._listener = listener
        self._phase = Phase.STRANGER
        self._frames = frames.FrameBuffer(frames.HELLO_LIMIT)
        self._space = bytearray(READ_BYTES)
        self._pixels: deque[memoryview] = deque()
        self._then: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None
        self.deadline: float | None = listener.now() + HELLO_S

    @property
    def stranger(self) -> bool:
        """No hello yet."""
        return self._phase is Phase.STRANGER

    @property
    def may_write(self) -> bool:
        """Whether the client's process still exists, and may be in the middle of filling a slot."""
        return self.pid > 0 and system.process_exists(self.pid)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer connected: check its user, then wait for its hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES)
        error = self._listener.admit(self)
        if error:
            self.refuse(error)

    def pause_writing(self) -> None:
        """The peer left WRITE_BYTES of answers unread: drop it."""
        self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: into the slot while pixels are announced, else into our own small
        space."""
        return self._pixels[0] if self._pixels else memoryview(self._space)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived where `get_buffer` said."""
        try:
            if self._phase is Phase.PIXELS:
                self._filled(nbytes)
            elif self._phase is not Phase.CLOSED:
                self._frames.feed(memoryview(self._space)[:nbytes])
            self._messages()
        except FarmError as error:
            self.refuse(error)

    def _messages(self) -> None:
        while self._phase in (Phase.STRANGER, Phase.OPEN):
            message = self._frames.next()
            if message is None:
                self.deadline = self._patience()
                return
            if self._phase is Phase.STRANGER:
                self._hello(message)
            else:
                self._listener.handler.message(self, message)

    def _patience(self) -> float | None:
        """A known client may be idle for as long as it likes, but not in the middle of a frame."""
        if self._phase is Phase.STRANGER:
            return self.deadline
        return self._listener.now() + HELLO_S if self._frames.pending else None

    def _hello(self, message: dict[str, Any]) -> None:
        if message.get("cmd") != "hello" or message.get("protocol") != NAME:
            raise ProtocolError(f"The first frame must be a hello of the protocol {NAME!r}.")
        if message.get("version") != VERSION:
            raise ProtocolError(
                f"This farm speaks version {VERSION} of its protocol, the client {message.get('version')!r}: "
                "install the same version of luna-farm on both sides."
            )
        token = message.get("token")
        if not isinstance(token, str) or not hmac.compare_digest(
            token.encode(), self._listener.token.encode()
        ):
            raise Unauthorized(
                "The token is not that of this farm; it is in the file `token` of its state folder."
            )
        pid = message.get("pid")
        self.pid = pid if isinstance(pid, int) and 0 < pid < 2**31 else 0
        self._move(Phase.OPEN)
        self._frames.limit = frames.FRAME_LIMIT
        self.send({**self._listener.handler.welcome(), "id": message.get("id", 0)})

    def receive_pixels(self, views: list[memoryview], then: Callable[[], None]) -> None:
        """Have the bytes that follow go into `views`, in order, and call `then` when the last one is
        there."""
        self._pixels = deque(view for view in views if len(view))
        self._then = then
        self.deadline = self._listener.now() + PIXELS_S
        self._move(Phase.PIXELS)
        rest = memoryview(self._frames.take_rest())
        while rest and self._pixels:
            count = min(len(rest), len(self._pixels[0]))
            self._pixels[0][:count] = rest[:count]
            rest = rest[count:]
            self._filled(count)
        if rest:
            self._frames.feed(rest)

    def _filled(self, count: int) -> None:
        self.deadline = self._listener.now() + PIXELS_S
        self._pixels[0] = self._pixels[0][count:]
        if len(self._pixels[0]):
            return
        self._pixels.popleft()
        if not self._pixels and self._then:
            self._move(Phase.OPEN)
            then, self._then = self._then, None
            then()

    def _move(self, to: Phase) -> None:
        if to not in PHASES[self._phase]:
            raise AssertionError(f"connection {self.number} cannot go from {self._phase.value} to {to.value}")
        self._phase = to

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; to a client that is gone, nothing."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(frames.encode(message))

    def refuse(self, error: FarmError) -> None:
        """Send one frame that says why, and close."""
        if self._phase is not Phase.CLOSED:
            log.info("Connection %d is refused: %s", self.number, error)
            self.send(refusal(error))
            self._closed()
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, without a word."""
        self._closed()
        if self._transport:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone."""
        self._closed()

    def _closed(self) -> None:
        if self._phase is Phase.CLOSED:
            return
        known = not self.stranger
        self._move(Phase.CLOSED)
        self._pixels.clear()
        self._then = None
        self._listener.forget(self, known)


class Listener:
    """The TCP port for jobs, and the door: how many may connect, who, and for how long without a word."""

    def __init__(self, handler: Handler, token: str, max_connections: int, now: Callable[[], float]) -> None:
        self.handler = handler
        self.token = token
        self.now = now
        self.port = 0
        self.connections: dict[int, Connection] = {}
        self._max = max_connections
        self._last = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen; afterwards `port` is the real one. Raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port, ssl=tls, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]

    def _connection(self) -> Connection:
        self._last += 1
        return Connection(self, self._last)

    def admit(self, connection: Connection) -> FarmError | None:
        """Let a connection stay, or say why not."""
        strangers = [c for c in self.connections.values() if c.stranger]
        if len(strangers) >= MAX_STRANGERS:
            strangers[0].abort()
        if len(self.connections) >= self._max:
            return FarmBusy(
                f"{self._max} clients are connected, as many as the setting max_connections allows."
            )
        transport = connection._transport
        sock = transport.get_extra_info("socket") if transport else None
        uid = system.peer_uid(sock) if sock is not None else None
        if uid is not None and hasattr(os, "getuid") and uid not in (os.getuid(), 0):
            return Unauthorized(
                "This farm belongs to another user of this machine; start your own with `luna-farm start`."
            )
        self.connections[connection.number] = connection
        return None

    def forget(self, connection: Connection, known: bool) -> None:
        """A connection ended."""
        if self.connections.pop(connection.number, None) and known:
            self.handler.gone(connection)

    def sweep(self) -> None:
        """Drop those whose patience is over; called once a tick."""
        now = self.now()
        for connection in list(self.connections.values()):
            if connection.deadline is not None and connection.deadline < now:
                connection.refuse(ProtocolError("The connection waited too long in the middle of a message."))

    async def stop_intake(self) -> None:
        """Take no further connections; those that are there stay."""
        if self._server:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Close everything."""
        await self.stop_intake()
        for connection in list(self.connections.values()):
            with contextlib.suppress(OSError):
                connection.abort()
