"""Answers `find`: searches the catalogue in a thread, since a search may wait for a disk.

It only reads. SQLite lets go of the interpreter while it searches, so that the loop of the supervisor goes
on.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from luna_farm.catalogue.query import Query
from luna_farm.core import fields
from luna_farm.core.protocol import refusal
from luna_farm.errors import CatalogueUnavailable, FarmBusy, FarmError, InvalidRequest

if TYPE_CHECKING:
    from luna_farm.catalogue.search import Catalogue

log = logging.getLogger("luna_farm.find")

MAX_ROWS = 1000
"""Rows of one answer, at most."""
MAX_CHARACTERS = 2 * 2**20
"""Characters of the prompts of one answer, so that it fits into a frame."""
MAX_PENDING = 64
_LATEST_S = 32_503_680_000.0
"""The year 3000."""


class Finder:
    """Searches the catalogue at `path`; None: this farm keeps none."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="find")
        self._pending: set[asyncio.Task[None]] = set()
        self._catalogue: Catalogue | None = None

    def ask(self, message: Mapping[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
        """Search for what a message of a client asks for, and call `answer` later. Raises InvalidRequest,
        CatalogueUnavailable, FarmBusy."""
        if self._path is None:
            raise CatalogueUnavailable("This farm keeps no catalogue (setting catalogue).")
        if len(self._pending) >= MAX_PENDING:
            raise FarmBusy(f"{MAX_PENDING} searches wait already")
        query, limit, before = question(message)
        task = asyncio.get_running_loop().create_task(self._answer(query, limit, before, answer))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _answer(
        self, query: Query, limit: int, before: int | None, answer: Callable[[dict[str, Any]], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, self._find, query, limit, before)
        except FarmError as error:
            found = refusal(error)
        except Exception as error:  # whatever it is, the client gets an answer
            log.exception("A search of the catalogue failed.")
            text = f"The search failed ({type(error).__name__}: {error}); the farm's log says where."
            found = refusal(CatalogueUnavailable(text))
        answer(found)

    def _find(self, query: Query, limit: int, before: int | None) -> dict[str, Any]:
        if self._catalogue is None:
            from luna_farm.catalogue.search import Catalogue  # SQLite, which few farms are asked for

            assert self._path is not None, "asked for before"
            self._catalogue = Catalogue(self._path)
        rows = self._catalogue.find(query, limit=limit, before=before)
        kept, size = 0, 0
        while kept < len(rows) and (not kept or size <= MAX_CHARACTERS):
            row = rows[kept]
            size += len(row.prompt) + len(row.negative) + len(row.custom) + 1000
            kept += 1
        # Near duplicates come in another order than pages.
        more = not query.similar and (len(rows) == limit or kept < len(rows))
        return {"rows": [row.to_map() for row in rows[:kept]], "more": more}

    def close(self) -> None:
        """Search nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._catalogue is not None:
            self._catalogue.close()


def question(message: Mapping[str, Any]) -> tuple[Query, int, int | None]:
    """Read the fields of a `find`: what to look for, how many rows, and the id before which they are. Raises
    InvalidRequest."""
    from luna_farm.catalogue.conditions import conditions

    similar = fields.text(message, "similar", limit=16)
    if similar and not re.fullmatch("[0-9a-f]{16}", similar):
        raise InvalidRequest.of("similar", similar, "a perceptual hash: 16 hexadecimal digits")
    query = Query(
        words=fields.text(message, "words"),
        model=fields.text(message, "model"),
        seed=_whole(message, "seed"),
        since=_moment(message, "since"),
        until=_moment(message, "until"),
        job=fields.text(message, "job", limit=64),
        score=fields.text(message, "score"),
        similar=similar,
        failed=fields.boolean(message, "failed", False),
    )
    conditions(query.score)
    return query, fields.integer(message, "limit", 1, MAX_ROWS, 50), _whole(message, "before", 2**63 - 1)


def _whole(message: Mapping[str, Any], field: str, most: int = 2**64 - 1) -> int | None:
    return None if message.get(field) is None else fields.integer(message, field, -(2**63), most)


def _moment(message: Mapping[str, Any], field: str) -> float | None:
    return None if message.get(field) is None else fields.number(message, field, 0.0, _LATEST_S, 0.0)
