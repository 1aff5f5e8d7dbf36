"""What a predecessor left: the journal's records become jobs again, and the jobs become a compact journal.

Pure: records in, state out. The caller knows which segments can still be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from luna_farm.core import archive_recovery, early, shards, uploads
from luna_farm.core.completion import (
    UNSURE,
    attempted,
    bury,
    close,
    image_record,
    job_record,
    lose,
    missing,
)
from luna_farm.core.dispatch import worker_record
from luna_farm.core.instructions import Append, Instruction, RemoveTemps
from luna_farm.core.job import UNFINISHED, UNSAVED, Image, ImageState, Job
from luna_farm.core.messages import ImageResult, ImageTask, Note, SaveOptions
from luna_farm.core.shards import Shard, ShardState
from luna_farm.core.state import Farm
from luna_farm.core.typed import fits, typed

S = ImageState
_ID = re.compile("[0-9A-Za-z_-]{1,64}")
RESUMED = {
    **dict.fromkeys((S.RUNNING.value, S.HELD.value, S.BURYING.value), S.QUEUED),
    "waiting": S.QUEUED,  # what version 0.1 wrote
}
"""States that do not survive a restart: the image simply waits again."""


@dataclass(slots=True)
class RecoveredState:
    """What the records hold: jobs, the workers to fence off, the segments that unfinished images lie in."""

    jobs: dict[str, Job]
    """Those in the journal: open ones, and some that finished since it was compacted."""
    workers: list[tuple[int, float]]
    """(pid, creation time) of every worker that may have been handed an image."""
    reports: dict[str, Job] = field(default_factory=dict)
    """Those that had finished, the oldest first."""
    shards: dict[str, Shard] = field(default_factory=dict)
    """Archives that were being written or sent."""
    unread: list[str] = field(default_factory=list)
    """Job ids of records that make no sense: an unknown state, a field that is missing."""
    ended: set[tuple[str, int]] = field(default_factory=set)
    """Finished images of jobs whose record is gone."""
    unsure: set[str] = field(default_factory=set)
    """Jobs of which records may be missing: their images may have been saved."""

    def segments_in_use(self) -> set[str]:
        """Where the pixels of unfinished images lie."""
        images = [image for job in self.jobs.values() for image in job.images]
        with_pixels = (image for image in images if not image.finished and image.state is not S.UPLOADING)
        return {image.task.segment for image in with_pixels}


def read(records: Iterable[dict[str, Any]], reports: Sequence[dict[str, Any]] = ()) -> RecoveredState:
    """Replay the records of a journal in order, and the reports of finished jobs. A record of an unknown kind
    (a newer farm) is passed over; one that makes no sense is named in `unread`."""
    recovered = RecoveredState({}, [])
    for record in _each(records):
        try:
            _replay(recovered, record)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError):
            recovered.unread.append(str(record.get("job_id") or record.get("r"))[:64])
    for record in reports:
        try:
            _replay_report(recovered, record)
        except (KeyError, ValueError, TypeError, AttributeError):
            continue  # a report is history: nothing depends on it
    return recovered


def _each(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the records, those in a bundle one by one: one that makes no sense costs no other job."""
    for record in records:
        bundle = record.get("jobs") if record.get("r") == "jobs" else None
        if isinstance(bundle, list):
            yield from (one if isinstance(one, dict) else {"r": "job"} for one in bundle)
        else:
            yield record


def _replay(recovered: RecoveredState, record: dict[str, Any]) -> None:
    kind = record.get("r")
    if kind == "job":
        job = _job(record)
        recovered.jobs[job.job_id] = job
    elif kind == "image" and record["job_id"] in recovered.jobs:
        images, index = recovered.jobs[record["job_id"]].images, record["index"]
        if index < 0:
            raise IndexError(index)
        images[index] = _image(record, images[index])
    elif kind == "withdrawn":
        recovered.jobs.pop(record["job_id"], None)
    elif kind == "shard":
        shard = shards.of_record(record)
        recovered.shards[shard.shard_id] = shard
        if shard.state is ShardState.PUBLISHED:
            del recovered.shards[shard.shard_id]
    elif kind == "shard_counts" and record["shard_id"] in recovered.shards:
        counts = {name: record[name] for name in ("members", "bytes", "spool_bytes")}
        recovered.shards[record["shard_id"]] = typed(replace(recovered.shards[record["shard_id"]], **counts))
    elif kind == "image" and S(record["state"]) not in UNFINISHED:
        recovered.ended.add((record["job_id"], record["index"]))
    elif kind == "worker":
        pid, created = record["pid"], record["created"]
        if not (fits(pid, int) and fits(created, float)):
            raise TypeError("pid and created are numbers")
        recovered.workers.append((pid, created))


