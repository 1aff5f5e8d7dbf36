"""Who makes which image, and when a worker is started, reaped or killed.

Decides, as `farm.handle` documents; acts on nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from luna_farm.core import events
from luna_farm.core.completion import attempted, bury, image_record
from luna_farm.core.feed_events import (
    EngineFailing,
    EngineRecovered,
    JobStarted,
    PoolPaused,
    PoolResumed,
    WorkerIsReady,
    WorkerLost,
    WorkerReaped,
    WorkerStarted,
)
from luna_farm.core.held import held_up, hold, probe, relieve
from luna_farm.core.instructions import (
    Append,
    Bury,
    Dispatch,
    EndWorker,
    Forget,
    Instruction,
    Publish,
    Reply,
    Spawn,
)
from luna_farm.core.job import Image, ImageState
from luna_farm.core.messages import ImageResult
from luna_farm.core.placement import LOOK_AHEAD, Placement, bounds, has_room, missing_workers
from luna_farm.core.pools import Node, WorkerPool
from luna_farm.core.protocol import refusal
from luna_farm.core.retry import MAX_CRASHES, pause_s
from luna_farm.core.scaling import surplus
from luna_farm.core.state import Farm
from luna_farm.core.uploads import start_uploads
from luna_farm.core.workers import Worker, WorkerState
from luna_farm.errors import NotPossible

S, W = ImageState, WorkerState
BYTES_PER_SECOND = 1_000_000
"""The slowest honest encoder (lossless WebP, AVIF) makes more; adds to the deadline of large images."""
START_S = 30.0
"""What a worker may take to start at least, however short the deadline for an image is: a busy machine needs
ten seconds."""
STOPPED_S = 2.0
"""A gap between two ticks from which the supervisor concludes that it was stopped itself."""


def advance(farm: Farm, now: float) -> list[Instruction]:
    """Hand queued images to workers and start another worker if the queue is long. To be called when no event
    is left to handle."""
    done: list[Instruction] = [Forget(segment) for segment in farm.slots.take_unused()]
    if not farm.paused:
        done += _begin(farm, now)
    if not farm.drained:
        for pool in list(missing_workers(farm, now)):
            farm.last_worker += 1
            farm.workers[farm.last_worker] = Worker(farm.last_worker, now, pool=pool.name)
            done.append(Spawn(farm.last_worker, pool.name))
            if not pool.error:
                done.append(Publish(WorkerStarted(farm.last_worker)))
    return done if farm.paused else done + start_uploads(farm, now)


def _begin(farm: Farm, now: float) -> list[Instruction]:
    """Hand queued images to the workers that have room."""
    if farm.spool_queue and not farm.spool_full():
        farm.waiting.appendleft(farm.spool_queue.popleft())
    if not farm.waiting or not (farm.folders or has_room(farm)):
        return []
    done: list[Instruction] = []
    placement = Placement(farm)
    passed: list[Image] = []
    """Those that have to wait while one behind them may go to another pool."""
    while farm.waiting:
        image = farm.waiting[0]
        if farm.needs_spool(image) and farm.spool_full():
            farm.spool_queue.append(farm.waiting.popleft())
            continue
        if held_up(farm, image, now):
            farm.waiting.popleft()
            hold(farm, image)
            continue
        worker = placement.worker(image)
        if worker is None and (not placement.several or placement.exhausted or len(passed) >= LOOK_AHEAD):
            break
        farm.waiting.popleft()
        if worker is None:
            passed.append(image)
        else:
            done += _dispatch(farm, worker, image, now)
    farm.waiting.extendleft(reversed(passed))
    return done


def _dispatch(farm: Farm, worker: Worker, image: Image, now: float) -> list[Instruction]:
    done: list[Instruction] = []
    job = farm.jobs[image.task.job_id]
    if not job.started:
        job.started = True
        done.append(Publish(JobStarted(job.job_id, job.num_images)))
    folder = farm.failing_folder(image)
    if folder:
        folder.probing = True
    image.move(S.RUNNING)
    image.started_at = now
    if image.crashes:
        image.task = replace(image.task, attempt=image.crashes + 1)
    worker.images.append(image)
    if worker.state is W.IDLE:
        worker.move(W.BUSY, now)
    done.append(Dispatch(worker.number, image.task, job.options))
    return done


def worker_ready(farm: Farm, event: events.WorkerReady, now: float) -> list[Instruction]:
    """A worker can take images. Its pid is in the journal before it gets one, so that a successor can fence
    it off."""
    worker = farm.workers[event.worker]
    worker.pid, worker.created = event.pid, event.created
    worker.node, worker.node_pid, worker.ready_at = event.node, event.node_pid, now
    farm.nodes.setdefault(event.node, Node(worker.pool, now))
    farm.encoders = event.encoders
    if worker.state is not W.STARTING:
        return []
    pool = farm.pools[worker.pool]
    recovered = [Publish(EngineRecovered(pool.name))] if pool.error else []
    pool.failed_starts, pool.spawn_at, pool.error = 0, 0.0, ""
    worker.move(W.IDLE, now)
    return [
        *recovered,
        Append((worker_record(worker),)),
        Publish(WorkerIsReady(worker.number, worker.pid)),
    ]


def worker_record(worker: Worker) -> dict[str, Any]:
    """The journal record by which a successor can fence off a worker."""
    return {"r": "worker", "pid": worker.pid, "created": worker.created}


def worker_gone(farm: Farm, event: events.WorkerGone, now: float) -> list[Instruction]:
    """A worker has ended and was collected: what it held goes to another."""
    worker = farm.workers.pop(event.worker)
    expected = worker.state is W.RETIRING or (farm.draining and not worker.images)
    worker.move(W.GONE, now)
    pool = farm.pools[worker.pool]
    if not worker.pid and not expected and now >= pool.spawn_at:
        _pause_starts(pool, now)
    ended = WorkerReaped if expected else WorkerLost
    # Why an engine has no workers was published once.
    known = not worker.pid and pool.error
    done: list[Instruction] = [] if known else [Publish(ended(worker.number, worker.pid, event.why))]
    suspect = worker.images[0] if worker.images else None
    for image in reversed(worker.images):
        image.task = attempted(image.task, event.notes)
        folder = farm.failing_folder(image)
        if folder:
            folder.probing = False
        if image is suspect and not event.blameless:
            image.crashes += 1
            if image.crashes >= MAX_CRASHES:
                reason = f"It ended its worker {image.crashes} times (last: {event.why})."
                if farm.limits.watermark:
                    reason += f" The watermark {farm.limits.watermark} runs in the workers, too."
                done += bury(farm, image, ImageResult("failed", error=reason, code="crash"))
                continue
        image.move(S.QUEUED)
        farm.waiting.appendleft(image)
        if image.task.noted:  # the file of the notes goes now
            done.append(Append((image_record(image),)))
    return done


def _pause_starts(pool: WorkerPool, now: float) -> None:
    """Start no worker for a while. What is wrong (a broken library, no memory, no cluster) is not better at
    once, and a try costs most of a core."""
    pool.failed_starts += 1
    pool.spawn_at = now + pause_s(pool.failed_starts)


def pool_failed(farm: Farm, event: events.PoolFailed, now: float) -> list[Instruction]:
    """No worker of a pool can be had: the others do its work, and it is tried again with pauses."""
    pool = farm.pools[event.pool]
    if now >= pool.spawn_at:
        _pause_starts(pool, now)
    same, since = pool.error == event.error, pool.since if pool.error else now
    pool.error, pool.since = event.error, since
    return [] if same else [Publish(EngineFailing(pool.name, event.error))]


def drain_requested(farm: Farm, event: events.DrainRequested, now: float) -> list[Instruction]:
    """Take nothing new; the supervisor ends the workers once `farm.drained`. A pause ends: what was accepted
    is finished. It goes on where the farm ends now: its images are for the next start."""
    farm.draining = True
    return [] if event.now else _pause(farm, False)


def pause_requested(farm: Farm, event: events.PauseRequested, now: float) -> list[Instruction]:
    """Begin no image and no upload until the pool is resumed. What runs is finished, what is accepted waits,
    and more is accepted until the bounds are reached."""
    if event.paused and farm.draining:
        error = NotPossible("The farm is stopping: it finishes what it accepted and cannot be paused.")
        return [Reply(event.client, event.reply, refusal(error))]
    changed = _pause(farm, event.paused)
    running = farm.depth - len(farm.waiting)
    answer = {"success": True, "paused": farm.paused, "waiting": _waiting(farm), "running": running}
    return [*changed, Reply(event.client, event.reply, answer)]


def _pause(farm: Farm, paused: bool) -> list[Instruction]:
    if farm.paused is paused:
        return []
    farm.paused = paused
    return [Publish((PoolPaused if paused else PoolResumed)(_waiting(farm)))]


def _waiting(farm: Farm) -> int:
    return len(farm.waiting) + farm.held


def tick(farm: Farm, event: events.Tick, now: float) -> list[Instruction]:
    """Everything that depends on time alone."""
    gap = now - farm.last_tick if farm.last_tick else 0.0
    farm.last_tick = now
    if gap > STOPPED_S:
        # This process was stopped (SIGSTOP, suspend): no worker was late.
        for worker in farm.workers.values():
            worker.since += gap
    farm.slots.expire(now)
    probe(farm, now)
    return [
        *_late_waiters(farm, now),
        *_hung(farm, now),
        *_reap(farm, now),
        *_bury_again(farm, now),
        *relieve(farm, now),
    ]


def _late_waiters(farm: Farm, now: float) -> list[Instruction]:
    late = [waiter for waiter in farm.waiters if waiter.until <= now]
    farm.waiters = [waiter for waiter in farm.waiters if waiter.until > now]
    return [Reply(w.client, w.reply, farm.jobs[w.job_id].report()) for w in late]


def _hung(farm: Farm, now: float) -> list[Instruction]:
    done: list[Instruction] = []
    for worker in farm.workers.values():
        if worker.state is W.STARTING and farm.pools[worker.pool].limits.far:
            continue  # it waits for a place, and its pool knows whether one can come
        if worker.state in (W.BUSY, W.STARTING, W.RETIRING):
            size = worker.images[0].task.nbytes if worker.images else 0
            deadline = farm.limits.worker_deadline_s + size / BYTES_PER_SECOND
            if worker.state is W.STARTING:
                deadline = max(deadline, START_S)
            if now - worker.since > deadline:
                worker.move(W.KILLED, now)
                done.append(EndWorker(worker.number, f"no progress for {deadline:.0f} s", force=True))
    return done


def _reap(farm: Farm, now: float) -> list[Instruction]:
    done: list[Instruction] = []
    for pool in farm.pools.values():
        alive = farm.alive(pool.name)
        # One that waits for a place far away is as idle as one that has it.
        idle = {w.number: w.since for w in alive if w.state is W.IDLE or _waits_for_a_place(pool, w)}
        low = bounds(farm, pool)[0]
        reaped = surplus(idle, len(alive), low, farm.limits.idle_timeout_s, now)
        if farm.drained:
            reaped = list(idle)
        for number in reaped:
            farm.workers[number].move(W.RETIRING, now)
        done += [EndWorker(number, "idle") for number in reaped]
    return done


def _waits_for_a_place(pool: WorkerPool, worker: Worker) -> bool:
    return pool.limits.far and worker.state is W.STARTING


def _bury_again(farm: Farm, now: float) -> list[Instruction]:
    done: list[Instruction] = []
    for (job_id, index), at in list(farm.bury_at.items()):
        if at <= now:
            del farm.bury_at[job_id, index]
            image = farm.image(job_id, index)
            assert image is not None, "a job with an unfinished image is kept"
            done.append(Bury(image.task, farm.jobs[job_id].options, image.result.error))
    return done
