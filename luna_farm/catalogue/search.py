"""Searching the catalogue. It only reads, works while a farm writes, and may be called from any thread.

A page of results is at most `limit` rows, the newest first; `before` is the id of the last row of the page
before.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luna_farm.catalogue import words
from luna_farm.catalogue.columns import JOINED, SELECTED, phash_column, row_of, seed_column
from luna_farm.catalogue.conditions import conditions
from luna_farm.catalogue.query import Query as Query
from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.errors import CatalogueUnavailable, InvalidRequest

if TYPE_CHECKING:
    import sqlite3  # loaded by the first search: an idle farm does without its megabyte

MAX_LIMIT = 10_000
SIMILAR_BITS = 10
"""Bits of 64 by which the perceptual hashes of two images may differ that count as near duplicates."""
_FURTHEST_S = 9e15
_SINGLE_MODELS = 30
"""So many models are looked up one by one; more are filtered."""


class Catalogue:
    """The catalogue in a file. Without the file, and before its first row, every search is empty."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = threading.Lock()
        self._open: tuple[tuple[int, int], sqlite3.Connection] | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return os.path.exists(self.path)

    def search(
        self,
        words: str = "",
        *,
        model: str = "",
        seed: int | None = None,
        since: float | None = None,
        until: float | None = None,
        job: str = "",
        score: str = "",
        similar: str = "",
        failed: bool = False,
        limit: int = 50,
        before: int | None = None,
    ) -> list[CatalogueRow]:
        """Return the newest rows that match everything that is given (see Query), with `similar` the most
        alike first. Raises InvalidRequest for a condition that cannot be read, CatalogueUnavailable for a
        damaged file."""
        query = Query(
            words=words,
            model=model,
            seed=seed,
            since=since,
            until=until,
            job=job,
            score=score,
            similar=similar,
            failed=failed,
        )
        return self.find(query, limit=limit, before=before)

    def find(self, query: Query, *, limit: int = 50, before: int | None = None) -> list[CatalogueRow]:
        """As `search`, for a query that is made already."""
        with self._reading() as connection:
            plan = _plan(connection, query, before) if connection else None
            if connection is None or plan is None:
                return []
            ids = plan.ids(connection, min(limit, MAX_LIMIT))
            return _rows(connection, ids)

    def ids(self, query: Query, *, limit: int) -> list[int]:
        """Return the ids of the rows that match, in the order of `find`."""
        with self._reading() as connection:
            plan = _plan(connection, query, None) if connection else None
            return plan.ids(connection, limit) if connection and plan else []

    def rows(self, ids: list[int]) -> list[CatalogueRow]:
        """Return the rows with these ids, in their order; those that are not there are left out."""
        with self._reading() as connection:
            return _rows(connection, ids) if connection else []

    def count(self, query: Query) -> int:
        """Return how many rows match."""
        with self._reading() as connection:
            plan = _plan(connection, query, None) if connection else None
            return plan.count(connection) if connection and plan else 0

    def get(self, id: int) -> CatalogueRow | None:  # noqa: A002
        """Return the row with this id."""
        with self._reading() as connection:
            found = _rows(connection, [id]) if connection else []
            return found[0] if found else None

    def models(self) -> list[str]:
        """Return the names of all models, in alphabetical order."""
        with self._reading() as connection:
            sql = "SELECT name FROM models WHERE id IN (SELECT DISTINCT model FROM images) ORDER BY name"
            return [found[0] for found in connection.execute(sql)] if connection else []

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """The connection, for one thread at a time; None where there is no file yet."""
        import sqlite3

        with self._lock:
            try:
                yield self._connection()
            except InvalidRequest:
                raise
            except (sqlite3.Error, ValueError, LookupError) as error:
                self._close()
                raise CatalogueUnavailable(
                    f"The catalogue {self.path} cannot be read: {error}. The farm makes a new one when it"
                    " starts; `luna-farm catalogue rebuild DIR` does it now.",
                    self.path,
                ) from error

    def _connection(self) -> sqlite3.Connection | None:
        import sqlite3

        from luna_farm.catalogue import schema

        try:
            found = os.stat(self.path)
        except OSError:
            self._close()
            return None
        key = found.st_dev, found.st_ino
        if self._open is not None and self._open[0] != key:  # it was made again
            self._close()
        if self._open is None:
            connection = schema.reading(self.path)
            if connection is None:
                return None
            connection.row_factory = sqlite3.Row
            self._open = key, connection
        return self._open[1]


@dataclass(slots=True)
class _Plan:
    """How a query is answered: tables, conditions on them and their values, in order."""

    tables: str
    where: list[str]
    values: list[Any]
    id_column: str = "i.id"
    each_model: tuple[int, ...] = ()
    similar: int | None = None

    def ids(self, connection: sqlite3.Connection, limit: int) -> list[int]:
        if self.similar is not None:
            return [-negative for _, negative in _alike(connection, self)[:limit]]
        sql = f"SELECT {self.id_column} FROM {self.tables} WHERE {' AND '.join(self.where)}"
        ordered = f"ORDER BY {self.id_column} DESC LIMIT ?"
        if not self.each_model:
            return _numbers(connection, f"{sql} {ordered}", [*self.values, limit])
        # The index on models has the ids of each model in order; sorting those of several would read all of
        # them.
        found = [
            number
            for model in self.each_model
            for number in _numbers(
                connection, f"{sql} AND i.model = ? {ordered}", [*self.values, model, limit]
            )
        ]
        return sorted(found, reverse=True)[:limit]

    def count(self, connection: sqlite3.Connection) -> int:
        if self.similar is not None:
            return len(_alike(connection, self))
        where = list(self.where)
        values = list(self.values)
        if self.each_model:
            where.append(f"i.model IN ({', '.join('?' * len(self.each_model))})")
            values += self.each_model
        sql = f"SELECT count(*) FROM {self.tables} WHERE {' AND '.join(where)}"
        return int(connection.execute(sql, values).fetchone()[0])


