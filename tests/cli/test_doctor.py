"""`luna-farm doctor`: all checks in one run, as a table or as JSON, with an exit code."""

from __future__ import annotations

import io
import json
import os
import re
import socket
from importlib import metadata
from pathlib import Path

import pytest

from luna_farm import config
from luna_farm.cli import checks_provenance, doctor, entry
from luna_farm.cli.findings import FINE, NOTE, PROBLEM, Finding, worst
from luna_farm.imaging import watermark
from luna_farm.storage.state_lock import StateLock


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place: no farm, any free port, folders of its own."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("LUNA_FARM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LUNA_FARM_PORT", "0")
    monkeypatch.setenv("LUNA_FARM_FEED_PORT", "0")
    return tmp_path


def test_the_worst_finding_decides() -> None:
    assert worst([]) == FINE
    assert worst([Finding("a", FINE, ""), Finding("b", NOTE, "")]) == NOTE
    assert worst([Finding("a", PROBLEM, ""), Finding("b", NOTE, "")]) == PROBLEM


def test_a_healthy_machine_is_looked_at_and_left_as_it_was(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = entry.main(["doctor", "--json"])
    shown = json.loads(capsys.readouterr().out)
    checks = {finding["check"] for finding in shown["findings"]}
    assert {
        "shared memory",
        "open files",
        "port 0",
        "output dir",
        "state dir",
        "logout",
        "clock",
        "PNG",
    } <= checks
    assert code == (1 if shown["level"] == PROBLEM else 0)
    assert os.listdir(place) == []


def test_a_port_that_is_taken_is_a_problem_and_the_exit_code_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        monkeypatch.setenv("LUNA_FARM_PORT", str(number))
        assert entry.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert f"port {number}" in shown
    assert f"process {os.getpid()}" in " ".join(shown.split())
    assert "There is something to do" in shown


def test_the_running_farm_is_no_problem_to_itself(place: Path) -> None:
    (place / "state").mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        lock = StateLock.acquire(place / "state" / "lock")
        settings = config.load({"port": str(number)}, os.environ, None)
        findings = {finding.check: finding for finding in doctor.examine(settings)}
        lock.release()
    assert findings[f"port {number}"].text.endswith(f"the farm listens there, process {os.getpid()}.")
    assert findings["permissions"].level == FINE
    assert "the running farm has its arena" in findings["shared memory"].text


def test_a_fallback_folder_is_looked_at_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNA_FARM_FALLBACK_DIR", str(place / "other"))
    settings = config.load({}, os.environ, None)
    assert "fallback dir" in {finding.check for finding in doctor.examine(settings)}


class _Installed:
    """An entry point; `brings` None: it cannot be loaded."""

    def __init__(self, name: str, brings: object) -> None:
        self.name, self.brings = name, brings

    def load(self) -> object:
        if self.brings is None:
            raise ModuleNotFoundError("No module named 'gone'")
        return self.brings


@pytest.mark.parametrize(
    ("name", "level", "said"),
    [
        ("stripes", FINE, "A package brings stripes."),
        ("strips", PROBLEM, "no package here offers 'strips' .* installed: broken, number, stripes"),
        ("broken", PROBLEM, "the watermark broken failed: ModuleNotFoundError: No module named 'gone'"),
        ("number", PROBLEM, "the watermark number is of type int; allowed: a function"),
    ],
)
def test_a_watermark_that_no_worker_could_run_is_a_problem(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, level: str, said: str
) -> None:
    brought: dict[str, object] = {"stripes": abs, "broken": None, "number": 3}
    points = [_Installed(*one) for one in brought.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    watermark._load.cache_clear()
    monkeypatch.setenv("LUNA_FARM_WATERMARK", name)
    (finding,) = checks_provenance.marks(config.load({}, os.environ, None))
    watermark._load.cache_clear()
    assert (finding.check, finding.level) == ("watermark", level)
    assert re.search(said, finding.text)


def test_a_key_that_cannot_sign_is_a_problem(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNA_FARM_PROVENANCE", "c2pa")
    findings = {finding.check: finding for finding in doctor.examine(config.load({}, os.environ, None))}
    assert findings["C2PA key"].level == PROBLEM
    assert "C2PA" in findings["C2PA key"].text
    assert "watermark" not in findings


def test_the_table_shows_mark_text_and_advice() -> None:
    from rich.console import Console

    out = io.StringIO()
    findings = [
        Finding("disk", PROBLEM, "It is full [/bold].", "Free some space."),
        Finding("clock", FINE, "It ticks."),
    ]
    Console(file=out, width=60, color_system=None).print(doctor.table(findings))
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "✗  disk   It is full [/bold].",
        "          → Free some space.",
        "✓  clock  It ticks.",
    ]
