"""Numbers with units."""

from __future__ import annotations

import pytest

from luna_farm.cli import terminal

SIZES = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 1500: "1.5 kB", 99_949: "99.9 kB", 100_000: "100 kB"}
SIZES |= {999_600: "1.0 MB", 12_345_678: "12.3 MB", 5e9: "5.0 GB", 2e12: "2.0 TB", 3e15: "3000 TB"}
DURATIONS = {0.0004: "0.40 ms", 0.05: "50 ms", 1: "1 s", 99: "99 s", 120: "2 min", 7200: "2.0 h"}
DURATIONS |= {3 * 86400: "72.0 h", 12 * 86400: "12 d"}


@pytest.mark.parametrize(("number", "text"), SIZES.items())
def test_sizes(number, text):
    assert terminal.size(number) == text


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_durations(seconds, text):
    assert terminal.duration(seconds) == text


def test_progress_is_silent_where_nobody_looks(capsys):
    shown, task = terminal.progress("Working", 3)
    with shown:
        shown.advance(task)
    assert capsys.readouterr().err.strip() == ""


def test_a_line_is_never_cut_in_two_where_nobody_looks(capsys, monkeypatch):
    from rich.table import Table

    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    path = "/out/" + "long folder/" * 40 + "a.png"
    table.add_row("first", path)
    table.add_row("second", "/out/b.png")
    terminal.console().print(table)
    assert capsys.readouterr().out.splitlines() == [f"first   {path}", "second  /out/b.png"]


def test_tables_keep_their_cells_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert terminal.console().width == terminal.NARROW
    assert terminal.console(live=True).width == 40, "what is drawn again must not wrap"
    monkeypatch.setenv("COLUMNS", "120")
    assert terminal.console().width == 120
