"""Worker processes as the core knows them: what they do, and which images they have."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from luna_farm.core.job import Image
from luna_farm.core.pools import NEAR


class WorkerState(Enum):
    """Life of a worker. KILLED: a signal was sent, its end is not seen yet."""

    # By identity: the hash of Enum is Python code, and states are looked up all the time.
    __hash__ = object.__hash__

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    RETIRING = "retiring"
    KILLED = "killed"
    GONE = "gone"


W = WorkerState
WORKER_TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    W.STARTING: frozenset({W.IDLE, W.RETIRING, W.KILLED, W.GONE}),
    W.IDLE: frozenset({W.BUSY, W.RETIRING, W.GONE}),
    W.BUSY: frozenset({W.IDLE, W.KILLED, W.GONE}),
    W.RETIRING: frozenset({W.KILLED, W.GONE}),
    W.KILLED: frozenset({W.GONE}),
    W.GONE: frozenset(),
}
ALIVE = frozenset({W.STARTING, W.IDLE, W.BUSY})
"""Those that will go on taking images."""


@dataclass(slots=True)
class Worker:
    """One worker process. `images` are those it was handed, the one it works on first."""

    number: int
    since: float
    """Monotonic time of the last change of state or of the image it works on."""
    pid: int = 0
    created: float = 0.0
    """Start time of the process as the system gives it: with the pid, its identity."""
    pool: str = NEAR
    node: str = ""
    """Where it is, "" for this machine."""
    node_pid: int = 0
    """Its process there; `pid` is then the process of this machine that writes its files."""
    ready_at: float = 0.0
    state: WorkerState = W.STARTING
    images: deque[Image] = field(default_factory=deque)
    images_saved: int = 0
    bytes_written: int = 0

    def move(self, to: WorkerState, now: float) -> None:
        """Change state along the table; anything else is a bug of the farm."""
        if to not in WORKER_TRANSITIONS[self.state]:
            raise AssertionError(f"worker {self.number} cannot go from {self.state.value} to {to.value}")
        self.state = to
        self.since = now