def _replay_report(recovered: RecoveredState, record: dict[str, Any]) -> None:
    recovered.reports.pop(record["job_id"], None)
    if record["job_id"] not in recovered.jobs:
        recovered.reports[record["job_id"]] = _job(record)


def _job(record: dict[str, Any]) -> Job:
    job_id, request_id = record["job_id"], record["request_id"]
    if not (_ID.fullmatch(job_id) and fits(request_id, str)):
        raise ValueError("no ids of a job")
    return Job(
        job_id=job_id,
        request_id=request_id,
        options=typed(SaveOptions.from_map(record["options"])),
        images=[_image(image, None) for image in record["images"]],
        accepted_at=0.0,
        warnings=tuple(record["warnings"]),
    )


def _image(record: dict[str, Any], before: Image | None) -> Image:
    """Make an image of its record; what the record leaves out is as it was `before`."""
    state = record["state"]
    task = task_of(record["task"]) if before is None or "task" in record else before.task
    result = typed(ImageResult.from_map({"state": "", **record.get("result", {})}))
    image = Image(
        task=task,
        state=RESUMED.get(state) or S(state),
        result=replace(result, warnings=tuple(result.warnings)),
        journaled=task,
        history=["recovered"],
    )
    image.uploads = uploads.of_records(image.key, record.get("uploads", []))
    return image


def task_of(record: dict[str, Any]) -> ImageTask:
    """Return the task of a record. Raises KeyError, ValueError, TypeError or AttributeError for one that
    makes no sense."""
    task = typed(ImageTask.from_map(record))
    for note in (task.noted or {}).values():
        typed(Note.from_map(note))
    if not (_ID.fullmatch(task.job_id) and task.nbytes >= 0 and all(fits(path, str) for path in task.paths)):
        raise ValueError("no task")
    return task


class DiskProbe(Protocol):
    """What only the disk and the memory of the machine show."""

    def readable(self, segment: str) -> bool:
        """Whether the pixels in a segment can still be had."""

    def published(self, task: ImageTask) -> ImageResult | None:
        """What came of an image whose file was published just before the end; None if it was not."""

    def spooled(self, path: str) -> bool:
        """Whether a file of the upload spool is there and whole."""

    def sealed(self, task: ImageTask) -> int | None:
        """Give an image up whose client may still be copying it, unless its mark says that its pixels are
        complete: then return how many of their values were flawed."""

    def there(self, path: str) -> bool:
        """Whether something lies under a name that was free when it was reserved."""


def restore(
    farm: Farm, recovered: RecoveredState, probe: DiskProbe, now: float, notes: Sequence[Note] = ()
) -> list[Instruction]:
    """Take the jobs of a predecessor up again; `notes` are those of its workers.

    Images whose pixels are gone (a reboot) and that were not published are lost, and reported by name.
    """
    done: list[Instruction] = []
    archive_recovery.restore_shards(farm, list(recovered.shards.values()), probe.spooled, now)
    for job in [*recovered.reports.values(), *recovered.jobs.values()]:
        if _comes_to_nothing(job, probe) and job.job_id not in recovered.unsure:
            continue
        farm.jobs[job.job_id] = farm.open_jobs[job.job_id] = job
        farm.requests[job.request_id] = job.job_id
        job.accepted_at = now
        archive_recovery.remember(farm, job)
        for image in job.images:
            if image.state is S.QUEUED:
                image.task = attempted(image.task, notes)
                unsure = job.job_id in recovered.unsure and _shows(job, image, probe)
                done += _resume(farm, image, probe, now, unsure)
            elif image.uploads:
                done += uploads.restore(farm, image, probe.spooled, now)
            elif image.state is S.FAILED:
                farm.keep_pixels(image)
        done += missing(farm, job) if job.count(S.FILLING) else []
        closed = close(farm, job, now)
        if job.job_id in recovered.reports:
            farm.unkept.pop(job.job_id, None)
        elif _news(job):
            done += closed
    return done


