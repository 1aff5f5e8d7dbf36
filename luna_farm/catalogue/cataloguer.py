"""The cataloguer: the process that writes the catalogue of a farm, so that neither the supervisor nor a
worker waits for SQLite.

It works through messages in order and confirms each; what is not confirmed the supervisor sends again. When
the pipe ends the supervisor is dead: what has arrived is written, then the process ends. While nothing
arrives it reads files again after a damaged catalogue was set aside, and then ends.
"""

from __future__ import annotations

import os
import select
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from luna_farm.catalogue import facts, files, images, rebuild, rows, schema
from luna_farm.catalogue.rows import CatalogueRow, kept
from luna_farm.catalogue.store import Store, set_aside
from luna_farm.core import frames
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.locations import is_url
from luna_farm.testing.faults import crash_point

READ_BYTES = 256 * 1024
PAUSE_S = 1.0
"""Between two tries while the disk is full or another program writes."""
IDLE_S = 60.0
"""Without anything to do for so long it ends, and gives its memory back; the next row starts another one."""
PRUNE_EVERY_S = 6 * 3600.0
DAY_MS = 86_400_000


def serve(pipe: socket.socket, path: str, names: Sequence[str], days: int, roots: Sequence[str]) -> None:
    """Serve until the supervisor says stop or its end of the pipe closes. `path`: of the catalogue.
    `names`: of the setting `catalogue_fields`. `days`: how long rows are kept, 0 for ever. `roots`: folders
    that the farm has written into, which are read again after a damaged catalogue was set aside."""
    with pipe:
        Cataloguer(pipe, path, names, days, roots).run()


class Cataloguer:
    """One process that writes one catalogue."""

    def __init__(
        self, pipe: socket.socket, path: str, names: Sequence[str], days: int, roots: Sequence[str]
    ) -> None:
        self._pipe = pipe
        self._path = path
        self._names = tuple(names)
        self._days = days
        self._roots = tuple(roots)
        self._frames = frames.FrameBuffer()
        self._store: Store | None = None
        self._problem = ""
        self._reading_again: Iterator[list[CatalogueRow]] | None = None
        self._prune_at = 0.0

    def run(self) -> None:
        """Work through what comes; in between, through what can wait."""
        try:
            while message := self._next():
                if message["t"] == "stop":
                    return
                while not self._tried(message):
                    if self._ended(PAUSE_S):
                        return
                self._send({"t": "done", "id": message["id"]})
        finally:
            self._close()

    def _next(self) -> dict[str, Any] | None:
        while True:
            message = self._frames.next()
            if message is not None:
                return message
            busy = self._reading_again is not None
            if not select.select([self._pipe], [], [], 0.0 if busy else IDLE_S)[0]:
                if not busy:
                    return None
                self._read_some()
                continue
            try:
                data = self._pipe.recv(READ_BYTES)
            except ConnectionError:
                return None
            if not data:
                return None
            self._frames.feed(data)

    def _ended(self, seconds: float) -> bool:
        """Wait; returns whether the supervisor is gone."""
        if not select.select([self._pipe], [], [], seconds)[0]:
            return False
        try:
            gone = not self._pipe.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True
        if not gone:
            time.sleep(seconds)
        return gone

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._pipe.sendall(frames.encode(message))
        except OSError:
            return  # the next read finds the pipe closed

    def _tried(self, message: dict[str, Any]) -> bool:
        """Carry out a message; returns whether it is done with, else it is tried again."""
        try:
            store = self._opened()
            found = list(self._rows(store, message))
            if found:
                self._put(store, found)
                crash_point("catalogue.written")
            if message["t"] == "remove":
                store.remove_image(message["job_id"], message["index"])
            if time.monotonic() >= self._prune_at:
                self._prune(store)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return False
        except Exception as error:  # a row that makes no sense must cost itself, not the catalogue
            self._send({"t": "note", "text": f"Rows of the catalogue are left out: {error!r}."})
        self._tell_problem("")
        return True

    def _put(self, store: Store, found: list[CatalogueRow]) -> None:
        """Put rows in, together if that is possible: one that makes no sense must not cost the others."""
        try:
            store.put(found)
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:
            if len(found) == 1:
                self._send({"t": "note", "text": f"{found[0].path} is left out of the catalogue: {error!r}."})
                return
            for row in found:
                self._put(store, [row])

    def _opened(self) -> Store:
        """The store, opened when it is first needed, and again after the file was removed."""
        if self._store is not None and not os.path.exists(self._path):
            self._close()
        if self._store is None:
            self._store = Store(self._path)
            if self._store.set_aside:
                self._read_again(self._store.set_aside)
        return self._store

    def _failed(self, error: Exception) -> None:
        """Set the file aside if it is damaged; else say what is wrong, for it may pass."""
        if isinstance(error, sqlite3.Error) and schema.is_damaged(error):
            damaged = self._store.identity if self._store is not None else None
            self._close()
            try:
                told = set_aside(self._path, error, damaged)
            except (OSError, sqlite3.Error) as refused:
                error = refused
            else:
                if told:
                    self._read_again(told)
                return
        self._tell_problem(f"The catalogue {self._path} cannot be written now: {error}.")

    def _close(self) -> None:
        store, self._store = self._store, None
        self._reading_again = None
        if store is not None:
            store.close()

    def _read_again(self, told: str) -> None:
        """Begin to read all files again, a few at a time."""
        self._send({"t": "note", "text": told})
        self._reading_again = rebuild.rows_below(self._roots, self._opened)

    def _rows(self, store: Store, message: dict[str, Any]) -> Iterator[CatalogueRow]:
        kind = message["t"]
        if kind == "rows":
            for packed, path in message["rows"]:
                row = images.unpack(packed)
                yield replace(row, path=path) if path else row
        elif kind == "failed":
            task, options = ImageTask.from_map(message["task"]), SaveOptions.from_map(message["options"])
            yield images.failed(task, options, message["error"], at=time.time(), names=self._names)
        elif kind == "check":
            for known in message["rows"]:
                if not store.holds(known["job_id"], known["index"]):
                    yield from self._missing(known)

    def _missing(self, known: dict[str, Any]) -> Iterator[CatalogueRow]:
        """Yield the row of an image that a predecessor saved and did not put into the catalogue."""
        submitted_at = facts.moment(known["timestamp"])
        row = replace(rows.from_map(known), submitted_at=submitted_at, saved_at=submitted_at or time.time())
        if not is_url(row.path) and row.state != "failed":
            found = files.row_of(row.path)
            if found is not None:
                row = files.merged(found, row)
            elif files.is_gone(row.path):
                return
        if self._days and row.saved_at * 1000 < self._oldest():
            return
        yield kept(row, self._names)

    def _read_some(self) -> None:
        """Read some files again."""
        assert self._reading_again is not None, "called while there are some"
        try:
            found = next(self._reading_again, None)
            if found is None:
                self._reading_again = None
                self._send(
                    {"t": "note", "text": f"The catalogue {self._path} was read from the files again."}
                )
            else:
                self._opened().put([kept(row, self._names) for row in found])
        except (sqlite3.Error, OSError) as error:
            self._reading_again = None
            self._failed(error)

    def _prune(self, store: Store) -> None:
        self._prune_at = time.monotonic() + PRUNE_EVERY_S
        if self._days:
            store.prune(self._oldest())

    def _oldest(self) -> int:
        return int(time.time() * 1000) - self._days * DAY_MS

    def _tell_problem(self, text: str) -> None:
        if text != self._problem:
            self._problem = text
            self._send({"t": "problem", "text": text})
