"""Clients against a real farm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from farm_process import FarmProcess

from luna_farm_client import FarmClient


@pytest.fixture
def farm(shared_farm: FarmProcess) -> Iterator[FarmClient]:
    """A client of its own, of the farm that all share."""
    with shared_farm.client() as client:
        yield client
