"""From the configuration to the bounds that the core keeps."""

from __future__ import annotations

import os

from luna_farm.config import Config
from luna_farm.config_destinations import TIMEOUT_S
from luna_farm.core.limits import DestinationLimits, Limits
from luna_farm.core.pools import NEAR, PoolLimits
from luna_farm.engine import ray
from luna_farm.locations import parse
from luna_farm.storage import names
from luna_farm.storage.allowed import Allowed
from luna_farm.supervisor.disks import Disks


def limits(config: Config, arena_bytes: int) -> Limits:
    """Return the bounds that the core keeps."""
    fallback_root, fallback_dir, fallback_mount = "", "", ""
    if config.fallback_dir:
        fallback_root, rest = Allowed(config.allowed_dirs).place(str(config.fallback_dir), "fallback_dir")
        fallback_dir = os.path.join(fallback_root, *rest.split("/")).rstrip(os.sep)
        fallback_mount = Disks().of_mirrors([fallback_dir])[0].get(fallback_dir, "")
    return Limits(
        arena_bytes=min(arena_bytes, config.max_queue_bytes),
        max_jobs=config.max_jobs,
        max_images=config.max_images,
        max_pixels=config.max_pixels,
        kept_reports=config.kept_reports,
        min_workers=config.min_workers,
        max_workers=config.max_workers,
        idle_timeout_s=config.idle_timeout_s,
        worker_deadline_s=config.worker_deadline_s,
        fallback_dir=fallback_dir,
        fallback_root=fallback_root,
        fallback_mount=fallback_mount,
        path_bytes=names.PATH_BYTES,
        spool_bytes=config.spool_bytes,
        destinations=tuple(
            DestinationLimits(
                at.name, parse("url", at.url), at.uploads, float(at.options.get("timeout", TIMEOUT_S))
            )
            for at in config.destinations
        ),
        only_destinations=bool(config.allowed_dirs),
        watermark=config.watermark,
        pools=_pool_limits(config),
    )


def _pool_limits(config: Config) -> tuple[PoolLimits, ...]:
    """Return the bounds of the pools; with the engine ray the workers of this machine stand by."""
    near = PoolLimits(NEAR, config.min_workers, config.max_workers, standby=config.engine == "ray")
    if config.engine == "local":
        return (near,)
    return near, PoolLimits(ray.NAME, 1, config.ray_max_workers, far=True)
