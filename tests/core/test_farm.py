"""The table of handlers is complete, and an event of no kind is an error."""

from __future__ import annotations

from typing import get_args

import pytest
from stage import Stage

from luna_farm.core import events, instructions
from luna_farm.core.farm import HANDLERS, handle


def test_every_event_has_its_handler() -> None:
    assert set(HANDLERS) == set(get_args(events.Event))


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(KeyError):
        handle(Stage().farm, "an event", 0.0)  # type: ignore[arg-type]


def test_every_event_and_instruction_says_what_it_means() -> None:
    for kind in (*get_args(events.Event), *get_args(instructions.Instruction)):
        assert kind.__doc__
        assert not kind.__doc__.startswith(f"{kind.__name__}("), (
            f"{kind.__name__} has only the docstring of a dataclass"
        )
