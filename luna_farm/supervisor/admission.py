"""Who stays when many want in: a decision over counts and ages, without sockets and clocks.

An unauthenticated connection has not sent a valid hello yet. Silent connections must never keep a good
client waiting, a burst of good ones must never push each other out, and one other machine must never take
all the room.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

MAX_UNAUTHENTICATED = 32
"""Unauthenticated connections at a time; beyond that a new one evicts the oldest."""
PEER_UNAUTHENTICATED = 8
"""The same, of one other machine."""
PEER_SHARE = 2
"""One other machine may hold 1 / PEER_SHARE of all connections."""
GRACE_S = 0.1
"""No client is pushed out before that: one that has just connected is about to speak."""


class Peer(Protocol):
    """What counts of a connection: where it comes from ("": this machine), whether it has spoken, since
    when it is here (monotonic seconds)."""

    @property
    def peer(self) -> str:
        """Its origin, as `origin` returns it."""

    @property
    def unauthenticated(self) -> bool:
        """It has not said who it is."""

    @property
    def since(self) -> float:
        """When it came."""


G = TypeVar("G", bound=Peer)


@dataclass(frozen=True, slots=True)
class Decision(Generic[G]):
    """Whether the newcomer may stay, who has to go for it, and what is allowed."""

    admitted: bool
    evict: G | None
    allowed: str


def decide(connections: Sequence[G], peer: str, most: int, now: float) -> Decision[G]:
    """Judge a newcomer from `peer` beside `connections` (the oldest first), of whom there may be `most`."""
    unauthenticated = [connection for connection in connections if connection.unauthenticated]
    alike = [connection for connection in unauthenticated if connection.peer == peer]
    most_alike = max(4, most // PEER_SHARE)
    full = len(connections) >= most
    full_of_peer = bool(peer) and sum(1 for c in connections if c.peer == peer) >= most_alike
    if peer and (full_of_peer or len(alike) >= PEER_UNAUTHENTICATED):
        candidates = alike
    else:
        candidates = unauthenticated if full or len(unauthenticated) >= MAX_UNAUTHENTICATED else []
    pushed = candidates[0] if candidates and now - candidates[0].since > GRACE_S else None
    allowed = f"{most} (setting max_connections)"
    if full_of_peer:
        allowed += f", {most_alike} of them from one other machine"
    return Decision(pushed is not None or not (full or full_of_peer), pushed, allowed)


def origin(address: object) -> str:
    """Return what a peer name of a TCP socket is counted as: "" for this machine, else the address; of IPv6
    the network, for a machine may have as many addresses as it likes in it."""
    if not isinstance(address, tuple) or not address:
        return "?"
    try:
        given = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except ValueError:
        return "?"
    if isinstance(given, ipaddress.IPv6Address):
        if given.ipv4_mapped is None:
            return "" if given.is_loopback else str(ipaddress.ip_network((given, 64), strict=False))
        given = given.ipv4_mapped
    return "" if given.is_loopback else str(given)
