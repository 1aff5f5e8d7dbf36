"""Who may speak to the feed: exact lists of names, one token, and the user at the other end.

A web page elsewhere is refused by its Origin, a rebound name by its Host, another user or machine by the
token it does not have. This module must never let an unknown case pass, never show the token, and never open
a file for a request (the kernel's table of connections, which has the user of a peer, is asked by
`system.peer_uid`).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.typing import Subprotocol

from luna_farm import system
from luna_farm.feed.sessions import Sessions

SUBPROTOCOL = "luna-farm.v1"
TOKEN_SUBPROTOCOL = "luna-farm.token."  # noqa: S105 - the prefix under which a browser brings a token

# Where the kernel shows whose a connection is, one that it does not show is refused; elsewhere loopback has
# to do.
PLATFORM_TELLS = hasattr(os, "getuid") and Path("/proc/net/tcp").exists()


@dataclass(frozen=True, slots=True)
class FeedAuth:
    """The exact lists: `hosts` as `name:port`, `origins` as `scheme://name:port`, the token's bytes, and the
    sessions of browsers, which count as the token."""

    hosts: frozenset[str]
    origins: frozenset[str]
    token: bytes
    sessions: Sessions

    @classmethod
    def of(
        cls, host: str, names: Iterable[str], port: int, token: str, sessions: Sessions, *, tls: bool
    ) -> FeedAuth:
        """Build the lists for a feed that listens at `host`:`port` and is also called by `names`."""
        # Addresses that mean "every interface" are no names that a client could use.
        called = {"127.0.0.1", "localhost", "::1", host, *names} - {"0.0.0.0", "::", ""}  # noqa: S104
        hosts = frozenset(f"{_bracketed(name.lower())}:{port}" for name in called)
        scheme = "https" if tls else "http"
        return cls(hosts, frozenset(f"{scheme}://{name}" for name in hosts), token.encode(), sessions)

    def refusal(self, headers: Headers) -> str:
        """Return why a request with these headers is not served, "" if it is. `null` is an Origin like any
        foreign one."""
        hosts = headers.get_all("Host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return f"Host {_shown(hosts)} is not served here. Served: {', '.join(sorted(self.hosts))}."
        origins = headers.get_all("Origin")
        if origins and (len(origins) != 1 or origins[0] not in self.origins):
            return f"A page of {_shown(origins)} may not talk to the farm; its own dashboard may."
        return ""

    def knows(self, token: str) -> bool:
        """Tell whether this is the farm's token or an open session."""
        return self._is_token(token) or self.sessions.knows(token)

    def login(self, headers: Headers) -> str:
        """Return a new session for a link (`Authorization: Login ...`) or the token (`Bearer ...`), else
        ""."""
        scheme, _, secret = ", ".join(headers.get_all("Authorization")).partition(" ")
        if scheme.lower() == "login":
            return self.sessions.follow(secret.strip())
        known = scheme.lower() == "bearer" and self.knows(secret.strip())
        return self.sessions.open() if known else ""

    def _is_token(self, token: str) -> bool:
        """Compare in constant time. An empty token of the farm's never matches."""
        return bool(self.token) and hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self.token)

    def brings_token(self, headers: Headers) -> bool:
        """Return whether the token comes along: `Authorization: Bearer ...`, or a browser's subprotocol
        (docs/feed.md)."""
        for value in headers.get_all("Authorization"):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and self.knows(token.strip()):
                return True
        for value in headers.get_all("Sec-WebSocket-Protocol"):
            for offered in map(str.strip, value.split(",")):
                encoded = offered.removeprefix(TOKEN_SUBPROTOCOL)
                if encoded != offered and self.knows(_decoded(encoded)):
                    return True
        return False

    def is_own_user(self, connection: ServerConnection) -> bool:
        """Return whether the other end is a program of the farm's user (or root) on this machine."""
        if not is_loopback(connection.remote_address):
            return False
        if not PLATFORM_TELLS:
            return True
        return system.peer_uid(connection.transport.get_extra_info("socket")) in (os.getuid(), 0)


def choose_subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Accept the feed's own name; a browser that brings a token offers it beside that name and wants an
    answer."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def is_loopback(peer: object) -> bool:
    """Return whether a peer name of a TCP socket is on this machine."""
    if not isinstance(peer, tuple) or not peer:
        return False
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _shown(values: list[str]) -> str:
    text = ", ".join(values) if values else "(none)"
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _decoded(text: str) -> str:
    """Undo base64url without padding; "" if it is none."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
