"""Asks output folders for free names and free space, and never waits for one: a network folder may not
answer.

Folders on a disk of this machine are asked at once (microseconds); others, and any folder for the first time,
in a thread of their own that may hang for as long as it likes. This module must never let the event loop
touch a folder that is not known to be local.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from luna_farm import system
from luna_farm.core import events
from luna_farm.core.filenames import collision_key
from luna_farm.core.instructions import ReserveNames
from luna_farm.errors import DiskError, FarmBusy, FarmError
from luna_farm.storage import names
from luna_farm.storage.allowed import Allowed

ANSWER_S = 5.0
"""How long a folder may take to tell which names are free."""
MAX_ASKING = 32
"""Threads that wait for folders at a time; beyond them callers are told busy."""
SPACE_FRESH_S = 5.0
MAX_KNOWN = 1024


class Folders:
    """The output folders of one farm. `taken` holds the names that are reserved; `handle_event` takes the
    answers; `allowed` says below which folders files may be saved."""

    def __init__(
        self, taken: set[str], handle_event: Callable[[events.Event], None], allowed: Allowed | None = None
    ) -> None:
        self._allowed = allowed or Allowed(())
        self._taken = taken
        self._handle_event = handle_event
        self._local: set[str] = set()
        self._asking: Counter[str] = Counter()
        self._space: dict[str, tuple[int, int]] = {}
        self._space_at: dict[str, float] = {}

    def reserve(self, i: ReserveNames) -> None:
        """Find free names; the answer is an event, at once or from a thread."""
        if i.output_dir in self._local and i.output_dir not in self._asking:
            self._handle_event(self._reserved(i))
            return
        if self._asking.total() >= MAX_ASKING:
            reason = (
                f"{MAX_ASKING} folders are being asked for free names and have not answered yet; try again."
            )
            self._handle_event(
                events.NamesRefused(i.job_id, FarmBusy(f"The farm is busy: {reason}", MAX_ASKING))
            )
            return
        loop = asyncio.get_running_loop()
        answered = False

        def answer(event: events.Event, local: bool) -> None:
            nonlocal answered
            self._asking[i.output_dir] -= 1
            if not self._asking[i.output_dir]:
                del self._asking[i.output_dir]
            if local:
                if len(self._local) >= MAX_KNOWN:
                    self._local.clear()
                self._local.add(i.output_dir)
            if not answered:
                answered = True
                late.cancel()
                self._handle_event(event)
            elif isinstance(event, events.NamesReserved):
                self._taken.difference_update(map(collision_key, event.paths))

        def give_up() -> None:
            nonlocal answered
            answered = True
            self._handle_event(events.NamesRefused(i.job_id, _silent(i.output_dir)))

        def ask() -> None:
            event = self._reserved(i)
            local = system.on_local_disk(os.path.realpath(i.output_dir))
            _call_back(loop, answer, event, local)

        self._asking[i.output_dir] += 1
        late = loop.call_later(ANSWER_S, give_up)
        threading.Thread(target=ask, name="folder", daemon=True).start()

    def _reserved(self, i: ReserveNames) -> events.Event:
        try:
            root, rest = self._allowed.place(i.output_dir)
            relatives = [rest + relative for relative in i.relatives]
            reserved = names.reserve_all(
                root, relatives, self._taken, numbers=i.numbers, sidecars=i.sidecar != "never"
            )
        except FarmError as error:
            return events.NamesRefused(i.job_id, error)
        self._taken.update(map(collision_key, reserved))
        return events.NamesReserved(i.job_id, tuple(reserved), i.warnings, root)

    def space(self, path: str, now: float) -> tuple[int, int]:
        """Return (free, total) bytes of the disk of a folder as last seen, (0, 0) until it has answered
        once."""
        if now - self._space_at.get(path, -SPACE_FRESH_S) >= SPACE_FRESH_S:
            if len(self._space_at) >= MAX_KNOWN:
                self._space_at.clear()
                self._space.clear()
            self._space_at[path] = float("inf")  # nobody asks again while this question is open
            loop = asyncio.get_running_loop()

            def answer(found: tuple[int, int]) -> None:
                self._space[path], self._space_at[path] = found, now

            def ask() -> None:
                try:
                    found = system.disk_bytes(path)
                except DiskError:
                    found = (0, 0)
                _call_back(loop, answer, found)

            threading.Thread(target=ask, name="space", daemon=True).start()
        return self._space.get(path, (0, 0))


def _silent(folder: str) -> DiskError:
    return DiskError(
        f"{folder} does not answer (a network folder that is gone?); the farm goes on with other folders.",
        folder,
    )


def _call_back(loop: asyncio.AbstractEventLoop, answer: Callable[..., Any], *values: Any) -> None:
    try:
        loop.call_soon_threadsafe(answer, *values)
    except RuntimeError:  # the farm has stopped in the meantime
        return