def _plan(connection: sqlite3.Connection, query: Query, before: int | None) -> _Plan | None:
    """Return how to answer a query, None where nothing can match."""
    typed = words.parse(query.words)
    if typed.impossible:
        return None
    plan = _Plan("images i", ["i.state >= 2" if query.failed else "i.state < 2"], [])
    few = query.seed is not None or bool(query.job or query.similar)
    if typed.match and not few:
        plan.tables, plan.id_column = "words CROSS JOIN images i ON i.id = words.rowid", "words.rowid"
        match = f"({typed.match}) NOT ({typed.without})" if typed.without else typed.match
        _add(plan, "words MATCH ?", match)
    elif typed.match:
        _add(plan, "EXISTS (SELECT 1 FROM words WHERE words MATCH ? AND words.rowid = i.id)", typed.match)
    if typed.without and not (typed.match and not few):
        _add(plan, "i.id NOT IN (SELECT rowid FROM words WHERE words MATCH ?)", typed.without)
    if before is not None:
        _add(plan, f"{plan.id_column} < ?", before)
    if query.since is not None:
        _add(plan, f"{plan.id_column} >= ?", _id_at(query.since))
    if query.until is not None:
        _add(plan, f"{plan.id_column} <= ?", _id_at(query.until))
    if query.seed is not None:
        _add(plan, "i.seed = ?", seed_column(query.seed))
    if query.job:
        _add(plan, "i.job_id = ?", query.job)
    for condition in conditions(query.score):
        _add(plan, f"i.{condition.column} {condition.operator} ?", condition.value)
    if query.similar:
        plan.similar = phash_column(query.similar)
        plan.where.append("i.phash IS NOT NULL")
    if query.model and not _add_models(connection, plan, query.model, few or bool(typed.match)):
        return None
    return plan


def _add_models(connection: sqlite3.Connection, plan: _Plan, name: str, filtered: bool) -> bool:
    """Add the condition on the model; returns whether any has such a name."""
    sql = "SELECT id FROM models WHERE instr(lower(name), ?)"
    models = _numbers(connection, sql, [name.lower()])
    if filtered or len(models) > _SINGLE_MODELS:
        plan.where.append(f"i.model IN ({', '.join(map(str, models))})")
    else:
        plan.each_model = tuple(models)
    return bool(models)


def _id_at(seconds: float) -> int:
    """Return the id of an image that was saved then, within SQLite's 64 bits."""
    return int(max(-_FURTHEST_S, min(seconds, _FURTHEST_S)) * 1000)


def _add(plan: _Plan, condition: str, value: Any) -> None:
    plan.where.append(condition)
    plan.values.append(value)


def _numbers(connection: sqlite3.Connection, sql: str, values: list[Any]) -> list[int]:
    return [found[0] for found in connection.execute(sql, values)]


def _rows(connection: sqlite3.Connection, ids: list[int]) -> list[CatalogueRow]:
    """Return the rows of ids, in their order."""
    rows: dict[int, CatalogueRow] = {}
    for at in range(0, len(ids), 500):
        listed = ", ".join(map(str, ids[at : at + 500]))
        for found in connection.execute(f"SELECT {SELECTED} FROM images i {JOINED} WHERE i.id IN ({listed})"):
            rows[found["id"]] = row_of(found)
    return [rows[number] for number in ids if number in rows]


def _alike(connection: sqlite3.Connection, plan: _Plan) -> list[tuple[int, int]]:
    """Return (distance, -id) of the near duplicates of `plan.similar`, the most alike first.

    Of two hashes that differ in at most 10 bits, one of the four parts of 16 bits differs in at most two:
    so only rows are read that have such a part, by its index.
    """
    from luna_farm.catalogue import schema

    wanted = plan.similar
    assert wanted is not None, "called for a query that has one"
    where = " AND ".join(plan.where)
    candidates: dict[int, int] = {}
    for part, expression in enumerate(schema.PHASH_PARTS):
        near = ", ".join(map(str, _near((wanted >> (16 * part)) & 0xFFFF)))
        sql = f"SELECT i.id, i.phash FROM {plan.tables} WHERE {expression} IN ({near}) AND {where}"
        candidates.update(connection.execute(sql, plan.values).fetchall())
    distances = (((phash ^ wanted) & (2**64 - 1), number) for number, phash in candidates.items())
    counted = ((bits.bit_count(), -number) for bits, number in distances)
    return sorted(pair for pair in counted if pair[0] <= SIMILAR_BITS)


def _near(value: int) -> list[int]:
    """Return all numbers of 16 bits that differ from one in at most two."""
    flips = [0, *(1 << bit for bit in range(16))]
    return sorted({value ^ one ^ other for one in flips for other in flips})
