"""TLS for a listener beyond this machine: the certificate, and who may be in the middle of a handshake.

asyncio's own TLS server shows a connection only once its handshake is done, so that those who never finish
one could not be counted. This module must never let a peer hold a place longer than the handshake's time,
and never weaken what the `ssl` module has as its default for servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from luna_farm.errors import ConfigError
from luna_farm.supervisor import admission

BACKLOG = 256
MAX_HANDSHAKES = 256
HANDSHAKE_S = 5.0
NO_FILES_S = 0.1
"""Pause when no connection can be taken: usually all file descriptors are in use."""


def server_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the context of a server with this certificate, None without one. Raises ConfigError for files
    that cannot be used.

    TLS 1.2 at least, ciphers and options as the `ssl` module has them for servers.
    """
    if cert is None:
        return None
    for setting, path in (("tls_cert", cert), ("tls_key", key or cert)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}.", setting) from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, "")  # a pass phrase would be asked for on the terminal
    except (OSError, ValueError) as error:
        mismatch = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        why = (
            "the key is that of another one" if mismatch else "both must be PEM, the key without pass phrase"
        )
        files = f"the certificate {cert} with the key {key or cert}"
        raise ConfigError(f"tls_cert, tls_key: {files} cannot be used: {why}.", "tls_key") from error
    return context


@dataclass(eq=False, slots=True)
class Handshake:
    """One connection on its way in."""

    peer: str
    since: float
    unauthenticated: bool = True
    task: asyncio.Task[None] | None = field(default=None)


class TlsServer:
    """Takes connections on `sockets`, shakes hands, and gives each that succeeded to a new protocol."""

    def __init__(self, context: ssl.SSLContext, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self.handshakes: list[Handshake] = []
        self._context = context
        self._protocol = protocol
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, host: str, port: int) -> int:
        """Listen on every address of `host`; returns the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                sock = socket.create_server((address[0], port), family=family, backlog=BACKLOG)
                self._sockets.append(sock)
                sock.setblocking(False)
                port = sock.getsockname()[1]
        except OSError:
            self.close()
            raise
        self._tasks = [loop.create_task(self._accept(sock)) for sock in self._sockets]
        return port

    def close(self) -> None:
        """Take nothing more; handshakes in progress end."""
        for task in (*self._tasks, *(h.task for h in self.handshakes if h.task)):
            task.cancel()
        for sock in self._sockets:
            sock.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(NO_FILES_S)
                continue
            peer = admission.origin(address)
            decided = admission.decide(self.handshakes, peer, MAX_HANDSHAKES, loop.time())
            if decided.evict and decided.evict.task:
                decided.evict.task.cancel()
                self.handshakes.remove(decided.evict)
            if not decided.admitted:
                sock.close()
                continue
            handshake = Handshake(peer, loop.time())
            self.handshakes.append(handshake)
            handshake.task = loop.create_task(self._shake_hands(sock, handshake))

    async def _shake_hands(self, sock: socket.socket, handshake: Handshake) -> None:
        loop = asyncio.get_running_loop()
        try:
            # A peer that does not speak TLS is not worth a log line.
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await loop.connect_accepted_socket(
                    self._protocol, sock, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
                )
                return
            sock.close()
        except asyncio.CancelledError:
            sock.close()
        finally:
            with contextlib.suppress(ValueError):
                self.handshakes.remove(handshake)
