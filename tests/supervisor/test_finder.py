"""A search of a client is always answered, whatever happens to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from luna_farm.catalogue.search import Catalogue
from luna_farm.catalogue.store import Store
from luna_farm.errors import InvalidRequest
from luna_farm.supervisor.finder import Finder


async def asked(finder: Finder, **fields: Any) -> dict[str, Any]:
    answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    finder.ask(fields, answer.set_result)
    return await answer


async def test_a_search_that_breaks_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OverflowError("too large")

    Store(tmp_path / "catalogue.sqlite").close()
    monkeypatch.setattr(Catalogue, "find", broken)
    finder = Finder(str(tmp_path / "catalogue.sqlite"))
    answer = await asked(finder, words="x")
    finder.close()
    assert answer["code"] == "catalogue"
    assert "OverflowError: too large" in answer["error"]


@pytest.mark.parametrize("field", ["before", "seed"])
async def test_a_number_that_no_row_can_have_is_refused(tmp_path: Path, field: str) -> None:
    finder = Finder(str(tmp_path / "catalogue.sqlite"))
    with pytest.raises(InvalidRequest, match=field):
        await asked(finder, **{field: 2**64})
    with pytest.raises(InvalidRequest, match="before"):
        await asked(finder, before=2**63)
    finder.close()
