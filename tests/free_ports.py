"""Ports that stay free until a test uses them, and between two starts of one farm.

A port that the system hands out may be handed out again, to any program, as soon as nothing is bound to it.
These lie below what Linux, macOS and Windows hand out, and each process of a test run takes its own block.
"""

from __future__ import annotations

import functools
import itertools
import random
import socket
from collections.abc import Iterator

FIRST, LAST, BLOCK = 20_000, 32_000, 100


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that is free, and that no other process of a test run on this machine is given."""
    _, ports = _block()
    for port in itertools.islice(ports, BLOCK):
        try:
            socket.create_server((host, port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("not one port of this process's block is free")


@functools.cache
def _block() -> tuple[socket.socket, Iterator[int]]:
    """Take a block of ports. What marks it as taken is its first port, of UDP: it goes with this process."""
    starts = range(FIRST, LAST, BLOCK)
    for start in random.SystemRandom().sample(starts, len(starts)):
        mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", start))
        except OSError:
            mark.close()
            continue
        return mark, itertools.cycle(range(start + 1, start + BLOCK))
    raise AssertionError(f"no block of ports from {FIRST} to {LAST} is free")
