"""How many workers there should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.scaling import surplus, wanted


@pytest.mark.parametrize(
    ("alive", "waiting", "expected"),
    [(0, 0, 2), (1, 100, 2), (2, 0, 2), (2, 3, 2), (2, 4, 3), (3, 5, 3), (3, 6, 4), (4, 999, 4), (5, 999, 5)],
)
def test_it_grows_one_by_one_with_the_queue(alive: int, waiting: int, expected: int) -> None:
    assert wanted(alive, waiting, 2, 4) == expected


@given(st.integers(0, 9), st.integers(0, 99), st.integers(0, 4), st.integers(0, 4))
def test_it_never_leaves_the_bounds_by_itself(alive: int, waiting: int, low: int, more: int) -> None:
    count = wanted(alive, waiting, low, low + more)
    assert low <= count <= max(alive, low + more)
    assert count >= alive, "the pool shrinks by reaping"


def test_the_longest_idle_are_reaped_first_and_never_below_the_minimum() -> None:
    idle = {1: 10.0, 2: 5.0, 3: 7.0, 4: 90.0}
    assert surplus(idle, 4, 2, 60.0, now=100.0) == [2, 3]
    assert surplus(idle, 4, 1, 60.0, now=100.0) == [2, 3, 1]
    assert surplus(idle, 4, 4, 60.0, now=100.0) == []
    assert surplus(idle, 2, 4, 60.0, now=100.0) == []


def test_a_worker_is_reaped_at_its_time_not_before() -> None:
    assert surplus({1: 10.0}, 3, 1, 60.0, now=69.9) == []
    assert surplus({1: 10.0}, 3, 1, 60.0, now=70.0) == [1]
