"""What must hold in the pretended world whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from world_uploads import NEEDING
from world_workers import FINAL, NO_PIXELS, OTHER

from luna_farm.core import instructions as do
from luna_farm.core import recovery
from luna_farm.core.circuits import Upload
from luna_farm.core.completion import finished_records
from luna_farm.core.job import ImageState
from luna_farm.core.open_submits import Step
from luna_farm.core.shards import ShardState


class Checks:
    """The part of `World` that looks whether the farm remembers everything."""

    def remembered(self) -> None:
        """All that is accepted and not finished is where the farm finds it, and its successor would too."""
        queued = [*self.farm.waiting, *self.farm.spool_queue]
        waiting = {image.key for image in queued}
        working = {image.key for worker in self.farm.workers.values() for image in worker.images}
        other = {image.key for image in self.farm.unfinished() if image.state.value in OTHER}
        burying = {(i.task.job_id, i.task.index) for i in self.held if isinstance(i, do.Bury)} | set(
            self.farm.bury_at
        )
        for key, state in self.accepted.items():
            if state not in FINAL and state != "failed":
                assert (key in waiting) + (key in working) + (key in other) == 1, (
                    f"{key} is forgotten or held twice"
                )
                image = self.farm.image(*key)
                assert image is not None
                assert image.state.value != "burying" or key in burying, (
                    f"{key} waits for a burial that is not under way"
                )
        assert len(waiting) == len(queued)
        self._uploads_remembered()
        after = recovery.read(self.journal, self.reports)
        kept = [*self.reports, *finished_records(self.farm, self.farm.unkept)]
        compact = recovery.read(recovery.snapshot(self.farm), kept)
        for job_id in self.farm.jobs:
            opened = self.farm.submits.get(job_id)
            if opened is not None and opened.step is Step.JOURNAL:
                continue  # its images are on their way into the journal
            assert self._story(after, job_id) == self._story(compact, job_id)
        assert self._archives(after) == self._archives(compact)

    def _archives(self, recovered: recovery.RecoveredState) -> dict[str, tuple[int, int, int]]:
        return {s.shard_id: (s.members, s.bytes, s.spool_bytes) for s in recovered.shards.values()}

    def _uploads_remembered(self) -> None:
        """Every upload that is not over waits for its turn, is under way, or is in an open archive."""
        ordered = [(i.job_id, i.index, i.number) for i in self.outside.orders if hasattr(i, "number")]
        waiting = [(u.job_id, u.index, u.number) for c in self.farm.circuits.values() for u in c.waiting]
        assert len(set(ordered)) == len(ordered), "an upload is ordered twice"
        assert len(set(waiting)) == len(waiting), "an upload waits twice"
        running = sum(circuit.running for circuit in self.farm.circuits.values())
        assert running == len(ordered), "a circuit lost count of what runs"
        spooled = sum(shard.spool_bytes for shard in self.farm.shards.values())
        for job in self.farm.jobs.values():
            for image in job.images:
                if image.state.value not in ("uploading", "failed") or not image.uploads:
                    continue
                spooled += image.result.spool_bytes
                for upload in image.uploads:
                    self._upload_remembered((*image.key, upload.number), upload, ordered, waiting)
        assert spooled == self.farm.spool_used_bytes, "the spool holds another number of bytes"
        for shard in self.farm.shards.values():
            pending = sum(1 for u in self._members(shard.shard_id) if u.state.value in NEEDING)
            assert pending == shard.pending, f"{shard.path} waits for {shard.pending} members, not {pending}"

    def _members(self, shard_id: str) -> Iterator[Upload]:
        for job in self.farm.jobs.values():
            for image in job.images:
                yield from (upload for upload in image.uploads if upload.shard == shard_id)

    def _upload_remembered(
        self, key: tuple[str, int, int], upload: Upload, ordered: list[Any], waiting: list[Any]
    ) -> None:
        if upload.state.value == "waiting":
            assert key in waiting, f"the upload {key} is forgotten"
        elif upload.state.value == "uploading":
            assert key in ordered, f"the upload {key} runs, and no uploader has it"
        elif upload.state.value == "packed":
            assert upload.shard in self.farm.shards, f"the archive of {key} is forgotten"

    def _story(self, recovered: recovery.RecoveredState, job_id: str) -> list[tuple[str, str, str]]:
        job = recovered.jobs.get(job_id) or recovered.reports[job_id]
        images = [
            (
                i.task.path,
                i.state.value,
                "" if i.finished or i.state in NO_PIXELS else i.task.segment,
            )
            for i in job.images
        ]
        uploads = [
            (u.name, u.state.value, f"{u.spool} {u.shard}")
            for i in job.images
            for u in i.uploads
            if i.state in (ImageState.UPLOADING, ImageState.FAILED)
        ]
        return [*images, *uploads, (job.request_id, job.state, "")]

    def _archives_open(self) -> bool:
        return any(shard.state is not ShardState.FAILED for shard in self.farm.shards.values())
