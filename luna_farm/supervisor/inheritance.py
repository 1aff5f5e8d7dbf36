"""What a farm takes over from the one that ran before it: jobs, pixels, dead letters, spooled files.

The journal tells, but it may be damaged, lost, or older than the files: pixels in the spool and dead letters
say themselves what they are. This module must never remove anything that a record which cannot be read may
have named.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath

from luna_farm import system
from luna_farm.core import dead_letters, outputs, recovery, spooled
from luna_farm.core.counted import counted
from luna_farm.core.instructions import Instruction
from luna_farm.core.job import ImageState
from luna_farm.core.messages import ImageResult, ImageTask, Note, SaveOptions, output_part
from luna_farm.core.typed import typed
from luna_farm.errors import ArenaError, FarmError
from luna_farm.locations import is_url
from luna_farm.storage import arena, files, notes, upload_spool, writer
from luna_farm.storage.marks import MARK_BYTES, Mark
from luna_farm.supervisor import state_dir
from luna_farm.supervisor.services import Services

log = logging.getLogger("luna_farm.inheritance")
LISTED = 10
"""Files that a sentence names."""


class Inheritance:
    """What lies in a state folder. `tell` takes the sentences that a person should read."""

    def __init__(self, services: Services, folder: Path, tell: Callable[[str], None]) -> None:
        self._services = services
        self._farm = services.farm
        self._state_dir = folder
        self._tell = tell

    def take_up(self, recovered: recovery.RecoveredState, whole: bool, now: float) -> list[Instruction]:
        """Take the jobs of a predecessor up again and begin the journal anew with them; returns what is to be
        done once the farm runs.

        Unless the journal is `whole`, pixels that no record names may belong to a job whose record is gone.
        """
        services, farm = self._services, self._farm
        if not whole:
            recovered.unsure.update(recovered.jobs)
        in_use = recovered.segments_in_use()
        for segment in dead_letters.take_up(recovered, self._dead_letters()):
            services.letters.remove(PurePath(segment).stem)
        unreadable: list[str] = []
        for told in spooled.take_up(recovered, self._spooled_pixels(unreadable), whole):
            self._tell(told)
        folder = self._state_dir / state_dir.NOTES
        done = recovery.restore(farm, recovered, self, now, notes.read_all(folder))
        if not whole:
            self._set_aside(unreadable)
        services.spool.sweep(farm.segment_users)
        self._sweep_uploads()
        services.large.sweep(farm.segment_users)
        for segment in in_use - farm.segment_users.keys():
            if self._is_arena(segment):
                with contextlib.suppress(
                    ArenaError
                ):  # Windows, while it is mapped: the next start removes it
                    services.segments.forget(segment)
                    arena.remove(segment)
        farm.inherited = frozenset(filter(self._is_arena, farm.segment_users))
        services.journal_writer.begin(services.snapshot())
        notes.remove_all(folder)
        left = sum(1 for _ in farm.unfinished())
        if left:
            log.warning("Taken up from the farm that ran before: %s", counted(left, "image"))
        return done

    def _is_arena(self, segment: str) -> bool:
        """Whether it is an arena of a predecessor, not a file of one image."""
        one = self._services.spool.holds(segment) or self._services.large.holds(segment)
        return not one and not segment.startswith("npy:")

    def _dead_letters(self) -> Iterator[dead_letters.DeadLetter]:
        """What lies in the dead letters and can be read."""
        for found in self._services.letters.letters():
            try:
                job, task = self._services.letters.load(found.id)
                options, image = typed(SaveOptions.from_map(job)), recovery.task_of(task)
            except (FarmError, KeyError, ValueError, TypeError, AttributeError) as error:
                self._tell(f"The dead letter {found.path} cannot be read and stays where it is: {error}")
            else:
                yield dead_letters.DeadLetter(options, image, found.reason, f"npy:{found.pixels_path}")

    def _spooled_pixels(self, unreadable: list[str]) -> Iterator[spooled.Spooled]:
        """What lies in the spool and says what it is; the segments of the rest go to `unreadable`."""
        for segment, request in self._services.spool.requests():
            try:
                yield spooled.Spooled.of(segment, request or {})
            except (KeyError, ValueError, TypeError, AttributeError):
                unreadable.append(segment)

    def _set_aside(self, unreadable: list[str]) -> None:
        """Keep pixels that no record names: their job may be one whose record is missing."""
        unclaimed = self._state_dir / state_dir.UNCLAIMED
        kept = [
            files.set_aside(segment[len("file:") :], unclaimed)
            for segment in (*unreadable, *self._services.large.segments())
            if segment not in self._farm.segment_users
        ]
        if kept:
            names = ", ".join(map(os.path.basename, kept[:LISTED]))
            self._tell(
                f"Records of the journal are missing. Pixels that no record names and that do not say what"
                f" they are, of {counted(len(kept), 'image')}, lie in {unclaimed}: {names}"
            )

    def _sweep_uploads(self) -> None:
        """Remove spooled files that every destination has confirmed; name those that belong to no job."""
        spool = self._services.upload_spool
        spool.sweep()
        images = [image for job in self._farm.jobs.values() for image in job.images]
        done = {upload.spool for image in images if image.finished for upload in image.uploads}
        wanted = {upload.spool for image in images if image.uploads for upload in image.uploads}
        wanted |= {shard.spool for shard in self._farm.shards.values()}
        wanted |= {spool.path(shard_id, 0) for shard_id in self._farm.shards}
        parts = ("", "json", *map(output_part, range(1, outputs.MOST)))
        wanted |= {spool.path(*i.key, part) for i in images if not i.finished for part in parts}
        failed = {
            upload.spool for image in images if image.state is ImageState.FAILED for upload in image.uploads
        }
        for path in spool.paths():
            if path in done - failed:
                spool.remove(path)
            elif path not in wanted:
                self._tell(f"The spooled file {path} belongs to no job in the journal and stays where it is.")

    # --- what only the disk and the memory can tell (recovery.DiskProbe)

    def readable(self, segment: str) -> bool:
        """Whether the pixels that a predecessor left in a segment can still be had."""
        if segment.startswith("npy:"):
            return os.path.exists(segment[4:])
        try:
            header = self._services.segments.arena(segment).header
        except ArenaError:
            return False
        # Of an arena of another boot it is not known which pages reached the disk; a spooled file is synced.
        return segment.startswith(f"file:{self._services.spool.folder}") or header.boot_id == system.boot_id()

    def published(self, task: ImageTask) -> ImageResult | None:
        """What a predecessor made of an image and could not report; found by its note."""
        if task.archive or is_url(task.root):
            return self._spooled_before(task)
        noted = Note.of(task)
        if noted is None:
            return None
        for state, path in (("saved", task.path), ("discarded", task.discarded_path)):
            with contextlib.suppress(FarmError):  # a folder that cannot be looked at shows nothing
                found = writer.published_before(path, task.root, noted, self._services.folders.allowed)
                if found:
                    result = ImageResult(state, path=found.path, bytes=found.bytes)
                    spooled = self._spooled_before(task)  # for its mirrors
                    if spooled is None:
                        return result
                    return replace(result, uploads=spooled.uploads, spool_bytes=spooled.spool_bytes)
        return None

    def _spooled_before(self, task: ImageTask) -> ImageResult | None:
        """What a predecessor put into the spool of uploads and could not report."""
        try:
            found = upload_spool.read(self._services.upload_spool.path(task.job_id, task.index))
        except FarmError:
            return None
        files = [found]  # it was spooled last: with it all others are there
        for part in (*map(output_part, range(1, len(task.outputs))), "json"):
            with contextlib.suppress(FarmError):  # most have no metadata beside them
                path = self._services.upload_spool.path(task.job_id, task.index, part)
                files.append(upload_spool.read(path))
        targets = tuple(
            {"spool": file.path, "root": at.root, "name": at.name} for file in files for at in file.targets
        )
        moved = targets[0]["name"] == task.discarded_path[len(task.root) + 1 :]
        discarded = found.state == "discarded" or (not found.state and moved)
        return ImageResult(
            "discarded" if discarded else "saved",
            path=task.discarded_path if discarded and not task.archive else task.path,
            bytes=found.upload.bytes,
            uploads=targets,
            spool_bytes=sum(file.upload.bytes for file in files),
        )

    def sealed(self, task: ImageTask) -> int | None:
        """Give an image up whose client may still be copying it; the number of its flaws if it is whole."""
        lease, at = task.mark
        try:
            return Mark(self._services.segments.view(task.segment, at, MARK_BYTES), lease).give_up()
        except ArenaError:
            return None

    def spooled(self, path: str) -> bool:
        """Whether a file of the upload spool is there and whole."""
        with contextlib.suppress(FarmError):
            return bool(upload_spool.read(path))
        return False

    def there(self, path: str) -> bool:
        """Whether something lies under a name that was free when it was reserved."""
        return os.path.lexists(path)
