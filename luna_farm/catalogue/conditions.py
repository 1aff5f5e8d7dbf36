"""Conditions on scores, as people type them: "variance<0.1, blank". Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from luna_farm.errors import InvalidRequest

COLUMNS = {
    "gate": "gate_score",
    "variance": "variance",
    "edge_density": "edge_density",
    "clipped": "clipped",
    "blank": "blank",
    "nan": "nan_count",
    "width": "width",
    "height": "height",
    "bytes": "bytes",
}
"""Name in a condition -> column."""
ALLOWED = f"conditions such as variance<0.1 or blank, with {', '.join(COLUMNS)}"
_ALONE = {"blank": ("=", 1.0), "nan": (">", 0.0)}
"""What a name means without a number."""
_COMMA = re.compile(r"\d,\d+\s*(?:,|$)")
_CONDITION = re.compile(r"([a-z_]+)\s*(?:(<=|>=|<|>|=)\s*(-?\d+(?:\.\d+)?|-?\.\d+))?|(\d+(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a column with a number."""

    column: str
    operator: str
    value: float


def conditions(typed: str) -> list[Condition]:
    """Read conditions, separated by commas; all must hold. A number alone is the least score of the quality
    gate. Raises InvalidRequest, also for 0,1, which would be two conditions."""
    if _COMMA.search(typed):
        raise InvalidRequest.of("score", typed, f"numbers with a point, such as 0.1; {ALLOWED}")
    return [_condition(part.strip(), typed) for part in typed.split(",") if part.strip()]


def _condition(part: str, typed: str) -> Condition:
    found = _CONDITION.fullmatch(part.lower())
    if found is None:
        raise InvalidRequest.of("score", typed, ALLOWED)
    name, operator, value, alone = found.groups()
    if alone and float(alone) > 1:
        raise InvalidRequest.of("score", typed, f"a score of the gate from 0 to 1, or {ALLOWED}")
    if alone:
        return Condition(COLUMNS["gate"], ">=", float(alone))
    if name not in COLUMNS or (not operator and name not in _ALONE):
        raise InvalidRequest.of("score", typed, ALLOWED)
    if not operator:
        operator, number = _ALONE[name]
        return Condition(COLUMNS[name], operator, number)
    return Condition(COLUMNS[name], operator, float(value))
