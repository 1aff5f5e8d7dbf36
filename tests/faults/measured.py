"""What a fault test measured, noted for the table of docs/reliability.md."""

from __future__ import annotations

import json
import os
from typing import Any

LONG = os.environ.get("LUNA_FARM_TEST_LONG") == "1"
"""The long form: the numbers of the table in full. The short form is part of every test run."""
FIGURES = os.environ.get("LUNA_FARM_TEST_FIGURES", "")
NEVER = (
    "lost",
    "corrupt",
    "duplicate",
    "stray",
    "overwritten",
    "outside",
    "crashes",
    "half_files",
    "phantoms",
    "gone",
    "twice",
    "segments",
)
PATIENCE_S = 120.0
"""From here on something hangs, however busy the machine is."""


def note(line: dict[str, Any]) -> None:
    """Write a line for scripts/faults.py, if that is who runs the tests."""
    if FIGURES:
        with open(FIGURES, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Figures:
    """Notes what a test measured, one JSON line each, for scripts/faults.py."""

    def __init__(self, test: str) -> None:
        self._test = test

    def __call__(self, row: str, what: str, *, ok: bool = True, **measured: Any) -> None:
        """`what` of the row `row` of the table measured this; `ok`: its target is met."""
        if FIGURES:
            line = {
                "row": row,
                "what": what,
                "ok": ok,
                "measured": measured,
                "test": self._test,
                "long": LONG,
            }
            with open(FIGURES, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def none(self, row: str, what: str, **measured: int) -> None:
        """Note the figures and see that each of `lost`, `corrupt`, `duplicate`, `stray` and so on is 0."""
        zero = {name: value for name, value in measured.items() if name in NEVER}
        self(row, what, ok=not any(zero.values()), **measured)
        assert not any(zero.values()), measured

    def within(self, row: str, what: str, took_s: float, target_s: float) -> None:
        """Note a time. The table tells whether it met its target; the test only that nothing hung, for how
        busy this machine is is no fault of the farm."""
        self(row, what, ok=took_s <= target_s, took_ms=round(took_s * 1e3, 1))
        assert took_s < PATIENCE_S
