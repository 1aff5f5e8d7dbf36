"""The conversation in docs/protocol.md is held with a real farm, word for word.

In the page, `<name>` stands for a value that differs each time: the same name is the same value. A key `...`
in a map stands for what is not shown.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from farm_process import FarmProcess, Wire

from luna_farm.core.batches import Batch
from luna_farm.core.messages import SaveOptions
from luna_farm.errors import FarmError, _all
from luna_farm.supervisor.commands import Commands

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
HOLDER = re.compile(r"<([a-z_ 0-9]+)>")
REST = "..."


def conversations() -> list[tuple[str, list[tuple[str, str]]]]:
    """Name and lines (direction, text) of each conversation in the page."""
    blocks = re.findall(r"```conversation (\S+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [(name, [(line[:1], line[2:]) for line in body.splitlines() if line]) for name, body in blocks]


class Known:
    """What the names in `<>` stand for, as far as it is known."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def fill(self, shown: Any) -> Any:
        """Put values in the place of names."""
        if isinstance(shown, dict):
            return {key: self.fill(value) for key, value in shown.items()}
        if isinstance(shown, list):
            return [self.fill(value) for value in shown]
        if isinstance(shown, str):
            whole = HOLDER.fullmatch(shown)
            if whole:
                return self.values[whole[1]]
            return HOLDER.sub(lambda found: str(self.values[found[1]]), shown)
        return shown

    def match(self, shown: Any, heard: Any, where: str = "") -> None:
        """Compare what the page shows with what was heard; a new name takes the value that it stands for."""
        if isinstance(shown, dict):
            assert isinstance(heard, dict), where
            named = {key for key in shown if key != REST}
            assert named == set(heard) or (REST in shown and named <= set(heard)), f"{where}: {sorted(heard)}"
            for key in named:
                self.match(shown[key], heard[key], f"{where}.{key}")
        elif isinstance(shown, list):
            assert isinstance(heard, list), where
            assert len(shown) == len(heard), f"{where}: {heard}"
            for at, value in enumerate(shown):
                self.match(value, heard[at], f"{where}[{at}]")
        elif isinstance(shown, str) and HOLDER.search(shown):
            self._match_text(shown, heard, where)
        else:
            assert (shown, type(shown)) == (heard, type(heard)), f"{where}: {heard!r} is not {shown!r}"

    def _match_text(self, shown: str, heard: Any, where: str) -> None:
        whole = HOLDER.fullmatch(shown)
        if whole:
            assert self.values.setdefault(whole[1], heard) == heard, f"{where}: {heard!r}"
            return
        parts = HOLDER.split(shown)
        texts = [str(self.values.get(part, "")) if at % 2 else part for at, part in enumerate(parts)]
        known = [not at % 2 or part in self.values for at, part in enumerate(parts)]
        pattern = "".join(re.escape(t) if k else ".*" for t, k in zip(texts, known, strict=True))
        assert isinstance(heard, str), where
        assert re.fullmatch(pattern, heard), f"{where}: {heard!r} is not {shown!r}"


def hold(lines: list[tuple[str, str]], wire: Wire, known: Known) -> None:
    """Say what the page says on the left, and hear what it says on the right."""
    for at, (direction, text) in enumerate(lines):
        if direction == ">" and text.startswith("("):
            wire.socket.sendall(bytes(known.fill("<pixels>")))
        elif direction == ">" and text.startswith('"'):
            wire.socket.sendall(json.loads(text).encode("latin-1"))
        elif direction == ">":
            wire.send(known.fill(json.loads(text)))
        elif text == "(the farm closes the connection)":
            assert wire.receive() is None
        else:
            known.match(json.loads(text), wire.receive(), f"line {at + 1}")


ALONE = ("pixels", "drain")
"""Conversations with a farm that has done nothing yet, and with one that ends."""


@pytest.mark.parametrize(("name", "lines"), conversations(), ids=[name for name, _ in conversations()])
def test_the_farm_speaks_as_the_page_says(
    name: str,
    lines: list[tuple[str, str]],
    request: pytest.FixtureRequest,
    shared_farm: FarmProcess,
    tmp_path: Path,
) -> None:
    farm = request.getfixturevalue("start_farm")() if name in ALONE else shared_farm
    known = Known(token=farm.token, out=str(tmp_path / "out"), pid=1, pixels=bytes(range(48)))
    with farm.wire() as wire:
        hold(lines, wire, known)
    if name == "pixels":
        assert (tmp_path / "out" / "shots" / "a_RAW.png").exists()


def test_the_page_tells_of_every_command_and_every_code() -> None:
    page = PAGE.read_text("utf-8")
    commands = Commands(None, {}, {})._table  # type: ignore[arg-type]
    assert not [name for name in (*commands, "hello") if f"`{name}`" not in page]
    given = {row.name for row in fields(Batch) if row.init} - {"batch", "height", "width", "channels"}
    named = {*SaveOptions.__slots__, *given}
    assert not [name for name in named if f"`{name}`" not in page]
    codes = {code for code, kind in _all(FarmError).items() if kind.__module__ == "luna_farm.errors"}
    on_the_wire = codes - {"error", "unavailable", "config", "already_running", "not_in_time"}
    assert not [code for code in on_the_wire if f"`{code}`" not in page]
