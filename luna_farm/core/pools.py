"""The pools that workers belong to: their bounds, whether they work, and what their nodes have done.

The first pool is the near one: its workers read pixels where they lie. To a far pool pixels have to be moved.
Data and the questions one may ask of it; `placement.py` decides. What a pool consists of is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from luna_farm.core.costs import Average, moved_ms
from luna_farm.core.messages import ImageResult

NEAR = "local"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """A pool and its bounds. `standby`: it works only while the other one fails."""

    name: str
    min_workers: int
    max_workers: int
    far: bool = False
    standby: bool = False


@dataclass(slots=True)
class WorkerPool:
    """A pool as it is now."""

    limits: PoolLimits
    name: str = field(init=False)
    """Its name in the configuration and the status."""
    failed_starts: int = 0
    spawn_at: float = 0.0
    """Monotonic time before which no worker is started."""
    error: str = ""
    """Why no worker of it can be had, "" while that is not so."""
    since: float = 0.0
    """Monotonic time of that error."""

    def __post_init__(self) -> None:
        self.name = self.limits.name

    def status(self, now: float) -> dict[str, Any]:
        """Return its row of the status."""
        return {
            "engine": self.name,
            "state": "failing" if self.error else "ok",
            "error": self.error,
            "since_s": now - self.since if self.error else 0.0,
        }


@dataclass(slots=True)
class Node:
    """What the workers of one node have done. The node "" is this machine."""

    pool: str
    since: float
    """Monotonic time of its first worker."""
    images: int = 0
    bytes: int = 0
    encode: Average = field(default_factory=Average)
    moved: Average = field(default_factory=Average)

    def add(self, result: ImageResult) -> None:
        """Take a finished image."""
        ms = result.ms or {}
        self.images += 1
        self.bytes += result.bytes
        self.encode.add(ms.get("encode", 0.0))
        if "call" in ms:  # a worker elsewhere
            self.moved.add(moved_ms(ms))

    def status(self, name: str, now: float) -> dict[str, Any]:
        """Return its row of the status; who works there is added by others."""
        return {
            "node": name,
            "engine": self.pool,
            "images": self.images,
            "mb_per_s": self.bytes / 1e6 / max(now - self.since, 0.001),
            "encode_ms": self.encode.ms,
            "transfer_ms": self.moved.ms,
        }
