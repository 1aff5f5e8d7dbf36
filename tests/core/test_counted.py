"""A number with its noun."""

from __future__ import annotations

import pytest

from luna_farm.core.counted import counted


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1200, "1,200 images")]
)
def test_one_is_singular(number: int, told: str) -> None:
    assert counted(number, "image") == told
