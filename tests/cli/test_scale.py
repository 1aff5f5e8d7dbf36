"""`luna-farm bench --scale`: a small run of the real thing, and what it prints."""

from __future__ import annotations

import json

import pytest

from luna_farm.cli import scale
from luna_farm.cli.entry import main


def test_powers_of_two_up_to_the_processors() -> None:
    assert scale.steps(1) == [1]
    assert scale.steps(6) == [1, 2, 4]
    assert scale.steps(16) == [1, 2, 4, 8, 16]


@pytest.fixture
def small_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "steps", lambda: [1])
    monkeypatch.setattr(scale, "CLIENTS", 1)
    monkeypatch.setattr(scale, "SECONDS", 0.1)
    monkeypatch.setattr(scale, "HUGE", 1024)


@pytest.mark.usefixtures("small_run")
def test_both_sizes_are_measured_with_each_number_of_workers(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--scale", "--size", "96", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert [(row["images"], row["workers"]) for row in result["rows"]] == [("large", 1), ("small", 1)]
    assert all(row["images_per_s"] > 0 and row["efficiency"] == 1 for row in result["rows"])
    assert result["huge_s"] > 0


@pytest.mark.usefixtures("small_run")
def test_a_person_gets_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--scale", "--size", "96"]) == 0
    shown = capfd.readouterr().out
    assert "efficiency" in shown
    assert "1024x1024, submit to saved" in shown