def _comes_to_nothing(job: Job, probe: DiskProbe) -> bool:
    """Accept the images of a job whose receipt was sent before their seal, if all their marks are set or
    their memory is gone; say whether there is nothing of it to take up."""
    marked = [image for image in job.images if image.state is S.FILLING and image.task.mark]
    if not marked:
        return False
    if all(probe.readable(image.task.segment) for image in marked):
        flaws = [probe.sealed(image.task) for image in marked]  # each is asked: that gives it up
    else:
        flaws = [0] * len(marked)  # they are lost, or found by the notes of the workers
    if None in flaws and not any(probe.published(image.task) for image in marked):
        return early.came_to_nothing(job)
    for image, count in zip(marked, flaws, strict=True):
        image.task = image.task.with_fields(mark=(), flaws=count or 0)
        image.move(S.QUEUED)
    return False


def _shows(job: Job, image: Image, probe: DiskProbe) -> bool:
    """Whether something is there that may be this image: not for a file that is to be replaced."""
    own = not image.task.archive and job.options.if_exists == "number"
    return own and probe.there(image.task.path)


def _resume(farm: Farm, image: Image, probe: DiskProbe, now: float, unsure: bool) -> list[Instruction]:
    image.queued_at = now
    readable = probe.readable(image.task.segment)
    if readable and not unsure:
        farm.keep_pixels(image)
        farm.take_name(image)
        farm.waiting.append(image)
        return []
    result = probe.published(image.task)
    if readable and result is None:
        farm.keep_pixels(image)
        return bury(farm, image, ImageResult("failed", path=image.task.path, error=UNSURE, code="unsure"))
    if result is not None:
        image.result = result
        if result.uploads:
            image.move(S.UPLOADING)
            return uploads.begin(farm, image, now)
        image.move(S(result.state))
        return [Append((image_record(image),))]
    reason = "Its pixels were in memory when the machine stopped, before the file was written."
    if probe.there(image.task.path):
        # After a power cut the journal may lack what happened in the last seconds.
        reason = (
            "Its pixels were in memory when the machine stopped. A file of its name is there; look at it."
        )
    temps = RemoveTemps(image.task.temp_paths, image.task.root)
    return [temps, *lose(farm, image, image.task.path, reason)]


def catalogue_rows(jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
    """Yield what is known of every image that came to an end: a start adds those to the catalogue that it
    lacks."""
    for job in list(jobs):
        for image in job.images:
            if image.state in (S.SAVED, S.DISCARDED) or image.state in UNSAVED:
                yield _catalogue_row(job, image)


def _catalogue_row(job: Job, image: Image) -> dict[str, Any]:
    task, result = image.task, image.result
    path, member = result.path or task.path, image.member
    return {
        "path": f"{path}/{member}" if member else path,
        "state": "failed" if image.state in UNSAVED else image.state.value,
        "job_id": task.job_id,
        "index": task.index,
        "format": task.format,
        "width": task.width,
        "height": task.height,
        "bytes": result.bytes,
        "warnings": result.warnings,
        "error": result.error,
        "gate_score": result.score,
        "gate_threshold": result.threshold,
        "timestamp": job.options.timestamp,
        **(result.scores or {}),
    }


def _news(job: Job) -> bool:
    """Whether this restart changed something that the feed has not heard yet."""
    return any(image.history[-1:] != ["recovered"] for image in job.images)


def snapshot(farm: Farm) -> list[dict[str, Any]]:
    """The fewest records that make the same farm again, but for reports: what a compacted journal holds."""
    workers = [worker_record(worker) for worker in farm.workers.values() if worker.pid]
    workers += [uploads.uploader_record(farm.uploader)] if farm.uploader else []
    archives_left = [shard.record() for shard in farm.shards.values()]
    return workers + archives_left + [job_record(job) for job in farm.open_jobs.values()]
