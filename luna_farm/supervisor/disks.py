"""On which disk the files of each folder belong, also after that disk was unmounted.

What is remembered are mount points: a folder below one that was in use belongs on the disk that was mounted
there, whether this folder was used before or not. A mirror may be a network folder that does not answer; it
must never delay a job that has other places to go to.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from luna_farm import system
from luna_farm.locations import is_url
from luna_farm.storage import mounts

log = logging.getLogger("luna_farm.folders")

MOUNT_FRESH_S = 1.0
"""How long it is believed on which disk a folder lies."""
STILL_THERE_S = 0.05
"""How long it is believed that a disk is still there: in a burst it need not be asked for each image."""
MIRROR_S = 1.0
"""How long a job waits, once, for a mirror to say on which disk it is."""
MAX_KNOWN = 1024

_Answers = dict[str, tuple[str, bool]]
"""Folder -> the mount point of its disk, and whether something is mounted there."""


class Disks:
    """The disks that one farm has written to. `points`: mount points that were in use before it began."""

    def __init__(self, points: Iterable[str] = ()) -> None:
        self._folders: dict[str, tuple[str, float, float]] = {}
        """Folder -> the mount point of its disk, when it was looked up, and when it was there last."""
        self._points = set(points)
        """Mount points that were in use."""
        self._local: set[str] = set()
        """Folders on disks of this machine, which answer at once."""
        self._silent: set[str] = set()
        """Mirrors that have been asked and have not answered yet."""

    def are_local(self, folders: Iterable[str]) -> bool:
        """Whether all folders are known to be on disks of this machine."""
        return self._local.issuperset(folders)

    def look(self, folder: str) -> None:
        """Find out whether a folder is on a disk of this machine. Raises OSError as `of` does."""
        if system.on_local_disk(os.path.realpath(folder)):
            if len(self._local) >= MAX_KNOWN:
                self._local.clear()
            self._local.add(folder)

    def of(self, folder: str) -> tuple[str, bool]:
        """Return the mount point of the disk that the files of a folder belong on, "" for that of the system,
        and whether something is mounted there. Raises OSError for a path that changes meanwhile."""
        mount, at, seen_at = self._folders.get(folder, ("", 0.0, 0.0))
        now = time.monotonic()
        if seen_at and now - seen_at < STILL_THERE_S:
            return mount, True
        if not at or now - at >= MOUNT_FRESH_S or not mounts.is_there(mount):
            mount, at = self._belongs_on(folder), now
            if not mounts.is_there(mount):
                return mount, False
        if len(self._folders) >= MAX_KNOWN:
            self._folders.clear()
        self._folders[folder] = mount, at, now
        return mount, True

    def _belongs_on(self, folder: str) -> str:
        real = os.path.realpath(folder)
        mount = mounts.mount_of(real)
        known = [point for point in tuple(self._points) if mounts.below(real, point)]
        nearest = max(known, key=len, default="")
        if len(nearest) > len(mount):
            return nearest
        if mount and len(self._points) < MAX_KNOWN:
            self._points.add(mount)
        return mount

    def of_mirrors(
        self, places: Iterable[str], below: Sequence[str] = ()
    ) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """Return the mount points of those mirrors that are on another disk than that of the system, and
        (mirror, mount point) of each where nothing is mounted now. `below`: folders in each, "/" between the
        parts; one on another disk than its mirror (a mount point in it, a link) is in both by itself. A
        mirror that does not answer is believed to be where it was."""
        folders = {
            place: [place, *(f"{place}/{folder}" for folder in below)]
            for place in places
            if not is_url(place)
        }
        asked = {place: self._ask(within) for place, within in folders.items()}
        until = time.monotonic() + MIRROR_S
        found: dict[str, str] = {}
        gone: list[tuple[str, str]] = []
        for place, answer in asked.items():
            try:
                answers = answer.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                answers = self._believed(folders[place])
            of_mirror = answers[place][0]
            for folder, (mount, there) in answers.items():
                if mount != (of_mirror if folder != place else ""):
                    found[folder] = mount
                if not there and (folder == place or mount != of_mirror):
                    gone.append((folder, mount))
        return found, gone

    def _believed(self, folders: Sequence[str]) -> _Answers:
        """What is known of a mirror, the first of `folders`, and of those below it."""
        known = {folder: (self._folders[folder][0], True) for folder in folders if folder in self._folders}
        return {folders[0]: ("", True), **known}

    def _ask(self, folders: Sequence[str]) -> queue.SimpleQueue[_Answers]:
        """Ask for the disks of a mirror, the first of `folders`, and of those below it, in a thread unless
        all are known to answer; returns where the answer comes. There is none while an earlier question to
        the mirror has none."""
        mirror = folders[0]
        answer: queue.SimpleQueue[_Answers] = queue.SimpleQueue()
        if self.are_local(folders):
            answer.put({folder: self.of(folder) for folder in folders})
            return answer

        def ask() -> None:
            found = self._believed(folders)
            for folder in folders:
                try:
                    found[folder] = self.of(folder)
                    self.look(folder)
                except Exception as error:  # a path that changes meanwhile: looked at again with the next job
                    log.debug("The disk of the mirror %s is not known: %s", folder, error)
            self._silent.discard(mirror)
            answer.put(found)

        if mirror in self._silent:
            answer.put(self._believed(folders))
            return answer
        self._silent.add(mirror)
        try:
            threading.Thread(target=ask, name="mirror", daemon=True).start()
        except RuntimeError:  # out of threads
            self._silent.discard(mirror)
            answer.put(self._believed(folders))
        return answer


def since_last_start(folder: str, before: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Return what the next start has to know of the output folder, and a sentence if nothing is mounted now
    where it was when the farm began last. before: what that start left."""
    mount = before.get("output_mount") if before.get("output_dir") == folder else ""
    known = mount if isinstance(mount, str) else ""
    found, gone = Disks([known] if known else []).of_mirrors([folder])
    kept = {"output_dir": folder, "output_mount": found.get(folder, known)}
    if not gone:
        return kept, ""
    return kept, (
        f"No disk is mounted at {known}, where the output folder {folder} was when the farm began last. Until"
        " one is mounted there, files go to the disk below. If that is meant, set another output_dir."
    )
