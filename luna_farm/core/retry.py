"""When to try again: folders and images that cannot be written now, and images that kill their worker.

Policy only.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_CRASHES = 3
"""An image that has ended so many workers is set aside as a dead letter."""
FIRST_DELAY_S = 0.5
LAST_DELAY_S = 30.0
UNTRIED_DELAY_S = 1.0
"""Longest pause of a failing folder while some of its images were never tried: what failed may have been the
others, by their own names or sizes."""
FALLBACK_AFTER = 3
"""Failures of a folder, or of one image, before it goes to the configured fallback folder."""


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row: doubled each time, up to LAST_DELAY_S."""
    # A folder that is away overnight fails a thousand times, and 2.0 ** 1024 is no float.
    return min(LAST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16))


@dataclass(slots=True)
class FailingFolder:
    """An output folder that failed: why, since when, and when one image may probe it again.

    After its first failure the next image probes it at once: that one failed may be the fault of its own
    name or size. From the second on the folder rests between two probes.
    """

    path: str
    error: str
    since: float
    failures: int = 0
    failed_at: float = 0.0
    probing: bool = False

    def failed(self, error: str, now: float) -> None:
        """Another write failed: wait twice as long as before, up to LAST_DELAY_S."""
        self.failures += 1
        self.error = error
        self.probing = False
        self.failed_at = now

    def may_probe(self, now: float, untried: bool) -> bool:
        """Exactly one image at a time finds out whether the folder is back; `untried`: one that has not
        failed itself."""
        if self.probing:
            return False
        pause = pause_s(self.failures)
        if untried:
            pause = 0.0 if self.failures <= 1 else min(pause, UNTRIED_DELAY_S)
        return now >= self.failed_at + pause
