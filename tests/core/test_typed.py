"""Fields of a record are of the types that their dataclass names, or the record is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from luna_farm.core.typed import typed


@dataclass(frozen=True)
class Record:
    """One field of each kind of annotation that records have."""

    name: str = "a"
    count: int = 1
    share: float | None = 0.5
    kind: Literal["one", "two"] = "one"
    names: tuple[str, ...] = ("a",)
    given: Mapping[str, int] | None = None
    anything: Any = None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"share": 1},
        {"share": None},
        {"names": ["a", "b"]},
        {"given": {"a": 1}},
        {"anything": [1]},
        {"kind": "two"},
    ],
)
def test_what_fits_is_returned_as_it_is(given: dict[str, Any]) -> None:
    record = replace(Record(), **given)
    assert typed(record) is record


@pytest.mark.parametrize(
    "given",
    [
        *({"name": 1}, {"name": None}, {"count": True}, {"count": 1.0}, {"count": "1"}, {"share": "1"}),
        *(
            {"kind": "three"},
            {"names": "a"},
            {"names": [1]},
            {"given": {"a": "1"}},
            {"given": {1: 1}},
            {"given": []},
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=rf"Record\.{next(iter(given))} is "):
        typed(replace(Record(), **given))
