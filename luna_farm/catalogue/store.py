"""The writer of the catalogue. There is one for each file at a time; it is the only code that changes rows.

Every call is one transaction. A row replaces the one of the same file, and that of the same image of a job.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from luna_farm.catalogue import columns, schema
from luna_farm.catalogue.columns import JOINED, SELECTED
from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.errors import AlreadyRunning, DiskError
from luna_farm.storage.sqlite import TRY_EVERY_S
from luna_farm.storage.state_lock import StateLock

AT_ONCE = 500
"""Rows that are removed in one transaction: a reader or a second writer waits for no longer than that
takes."""
MOST_NUMBERED = 1_000
"""Numbers of texts that are remembered: a negative prompt may have kilobytes."""
_INSERT_IMAGE = (
    f"INSERT INTO images ({', '.join(columns.IMAGES)}) VALUES ({', '.join('?' * len(columns.IMAGES))})"
)
_INSERT_TEXTS = f"INSERT INTO texts (id, {', '.join(columns.TEXTS)}) VALUES (?{', ?' * len(columns.TEXTS)})"
_DAMAGED = ".damaged"
PATIENCE_S = 5.0
"""How long another process may take to set a damaged file aside."""


class Store:
    """Writes one catalogue. `set_aside`: a sentence when the file that was there could not be used, else
    ""."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or make the file; one that is damaged or of another version is set aside. Raises
        sqlite3.Error when the disk does not allow it."""
        self.path = os.fspath(path)
        self.set_aside = ""
        self.identity = identity(self.path)
        """Of the file that is open."""
        try:
            self._connection = schema.writing(path)
        except sqlite3.Error as error:
            if not schema.is_damaged(error):
                raise
            self.set_aside = set_aside(self.path, error, self.identity)
            self._connection = schema.writing(path)
        self.identity = identity(self.path)
        self._connection.row_factory = sqlite3.Row
        self._numbered: dict[tuple[str, str], int] = {}

    def put(self, rows: Sequence[CatalogueRow]) -> None:
        """Write rows, in one transaction. Raises sqlite3.Error, and nothing is written then."""
        with self._transaction():
            for row in rows:
                self._put(row)

    def remove(self, ids: Iterable[int]) -> int:
        """Remove rows; returns how many there were."""
        wanted, removed = list(ids), 0
        for at in range(0, len(wanted), AT_ONCE):
            with self._transaction():
                removed += sum(map(self._remove, wanted[at : at + AT_ONCE]))
        return removed

    def remove_image(self, job_id: str, index: int) -> None:
        """Remove the row of one image of a job, such as a failed one that was dismissed."""
        with self._transaction():
            self._remove_job(job_id, index)

    def prune(self, before_id: int) -> int:
        """Remove rows that are older than an id (milliseconds since 1970); returns how many."""
        removed = 0
        while True:
            ids = self._connection.execute(
                "SELECT id FROM images WHERE id < ? LIMIT ?", (before_id, AT_ONCE)
            ).fetchall()
            if not ids:
                return removed
            removed += self.remove(found[0] for found in ids)

    def holds(self, job_id: str, index: int) -> bool:
        """Whether there is a row of an image of a job."""
        sql = "SELECT 1 FROM images WHERE job_id = ? AND number = ?"
        return self._connection.execute(sql, (job_id, index)).fetchone() is not None

    def of_path(self, path: str) -> CatalogueRow | None:
        """Return the row of a saved file."""
        sql = (
            f"SELECT {SELECTED} FROM images i {JOINED} WHERE i.state < 2 AND i.name = ?"
            " AND i.folder = (SELECT id FROM folders WHERE path = ?)"
        )
        found = self._connection.execute(sql, columns.split(path)[::-1]).fetchone()
        return columns.row_of(found) if found else None

    def below(self, folder: str) -> Iterator[tuple[int, str]]:
        """Yield id and path of every saved file below a folder (with a separator at its end)."""
        sql = (
            "SELECT i.id, f.path || i.name FROM folders f JOIN images i ON i.folder = f.id"
            " WHERE substr(f.path, 1, ?) = ? AND i.state < 2"
        )
        for found in self._connection.execute(sql, (len(folder), folder)):
            yield found[0], found[1]

    def close(self) -> None:
        """Close the file; what is in the write-ahead log goes into it."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._numbered.clear()  # what was numbered is not any more
            with contextlib.suppress(sqlite3.Error):  # the first error says what happened
                self._connection.execute("ROLLBACK")
            raise

    def _put(self, row: CatalogueRow) -> None:
        folder = self._number("folders", "path", columns.split(row.path)[0])
        real = self._number("folders", "path", row.real_folder) if row.real_folder else None
        model = self._number("models", "name", row.model) if row.model else None
        negative = self._number("negatives", "text", row.negative) if row.negative else None
        if row.job_id:
            self._remove_job(row.job_id, row.index)
        if row.state != "failed":
            sql = "SELECT id FROM images WHERE folder = ? AND name = ? AND state < 2"
            for found in self._connection.execute(sql, (folder, columns.split(row.path)[1])).fetchall():
                self._remove(found[0])
        number = self._free(row.id or int(row.saved_at * 1000))
        self._connection.execute(_INSERT_IMAGE, columns.of_images(row, number, folder, real, model))
        texts = columns.of_texts(row, negative)
        if any(texts):
            self._connection.execute(_INSERT_TEXTS, (number, *texts))
        self._connection.execute(
            "INSERT INTO words (rowid, prompt, about) VALUES (?, ?, ?)", (number, *columns.of_words(row))
        )

    def _free(self, number: int) -> int:
        """Return the first free id from `number` on: many files have the same time."""
        while self._connection.execute("SELECT 1 FROM images WHERE id = ?", (number,)).fetchone():
            sql = "SELECT max(id) FROM images WHERE id BETWEEN ? AND ?"
            number = self._connection.execute(sql, (number, number + AT_ONCE)).fetchone()[0] + 1
        return number

    def _number(self, table: str, column: str, text: str) -> int:
        """Return the number of a folder, a model or a negative prompt, a new one if it has none."""
        key = table, text
        if key not in self._numbered:
            if len(self._numbered) >= MOST_NUMBERED:
                self._numbered.clear()
            self._connection.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (text,))
            sql = f"SELECT id FROM {table} WHERE {column} = ?"
            self._numbered[key] = self._connection.execute(sql, (text,)).fetchone()[0]
        return self._numbered[key]

    def _remove_job(self, job_id: str, index: int) -> None:
        sql = "SELECT id FROM images WHERE job_id = ? AND number = ?"
        for found in self._connection.execute(sql, (job_id, index)).fetchall():
            self._remove(found[0])

    def _remove(self, number: int) -> int:
        """Remove a row. The index needs the texts that it was given, for it keeps none."""
        sql = f"SELECT {SELECTED} FROM images i {JOINED} WHERE i.id = ?"
        found = self._connection.execute(sql, (number,)).fetchone()
        if found is None:
            return 0
        words = columns.of_words(columns.row_of(found))
        self._connection.execute(
            "INSERT INTO words (words, rowid, prompt, about) VALUES ('delete', ?, ?, ?)", (number, *words)
        )
        self._connection.execute("DELETE FROM texts WHERE id = ?", (number,))
        self._connection.execute("DELETE FROM images WHERE id = ?", (number,))
        return 1


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another one of its name, None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def set_aside(path: str, error: Exception, damaged: tuple[int, int] | None) -> str:
    """Move a file that cannot be used, the one of the identity `damaged`, out of the way, and return a
    sentence about it; "" if another process was faster: the file of that name is a new one by now.

    Raises OSError, and sqlite3.OperationalError while another process is at it.
    """
    kept = path + _DAMAGED
    with _alone(path):
        if identity(path) != damaged:
            return ""
        for end in ("", "-wal", "-shm"):
            Path(kept + end).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.replace(path + end, kept + end)
        # A new file before the lock is given back: nothing of the old one is left to be found.
        schema.writing(path).close()
    return (
        f"The catalogue {path} cannot be used ({error}) and was set aside as {kept}; a new one is made."
        " Nothing is lost: `luna-farm catalogue rebuild DIR` reads the rows from the files again."
    )


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keep other processes from setting the same file aside."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            lock = StateLock.acquire(f"{path}.lock")
            break
        except AlreadyRunning:
            if time.monotonic() >= until:
                raise sqlite3.OperationalError("another process sets it aside") from None
        except DiskError as error:
            raise OSError(error.errno, str(error)) from error
        time.sleep(TRY_EVERY_S)
    try:
        yield
    finally:
        lock.release()
