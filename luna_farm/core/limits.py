"""The bounds that the core keeps. Who makes them of the configuration is the supervisor."""

from __future__ import annotations

from dataclasses import dataclass

from luna_farm.core import filenames
from luna_farm.core.pools import PoolLimits
from luna_farm.locations import Location


@dataclass(frozen=True, slots=True)
class DestinationLimits:
    """What the core knows of a configured destination."""

    name: str
    location: Location
    uploads: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds that the core keeps, from the configuration."""

    arena_bytes: int
    max_jobs: int = 10_000
    max_images: int = 10_000
    max_pixels: int = 2**28
    kept_reports: int = 1_000
    min_workers: int = 2
    max_workers: int = 4
    idle_timeout_s: float = 300.0
    worker_deadline_s: float = 120.0
    fallback_dir: str = ""
    fallback_root: str = ""
    """Folder that the fallback folder lies in and below which no link is followed; "" for itself."""
    fallback_mount: str = ""
    """Mount point of its disk when the farm started, "" for that of the system."""
    path_bytes: int = filenames.PATH_BYTES
    spool_bytes: int = 2**32
    destinations: tuple[DestinationLimits, ...] = ()
    only_destinations: bool = False
    """Files may be sent to the configured destinations only."""
    watermark: str = ""
    """What other package's function runs in the workers, "" for none; named where an image ends a worker."""
    pools: tuple[PoolLimits, ...] = ()
    """The pools, the near one first; without any there is one near pool of min_workers to max_workers."""

    def of_request(self) -> dict[str, int]:
        """The bounds that a request is judged by."""
        return {"max_images": self.max_images, "max_pixels": self.max_pixels, "arena_bytes": self.arena_bytes}
