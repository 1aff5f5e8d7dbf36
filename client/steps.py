"""The steps of a conversation that a blocking or an asynchronous client carries out: send, receive, copy."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message and the raw bytes that follow it; without `flush` it may wait for the next one that has
    it."""

    message: dict[str, Any]
    payload: Sequence[memoryview] = ()
    flush: bool = True


@dataclass(frozen=True, slots=True)
class Receive:
    """Return the answer to message `id`, or raise the error it holds. Without `wait`: None if it is not here
    yet."""

    id: int
    timeout: float | None = None
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Copy:
    """Run `work`, which copies pixels: up to some milliseconds for large ones. Its exception is raised in the
    generator."""

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


Steps = Generator[Send | Receive | Copy | Sleep, Any, Any]
