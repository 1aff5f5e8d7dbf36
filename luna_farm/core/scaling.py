"""How many workers there should be: one pure policy, no processes."""

from __future__ import annotations

GROW_AT = 2
"""Images waiting per living worker before another one is started: a spawn costs 0.2 s of a core, so not for a
blip."""


def wanted(alive: int, waiting: int, low: int, high: int) -> int:
    """Return the number of workers to have now.

    `alive` counts starting workers too, so that one burst does not start more than it needs; `low` and `high`
    are the configured bounds. The pool shrinks by reaping, not here.
    """
    if alive < low:
        return low
    if alive < high and waiting >= GROW_AT * alive:
        return alive + 1
    return alive


def surplus(
    idle_since: dict[int, float], alive: int, low: int, idle_timeout_s: float, now: float
) -> list[int]:
    """Return the workers to reap: idle for `idle_timeout_s` or longer, the longest idle first, never below
    `low`."""
    old = sorted((since, worker) for worker, since in idle_since.items() if now - since >= idle_timeout_s)
    return [worker for _, worker in old[: max(0, alive - low)]]
