"""One connection to the job port: bytes <-> messages, and pixels from the socket straight into a slot.

A connection moves from UNAUTHENTICATED through OPEN and PIXELS to its end along a table. This module must
never buffer more than one small frame of an unauthenticated peer, never count single bytes as progress, and
never block.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, cast

from luna_farm import system
from luna_farm.core import frames
from luna_farm.core.protocol import NAME, VERSION, refusal
from luna_farm.errors import FarmError, ProtocolError, TooLarge, Unauthorized
from luna_farm.supervisor import admission

log = logging.getLogger("luna_farm.listener")

HELLO_S = 5.0
"""Time for the hello, and for the rest of any frame or pixels that have begun."""
SLOWEST_BYTES_PER_S = 250_000
"""What a frame or pixels may add to that time: a slower peer is not waited for."""
TURN_S = 0.001
"""How long messages of one client are answered before it is the turn of others."""
WRITE_BYTES = 32 * 1024 * 1024
"""Answers that a client may leave unread before it is dropped."""
LINGER_S = 1.0
"""Time for a refused peer to read why; closing with its bytes unread would take the sentence from it."""


class Phase(Enum):
    """State of a connection. UNAUTHENTICATED accepts only a hello, LEAVING accepts nothing."""

    UNAUTHENTICATED = "unauthenticated"
    OPEN = "open"
    PIXELS = "pixels"
    LEAVING = "leaving"
    CLOSED = "closed"


PHASES: dict[Phase, frozenset[Phase]] = {
    Phase.UNAUTHENTICATED: frozenset({Phase.OPEN, Phase.LEAVING, Phase.CLOSED}),
    Phase.OPEN: frozenset({Phase.PIXELS, Phase.LEAVING, Phase.CLOSED}),
    Phase.PIXELS: frozenset({Phase.OPEN, Phase.LEAVING, Phase.CLOSED}),
    Phase.LEAVING: frozenset({Phase.CLOSED}),
    Phase.CLOSED: frozenset(),
}


class Handler(Protocol):
    """What the listener needs of `commands.py`."""

    def welcome(self) -> dict[str, Any]:
        """Return what a client learns about the farm when it is let in."""

    def message(self, connection: ClientConnection, message: dict[str, Any]) -> None:
        """Take a message of a known client; raises FarmError to have it refused."""

    def gone(self, connection: ClientConnection) -> None:
        """A known client is gone."""


class Owner(Protocol):
    """What a connection needs of the listener that accepted it."""

    @property
    def handler(self) -> Handler:
        """Who takes the messages of known clients."""

    @property
    def token(self) -> str:
        """What a hello must bring."""

    @property
    def items(self) -> int:
        """How long lists in messages may be."""

    @property
    def space(self) -> memoryview:
        """Where bytes are received; taken out of it before the loop turns to another connection."""

    def now(self) -> float:
        """Monotonic seconds."""

    def admit(self, connection: ClientConnection) -> FarmError | None:
        """Let a connection stay, or say why not."""

    def see_off(self, connection: ClientConnection) -> None:
        """Keep a refused connection until it has read why."""

    def forget(self, connection: ClientConnection, known: bool) -> None:
        """A connection ended; `known`: it was let in."""


class ClientConnection(asyncio.BufferedProtocol):
    """One client. `number` names it in events; `may_write`: its process may outlive it; `peer` is
    its address, "" for one of this machine."""

    def __init__(self, listener: Owner, number: int) -> None:
        self.number = number
        self.pid = 0
        self._listener = listener
        self._phase = Phase.UNAUTHENTICATED
        self._frames = frames.FrameBuffer(frames.HELLO_LIMIT, frames.HELLO_ITEMS)
        self._pixels: deque[memoryview] = deque()
        self._then: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None
        self.since = self._begun = listener.now()
        self.deadline: float | None = self.since + HELLO_S
        self.peer = ""

    @property
    def unauthenticated(self) -> bool:
        """No hello yet."""
        return self._phase is Phase.UNAUTHENTICATED

    @property
    def is_of_another_user(self) -> bool:
        """Whether, as far as the system says, its user is neither the farm's nor root."""
        sock = self._transport.get_extra_info("socket") if self._transport else None
        uid = system.peer_uid(sock) if sock is not None and not self.peer else None
        return uid is not None and hasattr(os, "getuid") and uid not in (os.getuid(), 0)

    @property
    def may_write(self) -> bool:
        """Whether the client's process still exists, and may be in the middle of filling a slot."""
        return self.pid > 0 and system.process_exists(self.pid)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer connected: check its user, then wait for its hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES)
        self.peer = admission.origin(self._transport.get_extra_info("peername"))
        error = self._listener.admit(self)
        if error:
            self.refuse(error)

    def pause_writing(self) -> None:
        """The peer left WRITE_BYTES of answers unread: drop it."""
        self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: into the slot while pixels are announced, else into our own small
        space."""
        return self._pixels[0] if self._pixels else self._listener.space

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived where `get_buffer` said."""
        try:
            if self._phase is Phase.PIXELS:
                self._filled(nbytes)
            elif self._phase in (Phase.UNAUTHENTICATED, Phase.OPEN):
                self._frames.feed(self._listener.space[:nbytes])
            self._messages()
        except FarmError as error:
            self.refuse(error)

    def _messages(self) -> None:
        ends = self._listener.now() + TURN_S
        while self._phase in (Phase.UNAUTHENTICATED, Phase.OPEN):
            message = self._frames.next()
            if message is None:
                self.deadline = self._patience()
                return
            if self._phase is Phase.UNAUTHENTICATED:
                self._hello(message)
            else:
                self.deadline = None
                self._listener.handler.message(self, message)
            if self._frames.pending and self._transport and self._listener.now() >= ends:
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._next_turn)
                return

    def _next_turn(self) -> None:
        if self._transport:
            self._transport.resume_reading()
        try:
            self._messages()
        except FarmError as error:
            self.refuse(error)

    def _patience(self) -> float | None:
        """A known client may be idle for as long as it likes, but not in the middle of a frame; and a byte
        now and then does not win it time."""
        if self._phase is Phase.UNAUTHENTICATED:
            return self.deadline
        if not self._frames.pending:
            return None
        if self.deadline is None:
            self._begun = self._listener.now()
        return self._begun + HELLO_S + self._frames.announced / SLOWEST_BYTES_PER_S

    def grant(self, seconds: float) -> None:
        """Give more time: this farm was stopped, not the client late."""
        self._begun += seconds
        if self.deadline is not None:
            self.deadline += seconds

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
                "The token is not that of this farm; it is in the file `token` of its state folder.",
                wrong_token=True,
            )
        reply = message.get("id", 0)
        if type(reply) is not int:
            raise ProtocolError("`id` must be a whole number.")
        pid = message.get("pid")
        self.pid = pid if type(pid) is int and 0 < pid < 2**31 else 0
        self._move(Phase.OPEN)
        self._frames.limit, self._frames.items = frames.FRAME_LIMIT, self._listener.items
        self.send({**self._listener.handler.welcome(), "id": reply})

    def receive_pixels(self, views: list[memoryview], then: Callable[[], None]) -> None:
        """Have the bytes that follow go into `views`, in order, and call `then` when the last one is
        there."""
        self._pixels = deque(view for view in views if len(view))
        self._then = then
        seconds = HELLO_S + sum(map(len, self._pixels)) / SLOWEST_BYTES_PER_S
        self.deadline = self._listener.now() + seconds
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
        if self._transport and self._phase is not Phase.LEAVING and not self._transport.is_closing():
            frame = frames.encode(message)
            if len(frame) > frames.FRAME_LIMIT:
                error = TooLarge.of("answer", len(frame), f"{frames.FRAME_LIMIT} bytes; ask for less")
                frame = frames.encode({**refusal(error), "id": message.get("id", 0)})
            self._transport.write(frame)

    def refuse(self, error: FarmError) -> None:
        """Send one frame that says why, and close once the peer has read it or LINGER_S have passed."""
        if self._phase in (Phase.LEAVING, Phase.CLOSED):
            self.abort()
            return
        log.info("Connection %d is refused: %s", self.number, error)
        self.send(refusal(error))
        transport = self._transport
        if transport is None or transport.is_closing() or not transport.can_write_eof():
            self._end(Phase.CLOSED)
            if transport:
                transport.close()
            return
        self._end(Phase.LEAVING)
        try:
            transport.write_eof()
        except OSError:  # the peer has gone meanwhile
            self.abort()
            return
        self.deadline = self._listener.now() + LINGER_S
        self._listener.see_off(self)

    def abort(self) -> None:
        """Close at once, without a word."""
        self._end(Phase.CLOSED)
        if self._transport:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone."""
        self._end(Phase.CLOSED)

    def _end(self, to: Phase) -> None:
        """Take nothing more from the peer."""
        if self._phase is Phase.CLOSED:
            return
        known = not self.unauthenticated
        self._move(to)
        self._pixels.clear()
        self._frames.take_rest()
        self._then = None
        self._listener.forget(self, known)
