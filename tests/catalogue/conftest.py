"""A catalogue in a temporary folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.catalogue.schema import NAME
from luna_farm.catalogue.search import Catalogue
from luna_farm.catalogue.store import Store

MakeRow = Callable[..., CatalogueRow]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the catalogue of the test is."""
    return tmp_path / NAME


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Its writer."""
    made = Store(path)
    yield made
    made.close()


@pytest.fixture
def catalogue(path: Path) -> Iterator[Catalogue]:
    """Its reader."""
    made = Catalogue(path)
    yield made
    made.close()


@pytest.fixture
def make_row() -> MakeRow:
    """`make_row(prompt="a cat")`: each row is one second later than the one before."""
    count = itertools.count(1)

    def make(**given: Any) -> CatalogueRow:
        number = next(count)
        known = {"path": f"/out/shots/image_{number:05d}.png", "saved_at": 1_700_000_000.0 + number}
        return CatalogueRow(**{**known, **given})

    return make
