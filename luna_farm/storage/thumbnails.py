"""The thumbnails of saved images, in one SQLite file of the state folder, found by job and number.

Derived data: a file that is lost or damaged costs only that pages show less. Several workers write it,
each some thumbnails at a time; the oldest give way when the file reaches its bound. It must never make a save
fail.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3  # loaded with the first thumbnail: an idle farm does without its megabyte

NAME = "thumbnails.sqlite"
"""Of the file in the state folder."""
PAGE_BYTES = 8192
"""A thumbnail fills most of a page: 5 to 8 KB."""
BUSY_S = 5.0
"""How long another worker that writes is waited for."""
GIVE_WAY = 16
"""This part of the thumbnails is removed at the bound, so that it is not reached again at once."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS thumbnails (
    id INTEGER PRIMARY KEY, job_id TEXT NOT NULL, number INTEGER NOT NULL, jpeg BLOB NOT NULL,
    UNIQUE (job_id, number))
"""

Thumbnail = tuple[str, int, bytes]
"""Job id, number of the image, JPEG."""


class Thumbnails:
    """The thumbnails in the file `path`, of at most about `max_bytes` bytes. `put` is for one thread."""

    def __init__(self, path: str | os.PathLike[str], max_bytes: int) -> None:
        self.path = os.fspath(path)
        self.max_bytes = max_bytes
        self._writing: sqlite3.Connection | None = None

    def put(self, thumbnails: Sequence[Thumbnail]) -> None:
        """Keep some thumbnails; one of the same image is replaced. A damaged file is begun anew. Raises
        sqlite3.Error and OSError."""
        import sqlite3

        try:
            self._put(thumbnails)
        except sqlite3.DatabaseError as error:
            self.close()
            if isinstance(error, sqlite3.OperationalError):  # busy, or the disk is full: it may pass
                raise
            for suffix in ("-wal", "-shm", ""):
                Path(self.path + suffix).unlink(missing_ok=True)
            self._put(thumbnails)

    def _put(self, thumbnails: Sequence[Thumbnail]) -> None:
        if self._writing is not None and not os.path.exists(self.path):  # another worker begins it anew
            self.close()
        if self._writing is None:
            self._writing = self._opened()
        with self._writing as connection:
            sql = "INSERT OR REPLACE INTO thumbnails (job_id, number, jpeg) VALUES (?, ?, ?)"
            connection.executemany(sql, thumbnails)
            while self._used(connection) > self.max_bytes and self._oldest_removed(connection):
                pass

    def _opened(self) -> sqlite3.Connection:
        import sqlite3

        from luna_farm.storage.sqlite import write_ahead

        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(self.path, timeout=BUSY_S, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            write_ahead(connection, BUSY_S)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 512")
            connection.execute("PRAGMA cache_size = -512")
            connection.execute(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _used(self, connection: sqlite3.Connection) -> int:
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def _oldest_removed(self, connection: sqlite3.Connection) -> bool:
        first, last = connection.execute("SELECT min(id), max(id) FROM thumbnails").fetchone()
        if first is None:
            return False
        last_removed = first + (last - first) // GIVE_WAY
        connection.execute("DELETE FROM thumbnails WHERE id <= ?", (last_removed,))
        return True

    def get(self, keys: Iterable[tuple[str, int]]) -> Iterator[Thumbnail]:
        """Yield the thumbnails that are kept of these images (job id, number), from any thread. A file that
        is not there or cannot be read has none."""
        import sqlite3

        if not os.path.exists(self.path):
            return
        address = f"{Path(self.path).absolute().as_uri()}?mode=ro"
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            for job_id, number in keys:
                sql = "SELECT jpeg FROM thumbnails WHERE job_id = ? AND number = ?"
                found = db.execute(sql, (job_id, number)).fetchone()
                if found is not None:
                    yield job_id, number, found[0]

    def close(self) -> None:
        """Close the file; safe to call twice."""
        connection, self._writing = self._writing, None
        if connection is not None:
            connection.close()
