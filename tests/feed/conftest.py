"""What the tests of the feed share: a farm that saves nothing, and a visitor who speaks to it over real
sockets."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_farm import FakeFarm
from feed_visitor import Visitor


@pytest.fixture
async def farm() -> AsyncIterator[FakeFarm]:
    fake = FakeFarm()
    feed = await fake.serve()
    yield fake
    await feed.close()


@pytest.fixture
async def visitor(farm: FakeFarm) -> Visitor:
    return Visitor(farm)
