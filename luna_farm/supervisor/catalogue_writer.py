"""Sends the rows of finished images to the process that writes the catalogue, a batch at each tick.

The catalogue is derived data: nothing waits for it, and what it refuses costs a sentence in the status.
Batches that the process has not confirmed are sent again when it has ended; what is lost with the
supervisor is found missing at the next start, from the reports.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from luna_farm.core.counted import counted
from luna_farm.core.frames import FRAME_LIMIT
from luna_farm.core.instructions import Catalogue, CatalogueFailed, Uncatalogue
from luna_farm.core.messages import SaveOptions
from luna_farm.engine.child import Child
from luna_farm.worker import spawned

log = logging.getLogger("luna_farm.catalogue")

BATCH = 256
"""Rows of one message."""
BATCH_BYTES = 4 * 2**20
MOST_WAITING, MOST_WAITING_BYTES = 10_000, 64 * 2**20
"""Rows that wait for a catalogue that cannot be written; older ones are left to the next start."""
MOST_UNCONFIRMED = 8
"""Messages on their way."""
MOST_STARTS = 5
"""Starts in a row without one confirmed message, after which the catalogue is given up until the next
start."""
START_AGAIN_S = 1.0
LAST_WORDS_S = 5.0
"""How long the process may take to write what it has when the farm stops."""


Change = Catalogue | CatalogueFailed | Uncatalogue


class CatalogueWriter:
    """The way into the catalogue at `path`. `names` and `days`: the settings `catalogue_fields` and
    `catalogue_days`. `roots` gives the folders that the farm has written into; `note` takes sentences for
    people."""

    def __init__(
        self,
        path: str,
        names: Sequence[str],
        days: int,
        roots: Callable[[], Sequence[str]],
        note: Callable[[str], None],
    ) -> None:
        self._path = path
        self._names = tuple(names)
        self._days = days
        self._roots = roots
        self._note = note
        self._cataloguer: Child | None = None
        self._waiting: deque[Change] = deque()
        self._waiting_bytes = 0
        self._checks: Iterator[dict[str, Any]] = iter(())
        self._unconfirmed: dict[int, dict[str, Any]] = {}
        self._last = 0
        self._starts = 0
        self._start_at = 0.0
        self._left_out = 0
        self._closing = False
        self._stopped_by_problem = ""
        self._write_problem = ""

    @property
    def problem(self) -> str:
        """What a person should know, "" for nothing."""
        left_out = (
            f" Not in the catalogue: {counted(self._left_out, 'image')};"
            " `luna-farm catalogue rebuild DIR` adds what is missing."
            if self._left_out
            else ""
        )
        return (self._stopped_by_problem or self._write_problem) + left_out

    def add(self, i: Change) -> None:
        """Take what became of an image; it is sent at the next tick, in order."""
        self._waiting.append(i)
        self._waiting_bytes += _size(i)
        while len(self._waiting) > MOST_WAITING or self._waiting_bytes > MOST_WAITING_BYTES:
            self._take()
            self._left_out += 1

    def _take(self) -> Change:
        i = self._waiting.popleft()
        self._waiting_bytes -= _size(i)
        return i

    def check(self, rows: Iterator[dict[str, Any]]) -> None:
        """Have rows added that are missing: of images that a predecessor finished."""
        self._checks = rows

    def flush(self) -> None:
        """Send what has come since the last tick."""
        if self._closing or self._stopped_by_problem:
            return
        self._pack()
        if self._unconfirmed and self._cataloguer is None:
            if self._starts >= MOST_STARTS:
                self._give_up()
                return
            self._start()
        if self._cataloguer is not None:
            self._cataloguer.flush()

    def _pack(self) -> None:
        while len(self._unconfirmed) < MOST_UNCONFIRMED:
            if rows := list(self._batch()):
                self._send({"t": "rows", "rows": rows})
            elif self._waiting:
                self._send_change(self._take())
            elif checks := list(islice(self._checks, BATCH)):
                self._send({"t": "check", "rows": checks})
            else:
                return

    def _batch(self) -> Iterator[tuple[bytes, str]]:
        size = 0
        for _ in range(min(BATCH, len(self._waiting))):
            first = self._waiting[0]
            if not isinstance(first, Catalogue) or size > BATCH_BYTES:
                return
            size += len(first.row)
            self._take()
            yield first.row, first.path

    def _send_change(self, i: Change) -> None:
        """Send a change that is no row of a worker."""
        if isinstance(i, CatalogueFailed):
            options = i.options
            if _documents(options) > FRAME_LIMIT // 4:  # as UTF-8, each character may have four bytes
                options = replace(options, prompt="", extra_pnginfo="", metadata="", custom_metadata="")
            task = i.task.to_map()
            self._send({"t": "failed", "task": task, "options": options.to_map(), "error": i.error})
        elif isinstance(i, Uncatalogue):
            self._send({"t": "remove", "job_id": i.job_id, "index": i.index})

    def _send(self, message: dict[str, Any]) -> None:
        self._last += 1
        message = {**message, "id": self._last}
        self._unconfirmed[self._last] = message
        if self._cataloguer is not None:
            self._cataloguer.send(message)

    def _received(self, message: dict[str, Any]) -> None:
        """Take a message of the process."""
        if message["t"] == "done":
            self._unconfirmed.pop(message["id"], None)
            self._starts = 0
        elif message["t"] == "note":
            self._note(message["text"])
        else:
            self._write_problem = message["text"]
            if message["text"]:
                log.warning("%s", message["text"])

    def _give_up(self) -> None:
        self._stopped_by_problem = (
            f"The process that writes the catalogue ended {self._starts} times in a row; rows are added again"
            " after the next start."
        )
        log.error("%s", self._stopped_by_problem)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._unconfirmed.clear()
        self._checks = iter(())

    def _start(self) -> None:
        self._starts += 1
        self._cataloguer = Child(
            "cataloguer",
            spawned.start_cataloguer,
            (self._path, self._names, self._days, tuple(self._roots())),
            self._received,
            self._ended,
            start_at=self._start_at,
        )
        self._start_at = time.monotonic() + START_AGAIN_S
        for message in self._unconfirmed.values():
            self._cataloguer.send(message)

    def _ended(self, why: str) -> None:
        """The cataloguer was collected: what it had not confirmed is sent to the next one. It ends by itself
        when there is nothing to do."""
        self._cataloguer = None
        if self._unconfirmed and not self._closing:
            log.warning("The cataloguer has ended (%s); it is started again.", why)

    async def close(self, patience_s: float = LAST_WORDS_S) -> None:
        """Have the process write what it has, and wait for its end. What it has not written by then is
        added after the next start."""
        deadline = time.monotonic() + patience_s
        while not self._stopped_by_problem and time.monotonic() < deadline:
            self.flush()
            if not self._unconfirmed:
                break
            await asyncio.sleep(0.002)
        self._closing = True
        cataloguer = self._cataloguer
        if cataloguer is None:
            return
        cataloguer.retire("the farm stops")
        cataloguer.flush()
        waits = asyncio.ensure_future(cataloguer.wait())
        await asyncio.wait({waits}, timeout=max(0.0, deadline - time.monotonic()))
        cataloguer.kill("the farm stops")
        await waits


def _size(i: Change) -> int:
    """Return about how many bytes a change holds in memory."""
    if isinstance(i, Catalogue):
        return len(i.row)
    return _documents(i.options) if isinstance(i, CatalogueFailed) else 0


def _documents(options: SaveOptions) -> int:
    return sum(map(len, (options.prompt, options.extra_pnginfo, options.metadata, options.custom_metadata)))
