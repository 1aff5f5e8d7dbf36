"""What every destination can do, and what its refusals mean.

A sink stores one object under one key and returns only when the service has confirmed size and checksum. It
never replaces an object of others, recognises its own object after a lost answer, and never tries again by
itself: when to do that is decided elsewhere, by the `Decision` of the error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from luna_farm.errors import FarmError

SLOWEST_BYTES_PER_S = 50_000
"""The time limit of a request grows with its size at this rate: slow is not hung."""


def limit_s(timeout_s: float, size: int) -> float:
    """Return how long a request of `size` bytes may take: `timeout_s` for a small one."""
    return timeout_s + size / SLOWEST_BYTES_PER_S


class Decision(Enum):
    """What to do about a refusal."""

    RETRY = "retry"
    """The same upload again, after a pause. Several in a row open the circuit of the destination."""
    HOLD = "hold"
    """Nothing can be sent there now: open the circuit at once, and let one upload at a time find out when
    that changes."""
    NEXT_NUMBER = "next_number"
    """The key is taken by an object of others."""
    FAIL = "fail"
    """This upload can never work; its file is kept."""


class SinkError(FarmError):
    """A destination refused. The message names destination, reason and remedy, and nothing secret."""

    code = "destination"
    remedy = "`luna-farm status` names the destination that fails and why. What waits is sent once it works."

    def __init__(
        self, message: str, decision: Decision = Decision.RETRY, kind: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.decision = decision
        self.kind = kind
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Upload:
    """One object to store. `token` names job, image and part: it is in the metadata of the object, or in its
    temporary name, so that an upload whose answer was lost is recognised."""

    token: str
    bytes: int
    sha256: str
    md5: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that the service has confirmed. `found`: it was there already, from an earlier try."""

    key: str
    bytes: int
    found: bool = False
    other: bool = False
    """With other bytes: an earlier try had encoded the image anew."""


class Sink(Protocol):
    """One destination. `thread_safe`: several threads may use one sink; else each opens its own."""

    thread_safe: bool

    def exists(self, key: str) -> bool:
        """Whether something lies under `key`. Raises SinkError."""

    def put(self, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
        """Store `body` under `key`. `again`: an earlier try may have succeeded, and an object of its token
        counts where the service keeps tokens, even one that was encoded anew. Raises SinkError."""

    def own(self, key: str, upload: Upload) -> Stored | None:
        """Return the object under `key` if an earlier try of this upload stored it. Raises SinkError."""

    def close(self) -> None:
        """Close all connections."""


def described(token: str, body: Iterable[bytes | memoryview], content_type: str) -> Upload:
    """Return the description of an object that consists of `body`, one buffer after the other."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    for buffer in body:
        sha256.update(buffer)
        md5.update(buffer)
        size += len(buffer)
    return Upload(token, size, sha256.hexdigest(), md5.hexdigest(), content_type)


def is_body(upload: Upload, chunks: Iterable[bytes]) -> bool:
    """Whether chunks read back from a service are the object, by size and SHA-256."""
    sha256, size = hashlib.sha256(), 0
    for chunk in chunks:
        sha256.update(chunk)
        size += len(chunk)
    return size == upload.bytes and sha256.hexdigest() == upload.sha256
