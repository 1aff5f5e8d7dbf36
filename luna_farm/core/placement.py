"""Which worker gets an image, and how many workers each pool should have.

One pool: the worker that is idle for the shortest time, else a busy one with room. Two pools: an idle near
worker always wins; to the far pool goes what takes longer to encode than to move.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import attrgetter

from luna_farm.core.job import Image
from luna_farm.core.pools import WorkerPool
from luna_farm.core.scaling import wanted
from luna_farm.core.state import Farm
from luna_farm.core.workers import ALIVE, Worker, WorkerState

W = WorkerState
PREFETCHED = 2
"""Images a worker may hold, so that it need not wait for the supervisor between two."""
PREFETCHED_BYTES = 256 * 1024
"""Larger images are handed out ahead only while more wait than there are workers, and no more workers may be
started: the last ones share them better one by one."""
LOOK_AHEAD = 64
"""Queued images that are looked at for one that another pool can take."""


class Placement:
    """The workers that have room at one moment, and who of them gets an image."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._idle: dict[str, list[Worker]] = {name: [] for name in farm.pools}
        for worker in farm.workers.values():
            if worker.state is W.IDLE:
                self._idle[worker.pool].append(worker)
        for idle in self._idle.values():
            idle.sort(key=attrgetter("since"))
        self._pools = [pool for pool in farm.pools.values() if not standing_by(farm, pool)]
        self.several = len(self._pools) > 1
        self._full: set[str] = set()
        """Pools whose busy workers have no room for an image that may be handed out ahead."""

    def worker(self, image: Image) -> Worker | None:
        """Return the worker that gets an image now, None if it has to wait."""
        takers = [pool for pool in self._pools if not self.several or takes(self._farm, pool, image)]
        for pool in takers:
            if self._idle[pool.name]:
                # The worker idle for the shortest time is warm; the others get old enough to be reaped.
                return self._idle[pool.name].pop()
        for pool in takers:
            worker = self._busy_with_room(pool, image)
            if worker is not None:
                return worker
        return None

    @property
    def exhausted(self) -> bool:
        """No worker is idle and none may be handed an image ahead."""
        return not any(self._idle.values()) and len(self._full) == len(self._pools)

    def _busy_with_room(self, pool: WorkerPool, image: Image) -> Worker | None:
        farm = self._farm
        if image.crashes or pool.name in self._full:
            return None
        here = [w for w in farm.workers.values() if w.pool == pool.name]
        alive = sum([w.state in ALIVE for w in here])
        most = bounds(farm, pool)[1] if not pool.limits.far else alive  # moving is hidden behind encoding
        many = len(farm.waiting) > alive >= most
        if image.task.nbytes > PREFETCHED_BYTES and not many:
            return None
        busy = [w for w in here if w.state is W.BUSY and len(w.images) < PREFETCHED]
        if not busy:
            self._full.add(pool.name)
            return None
        return min(busy, key=lambda w: w.since)


def has_room(farm: Farm) -> bool:
    """Whether any worker may take another image: under load most events find that none may."""
    for worker in farm.workers.values():
        if worker.state is W.IDLE or (worker.state is W.BUSY and len(worker.images) < PREFETCHED):
            return True
    return False


def takes(farm: Farm, pool: WorkerPool, image: Image) -> bool:
    """Whether a pool may make an image at all."""
    if not pool.limits.far:
        return not standing_by(farm, pool)
    alone = all(other is pool or standing_by(farm, other) for other in farm.pools.values())
    return alone or farm.costs.pays(image.task, farm.jobs[image.task.job_id].options)


def standing_by(farm: Farm, pool: WorkerPool) -> bool:
    """Whether a pool leaves the work to the others: it is there for the time when they fail."""
    if not pool.limits.standby:
        return False
    return not any(other.error for other in farm.pools.values() if other is not pool)


def bounds(farm: Farm, pool: WorkerPool) -> tuple[int, int]:
    """Return the least and the greatest number of workers of a pool."""
    if standing_by(farm, pool):
        return 0, 0
    return pool.limits.min_workers, pool.limits.max_workers


def missing_workers(farm: Farm, now: float) -> Iterator[WorkerPool]:
    """Yield a pool for each worker that is to be started."""
    for pool in farm.pools.values():
        if now < pool.spawn_at:
            continue
        alive = len(farm.alive(pool.name))
        if alive >= pool.limits.max_workers:
            continue
        low, high = bounds(farm, pool)
        if pool.error:
            high = low = 1  # one finds out whether that is over
        # Whether images may go to a pool is looked at only if it can grow: that takes a while.
        queued = 0 if farm.paused or alive >= high else _queued_for(farm, pool)
        for _ in range(wanted(alive, queued, low, high) - alive):
            yield pool


def _queued_for(farm: Farm, pool: WorkerPool) -> int:
    """Return how many queued images a pool may make."""
    if not pool.limits.far:
        return len(farm.waiting)
    most = max(LOOK_AHEAD, 4 * pool.limits.max_workers)
    return sum(takes(farm, pool, image) for image in islice(farm.waiting, most))
