"""Which user a TCP connection of this machine belongs to, as far as the platform says.

A part of `system.py`, with the same rule: each function says what it does on Linux and what its counterpart
on macOS and Windows is. This module must never take a socket that its program has closed for one of root's.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ACCEPT_AT_ONCE = 4
"""Connections that asyncio accepts in one turn of its loop (its `backlog`). Those that have no place are
refused in the next turn, so a crowd never holds more open files than this beyond its bound."""

_ESTABLISHED, _LISTEN = "01", "0A"
_NO_LISTENER = {
    errno.EADDRINUSE: "another program listens there",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "this user may not listen there; ports below 1024 are for administrators",
    errno.EPERM: "this user may not listen there; ports below 1024 are for administrators",
    errno.EAFNOSUPPORT: "this machine has no addresses of that kind",
}


def why_not_listening(error: OSError) -> str | None:
    """Return why an address cannot be listened on, as a part of a sentence; None for an error that does not
    come from listening. asyncio hides the system's reason in a text of its own."""
    if isinstance(error, socket.gaierror):
        return "no such name is known"
    return _NO_LISTENER.get(error.errno or 0)


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user id at the other end of an accepted TCP connection of this host, or None if it is not
    known.

    Linux: the kernel is asked for that one socket (sock_diag(7)); where that is not allowed, its table
    /proc/net/tcp is read, which takes milliseconds when many connections have just ended. Elsewhere, for a
    peer on another host and for a socket that is already closed: None; the token in the hello decides then.
    """
    try:
        ours, theirs = sock.getsockname(), sock.getpeername()
    except OSError:
        return None
    if sys.platform == "linux":
        with suppress(OSError):
            return _asked_uid(theirs, ours)
    return _listed_uid(theirs, ours)


def listener_uid(sock: socket.socket) -> int | None:
    """Return the user id of the program that listens where a connected socket leads to on this host, or None
    if it is not known: elsewhere than on Linux, and for other hosts."""
    if sys.platform == "linux":
        with suppress(OSError):
            theirs = sock.getpeername()
            no_peer = ("0.0.0.0" if sock.family == socket.AF_INET else "::", 0)  # noqa: S104  asked for, not listened on
            return _asked_uid(theirs, no_peer, _LISTEN)
    return None


def let_wait(listening: Iterable[socket.socket], count: int) -> None:
    """Let `count` connections wait in the system to be accepted: asyncio uses one number for this and for
    ACCEPT_AT_ONCE."""
    for sock in listening:
        with sock.dup() as same:
            same.listen(count)


if sys.platform == "linux":
    _SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLMSG_ERROR, _NLM_F_REQUEST = 4, 20, 2, 1
    _NLMSG = struct.Struct("=IHHII")  # length, type, flags, sequence, port
    _DIAG_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states
    _DIAG_SOCKET = struct.Struct("!HH16s16s")  # ports and addresses; interface and cookie follow
    _DIAG_STATE_AT, _DIAG_UID_AT = _NLMSG.size + 1, _NLMSG.size + 64

    def _asked_uid(
        local: tuple[object, ...], remote: tuple[object, ...], state: str = _ESTABLISHED
    ) -> int | None:
        """Ask for the socket with these ends (include/uapi/linux/inet_diag.h). Raises OSError if that is not
        possible here."""
        ends = [ipaddress.ip_address(str(end[0]).partition("%")[0]) for end in (local, remote)]
        packed = [(getattr(end, "ipv4_mapped", None) or end).packed for end in ends]
        family = socket.AF_INET if len(packed[0]) == 4 else socket.AF_INET6
        interface = local[3] if len(local) == 4 else 0
        request = b"".join(
            (
                _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF),
                _DIAG_SOCKET.pack(local[1], remote[1], *packed),
                struct.pack("=IQ", interface, 2**64 - 1),
            )
        )
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            kernel.settimeout(1.0)
            size = _NLMSG.size + len(request)
            kernel.send(_NLMSG.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + request)
            answer = kernel.recv(4096)
        if _NLMSG.unpack_from(answer)[1] == _NLMSG_ERROR:
            code = -struct.unpack_from("=i", answer, _NLMSG.size)[0]
            if code == errno.ENOENT:
                return None
            raise OSError(code, os.strerror(code))
        # Only an established socket has its user; one that its program has closed shows 0, as root's do.
        if answer[_DIAG_STATE_AT] != int(state, 16):
            return None
        return int(struct.unpack_from("=I", answer, _DIAG_UID_AT)[0])


def _listed_uid(local: tuple[object, ...], remote: tuple[object, ...]) -> int | None:
    """Look for the socket with these ends in the tables of the kernel. An IPv4 connection to a listener for
    both families has addresses such as ::ffff:127.0.0.1 here, and its other end is in the table of IPv4
    unless its program asked for IPv6, too."""
    ends = [ipaddress.ip_address(str(end[0]).partition("%")[0]) for end in (local, remote)]
    for addresses in ([getattr(end, "ipv4_mapped", None) or end for end in ends], ends):
        name = "tcp" if addresses[0].version == 4 else "tcp6"
        wanted = [
            _proc_address(at.packed, end[1]) for at, end in zip(addresses, (local, remote), strict=True)
        ]
        with (
            suppress(OSError, ValueError, IndexError),
            Path("/proc/net", name).open(encoding="ascii") as rows,
        ):
            for row in rows:
                cells = row.split()
                if cells[1:3] == wanted and cells[3] == _ESTABLISHED:
                    return int(cells[7])
    return None


def _proc_address(packed: bytes, port: object) -> str:
    """Write an address as /proc/net/tcp does: 32-bit words in host order as upper-case hex, a colon, the port
    in hex."""
    words = (packed[i : i + 4] for i in range(0, len(packed), 4))
    text = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"{text}:{int(str(port)):04X}"
