"""Asks output folders for free names and free space, and never waits for one: a network folder may not
answer, and any path may change while it is looked at.

Folders on a disk of this machine are asked at once (microseconds); others, and any folder for the first time,
in a thread of their own that may hang for as long as it likes. This module must never let the event loop
touch a folder that is not known to be local.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any

from luna_farm import system
from luna_farm.core import events
from luna_farm.core.filenames import NUMBER, collision_key
from luna_farm.core.instructions import ReserveNames
from luna_farm.core.template import COUNTER
from luna_farm.errors import DiskError, FarmBusy, FarmError, InvalidRequest
from luna_farm.locations import check_key, is_url, parse
from luna_farm.storage import mounts, names
from luna_farm.storage.allowed import Allowed
from luna_farm.storage.sinks import missing_extra
from luna_farm.supervisor import formats
from luna_farm.supervisor.disks import Disks

log = logging.getLogger("luna_farm.folders")

ANSWER_S = 5.0
"""How long a folder may take to answer which names are free."""
MAX_ASKING = 32
"""Threads that wait for folders at a time; beyond them the answer is busy."""
SPACE_FRESH_S = 5.0
MAX_KNOWN = 1024


_Mirrors = tuple[dict[str, str], list[str]]
"""Mirror -> mount point of its disk, and a sentence on each whose disk was unmounted."""


class Folders:
    """The output folders of one farm. `taken` holds the names that are reserved; `handle_event` takes the
    answers; `allowed` says below which folders files may be saved."""

    def __init__(
        self, taken: set[str], handle_event: Callable[[events.Event], None], allowed: Allowed | None = None
    ) -> None:
        self.allowed = allowed or Allowed(())
        self._taken = taken
        self._handle_event = handle_event
        self._asking: Counter[str] = Counter()
        self._disks = Disks()
        self._space: dict[str, tuple[int, int]] = {}
        self._space_at: dict[str, float] = {}

    def reserve(self, i: ReserveNames) -> None:
        """Find free names; the answer is an event, at once or from a thread."""
        places = [place for place in (i.output_dir, *i.mirrors) if not is_url(place)]
        # Behind a link may be any disk.
        known = not places or (not self.allowed.follow_links and self._are_local(i, places))
        if known and i.output_dir not in self._asking:
            self._handle_event(self._reserved(i))
            return
        if self._asking.total() >= MAX_ASKING:
            reason = (
                f"{MAX_ASKING} folders are being asked for free names and have not answered yet; try again."
            )
            self._handle_event(
                events.NamesReserved(i.job_id, error=FarmBusy(f"The farm is busy: {reason}", MAX_ASKING))
            )
            return
        loop = asyncio.get_running_loop()
        answered = False

        def answer(made: Callable[[], events.Event]) -> None:
            nonlocal answered
            self._asking[i.output_dir] -= 1
            if not self._asking[i.output_dir]:
                del self._asking[i.output_dir]
            if not answered:
                answered = True
                late.cancel()
                self._handle_event(made())
            elif isinstance(event := made(), events.NamesReserved):
                self._taken.difference_update(map(collision_key, event.paths))

        def give_up() -> None:
            nonlocal answered
            answered = True
            self._handle_event(events.NamesReserved(i.job_id, error=_silent(places or [i.output_dir])))

        self._asking[i.output_dir] += 1
        late = loop.call_later(ANSWER_S, give_up)
        # `answer` gives the place back. It is called exactly once, whatever the folder does to us.
        _in_thread(
            "folder", loop, answer, lambda: (self._look(i),), lambda error: (lambda: _refused(i, error),)
        )

    def _are_local(self, i: ReserveNames, places: Sequence[str]) -> bool:
        """Whether all that a job has looked at is known to answer: also what may be mounted in a mirror."""
        if not self._disks.are_local(places) or not i.mirrors:
            return self._disks.are_local(places)
        try:
            below = self._folders_below(i)
        except FarmError:  # not allowed: said in a thread
            return False
        mirrors = (place for place in i.mirrors if not is_url(place))
        return self._disks.are_local(f"{mirror}/{folder}" for mirror in mirrors for folder in below)

    def _folders_below(self, i: ReserveNames) -> list[str]:
        """Return the folders in which the files of a job lie at each of its mirrors. Raises as
        `Allowed.place` does."""
        rest = "" if is_url(i.output_dir) else self.allowed.place(i.output_dir)[1]
        names_at = (i.archive,) if i.archive else i.relatives
        folders = dict.fromkeys((rest + name).rpartition("/")[0] for name in names_at)
        return [folder for folder in folders if folder]

    def _look(self, i: ReserveNames) -> Callable[[], events.Event]:
        """Ask the folders of a job; returns what makes the answer of it, on the loop."""
        if is_url(i.output_dir):
            formats.check(i.needs)
            mirrors = self._mirrors(i)
            return lambda: self._reserved_there(i, mirrors)
        event = self._reserved(i)
        with contextlib.suppress(Exception):  # swapped or removed meanwhile: the names hold
            self._disks.look(i.output_dir)
        return lambda: event

    def _reserved(self, i: ReserveNames) -> events.Event:
        """Reserve all names of a job or none. A path can change while it is looked at: never raises."""
        try:
            formats.check(i.needs)
            mirrors = self._mirrors(i)
            return (self._reserved_there if is_url(i.output_dir) else self._reserved_here)(i, mirrors)
        except Exception as error:
            return _refused(i, error)

    def _mirrors(self, i: ReserveNames) -> _Mirrors:
        """Return on which disks the mirrors of a job are. Raises InvalidRequest for one that is not allowed,
        or at which a key would be too long."""
        if not i.mirrors:
            return {}, []
        for mirror in i.mirrors:
            if is_url(mirror):
                _check_extra("mirrors", mirror)
            else:
                self.allowed.place(mirror, "mirrors")
        _check_mirrored_keys(i)
        found, gone = self._disks.of_mirrors(i.mirrors, self._folders_below(i))
        return found, [_unmounted(mirror, mount) for mirror, mount in gone]

    def _reserved_there(self, i: ReserveNames, mirrors: _Mirrors) -> events.Event:
        """Reserve names at a destination: against those of this farm only. What is there already shows when a
        file is sent, and costs it the next number: a destination that does not answer must delay no one
        else."""
        reserved: list[str] = []
        try:
            _check_extra("output_dir", i.output_dir)
            for group in _by_image(i.relatives):
                keys = _free_keys(i.output_dir, group, self._taken)
                reserved += keys
                self._taken.update(map(collision_key, keys))
        except FarmError as error:
            self._taken.difference_update(map(collision_key, reserved))
            return events.NamesReserved(i.job_id, error=error)
        found, gone = mirrors
        return events.NamesReserved(
            i.job_id, tuple(reserved), (*i.warnings, *gone), i.output_dir, mirror_mounts=found or None
        )

    def _reserved_here(self, i: ReserveNames, mirrors: _Mirrors) -> events.Event:
        """Reserve names in a folder."""
        root, rest = self.allowed.place(i.output_dir)
        reserved = names.reserve_all(
            root,
            [rest + relative for relative in i.relatives] if rest else i.relatives,
            self._taken,
            numbers=i.numbers,
            sidecars=i.sidecar != "never",
            each_beside=i.sidecar == "always",
            if_exists=i.if_exists,
            allowed=self.allowed,
        )
        at = [os.path.join(i.output_dir, *i.archive.split("/"))] if i.archive else reserved
        points: list[str] = []
        away: dict[str, str] = {}
        for path in at:
            folder = path.rpartition(os.sep)[0]
            mount, there = self._disks.of(folder)
            points.append(mount)
            if not there:
                away[mount] = _unmounted(folder, mount)
        self._taken.update(map(collision_key, reserved))
        found, gone = mirrors
        return events.NamesReserved(
            i.job_id,
            tuple(reserved),
            (*i.warnings, *away.values(), *gone),
            root,
            tuple(points) if any(points) else (),
            found or None,
        )

    def space(self, path: str, now: float, fresh_s: float = SPACE_FRESH_S) -> tuple[int, int]:
        """Return (free, total) bytes of the disk of a folder as last seen, (0, 0) until it has answered
        once. They are at most `fresh_s` old, and one question longer."""
        if now - self._space_at.get(path, -fresh_s) >= fresh_s:
            if len(self._space_at) >= MAX_KNOWN:
                self._space_at.clear()
                self._space.clear()
            self._space_at[path] = float("inf")  # no second question while this one is open
            loop = asyncio.get_running_loop()

            def answer(found: tuple[int, int]) -> None:
                self._space[path], self._space_at[path] = found, now

            _in_thread("space", loop, answer, lambda: (system.disk_bytes(path),), lambda _: ((0, 0),))
        return self._space.get(path, (0, 0))


def _by_image(relatives: Sequence[str]) -> list[list[str]]:
    """Group the names of the files of each image, which follow one another."""
    groups: list[list[str]] = []
    for relative in relatives:
        stem, several, _ = relative.partition(NUMBER)
        last = groups[-1] if groups else []
        if several and last and relative not in last and last[0].partition(NUMBER)[0] == stem:
            last.append(relative)
        else:
            groups.append([relative])
    return groups


def _free_keys(root: str, group: Sequence[str], taken: Container[str]) -> list[str]:
    """Return the URLs of names that no other job has, all with the same number, the first that is free."""

    def keys(number: int) -> list[str]:
        return [f"{root}/{names.numbered(relative, number)}" for relative in group]

    def is_taken(number: int) -> bool:
        return any(collision_key(key) in taken for key in keys(number))

    number = 0
    if COUNTER in group[0] or is_taken(0):
        number = names.first_free(f"{root}/{group[0]}", is_taken)
    free, at = keys(number), len(parse("output_dir", root).base) + 1
    for key in free:
        check_key("save_path", key[at:])
    return free


def _check_mirrored_keys(i: ReserveNames) -> None:
    """Raise InvalidRequest for a mirror at which a key would be too long."""
    if not any(map(is_url, i.mirrors)):
        return
    longest = max(
        i.relatives, key=lambda relative: len(relative.encode("utf-8", "surrogatepass")), default=""
    )
    for mirror in filter(is_url, i.mirrors):
        check_key("mirrors", f"{parse('mirrors', mirror).prefix}/{longest}")


def _unmounted(folder: str, mount: str) -> str:
    return f"{folder} cannot be written now: {mounts.gone(mount)}"


def _silent(folders: Sequence[str]) -> DiskError:
    named = folders[0] if len(folders) == 1 else f"One of {', '.join(folders)}"
    return DiskError(
        f"{named} does not answer (a network folder that is gone?); the farm goes on with other folders.",
        folders[0],
    )


def _check_extra(field: str, url: str) -> None:
    """Raise InvalidRequest for a destination whose extra is missing."""
    absent = missing_extra(url.partition("://")[0])
    if absent:
        raise InvalidRequest(absent, field, url, "a destination whose extra is installed")


def _refused(i: ReserveNames, error: Exception) -> events.NamesReserved:
    """Turn whatever a folder raised into the answer to the job that asked."""
    if isinstance(error, FarmError):
        return events.NamesReserved(i.job_id, error=error)
    if isinstance(error, OSError):
        return events.NamesReserved(i.job_id, error=system.disk_error("look at", i.output_dir, error))
    log.error("Names in %s cannot be reserved: %s: %s", i.output_dir, type(error).__name__, error)
    text = f"Names in {i.output_dir} cannot be reserved ({type(error).__name__}: {error})."
    return events.NamesReserved(i.job_id, error=DiskError(text, i.output_dir))


def _in_thread(
    name: str,
    loop: asyncio.AbstractEventLoop,
    answer: Callable[..., Any],
    work: Callable[[], tuple[Any, ...]],
    failed: Callable[[Exception], tuple[Any, ...]],
) -> None:
    """Call `answer` on the loop, exactly once, with what `work` returns in a thread; with what `failed` makes
    of its exception if it raises, or if no thread can be started."""

    def run() -> None:
        try:
            values = work()
        except Exception as error:
            values = failed(error)
        with contextlib.suppress(RuntimeError):  # the farm has stopped in the meantime
            loop.call_soon_threadsafe(answer, *values)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:  # out of threads
        loop.call_soon(answer, *failed(error))
