"""The job listener: who may connect, how many, and for how long without a word.

What a connection does is `connection.py`, what a message means is `commands.py`. This module must never wait
for a peer, and never let silent peers keep others out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from luna_farm import system
from luna_farm.core import frames
from luna_farm.errors import FarmBusy, FarmError, ProtocolError, Unauthorized
from luna_farm.supervisor import admission
from luna_farm.supervisor.connection import ClientConnection, Handler
from luna_farm.supervisor.tls import BACKLOG, TlsServer

READ_BYTES = 64 * 1024
MAX_LEAVING = 8
"""Refused peers that may linger beside as many connections as are allowed."""
RESERVED_FILES = 24
"""Open files that the farm needs for itself, beside two for each worker."""
STOPPED_S = 2.0
"""A gap between two sweeps from which on this process was stopped itself, and no peer was late."""


class Listener:
    """The TCP port for jobs: who may connect.

    `token` is what a hello must bring; `items` bounds lists in messages of known clients; `shared`: other
    users of this machine are let in if they bring the token.
    """

    def __init__(
        self,
        handler: Handler,
        token: str,
        max_connections: int,
        now: Callable[[], float],
        *,
        items: int = frames.MAX_ITEMS,
        shared: bool = False,
    ) -> None:
        self.handler = handler
        self.token = token
        self.now = now
        self.items = items
        self.port = 0
        self.connections: dict[int, ClientConnection] = {}
        # One for all: bytes are taken out of it before the loop turns to another connection.
        self.space = memoryview(bytearray(READ_BYTES))
        self._leaving: dict[int, ClientConnection] = {}
        self._max = max_connections
        self._shared = shared
        self._last = 0
        self._swept = now()
        self._server: asyncio.Server | TlsServer | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen; afterwards `port` is the real one. Raises OSError when the port is taken."""
        if tls is not None:
            self._server = TlsServer(tls, self._connection)
            self.port = await self._server.start(host, port)
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port, backlog=system.ACCEPT_AT_ONCE)
        system.let_wait(self._server.sockets, BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    def _connection(self) -> ClientConnection:
        self._last += 1
        return ClientConnection(self, self._last)

    def admit(self, connection: ClientConnection) -> FarmError | None:
        """Let a connection stay, or say why not."""
        if not self._shared and connection.is_of_another_user:
            return Unauthorized(
                "This farm belongs to another user of this machine; start your own with `luna-farm start`."
            )
        here = list(self.connections.values())
        decided = admission.decide(here, connection.peer, self._max, self.now())
        if decided.evict is not None:
            decided.evict.abort()
        if not decided.admitted:
            return FarmBusy(f"{len(here)} clients are connected; allowed: {decided.allowed}.")
        self.connections[connection.number] = connection
        return None

    def forget(self, connection: ClientConnection, known: bool) -> None:
        """A connection ended."""
        self._leaving.pop(connection.number, None)
        if self.connections.pop(connection.number, None) and known:
            self.handler.gone(connection)

    def see_off(self, connection: ClientConnection) -> None:
        """Keep a refused connection until it has read why: never more of them than there was room for."""
        self._leaving[connection.number] = connection
        if len(self._leaving) + len(self.connections) > self._max + MAX_LEAVING:
            next(iter(self._leaving.values())).abort()

    def sweep(self) -> None:
        """Drop those whose patience is over; called once a tick."""
        now = self.now()
        gap, self._swept = now - self._swept, now
        if gap > STOPPED_S:
            for connection in self.connections.values():
                connection.grant(gap)
        for connection in list(self._leaving.values()):
            if connection.deadline is not None and connection.deadline < now:
                connection.abort()
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


def places_for(clients: int, viewers: int, workers: int) -> tuple[int, int, str]:
    """Return how many `clients` of the job port and `viewers` of the feed the limit of open files leaves
    beside `workers`, and a sentence for a person where that is fewer than wanted.

    What is short is shared: a quarter goes to the feed, so that neither keeps the other out.
    """
    limit = system.open_file_limit()[0]
    left = limit - RESERVED_FILES - MAX_LEAVING - 2 * workers
    if clients + viewers <= left:
        return clients, viewers, ""
    seen = min(viewers, max(2, left // 4))
    places = max(4, min(clients, left - seen))
    sentence = (
        f"Only {limit} open files are allowed to this process: {places} clients may be connected at a time"
        f" instead of {clients} (setting max_connections), and {seen} dashboards instead of {viewers}."
        " Raise `ulimit -n`."
    )
    return places, seen, sentence
