"""When to try again: folders that cannot be written now, and images that kill their worker. Policy only."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CRASHES = 3
"""An image that has ended so many workers is set aside as a dead letter."""
FIRST_DELAY_S = 0.5
LAST_DELAY_S = 30.0
FALLBACK_AFTER = 3
"""Failures of a folder before its images go to the configured fallback folder."""


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row: doubled each time, up to LAST_DELAY_S."""
    # A folder that is away overnight fails a thousand times, and 2.0 ** 1024 is no float.
    return min(LAST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16))


@dataclass(slots=True)
class FailingFolder:
    """An output folder that failed: why, since when, and when one image may probe it again."""

    path: str
    error: str
    since: float
    failures: int = 0
    retry_at: float = 0.0
    probing: bool = False

    def failed(self, error: str, now: float) -> None:
        """Another write failed: wait twice as long as before, up to LAST_DELAY_S."""
        self.failures += 1
        self.error = error
        self.probing = False
        self.retry_at = now + pause_s(self.failures)

    def may_probe(self, now: float) -> bool:
        """Exactly one image at a time finds out whether the folder is back."""
        return not self.probing and now >= self.retry_at
