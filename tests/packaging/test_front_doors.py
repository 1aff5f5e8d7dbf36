"""The scripts that newcomers run first: what they make, when they make it again, and what they print."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").glob("*.py") if path.stem != "bootstrap")


@pytest.fixture
def scripts(monkeypatch):
    """Import a script by name, as if it were run from its folder, and forget it again."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def load(name):
        for known in ("bootstrap", "test", "demo"):
            monkeypatch.delitem(sys.modules, known, raising=False)
        return importlib.import_module(name)

    yield load
    for known in ("bootstrap", "test", "demo"):
        sys.modules.pop(known, None)


@pytest.fixture
def checkout(scripts, monkeypatch, tmp_path):
    """A checkout in which nothing is run: the commands are only noted."""
    bootstrap = scripts("bootstrap")
    for name, text in (
        ("setup.cfg", "[metadata]"),
        ("pyproject.toml", ""),
        ("setup.py", ""),
        ("luna_farm/a.c", "int a;"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    venv = tmp_path / ".venv"
    python = venv / "bin" / "python"
    for name, value in (("ROOT", tmp_path), ("VENV", venv), ("STAMP", venv / "s.json"), ("PYTHON", python)):
        monkeypatch.setattr(bootstrap, name, value)
    ran = []

    def run(self, title, command, **_):
        ran.append(title)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
        return ""

    monkeypatch.setattr(bootstrap.Steps, "run", run)
    bootstrap.ran = ran
    return bootstrap


EVERYTHING = ["virtual environment", "build tools", "Luna Farm and what it needs"]


def test_the_first_time_everything_is_made_and_the_second_time_nothing(checkout):
    checkout.prepare("dev", ["torch"])
    assert checkout.ran == EVERYTHING
    checkout.ran.clear()
    checkout.prepare("dev", ["torch"])
    assert checkout.ran == []


def test_a_changed_c_source_is_compiled_and_nothing_more(checkout, tmp_path):
    checkout.prepare("dev", [])
    checkout.ran.clear()
    (tmp_path / "luna_farm/a.c").write_text("int b;")
    stale = tmp_path / f"luna_farm/a{sysconfig.get_config_var('EXT_SUFFIX')}"
    stale.touch()
    checkout.prepare("dev", [])
    assert checkout.ran == ["build"]
    assert not stale.exists()


@pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml"])
def test_changed_requirements_are_installed_into_the_same_environment(name, checkout, tmp_path):
    checkout.prepare("dev", [])
    checkout.ran.clear()
    (tmp_path / name).write_text("changed")
    checkout.prepare("dev", [])
    assert checkout.ran == EVERYTHING[1:]


def test_another_python_gets_a_new_environment(checkout, monkeypatch):
    checkout.prepare("dev", [])
    checkout.ran.clear()
    monkeypatch.setattr(sys, "version", "another")
    checkout.prepare("dev", [])
    assert checkout.ran == EVERYTHING


def test_the_environment_of_the_tests_serves_the_demo_but_not_the_other_way(checkout):
    checkout.prepare("dev", ["torch"])
    checkout.ran.clear()
    checkout.prepare("demo", [])
    assert checkout.ran == []
    checkout.STAMP.write_text(json.dumps(checkout.wanted_state("demo", [])))
    checkout.prepare("dev", ["torch"])
    assert checkout.ran == EVERYTHING[1:]


def test_an_attempt_that_failed_is_repeated(checkout, monkeypatch):
    checkout.prepare("dev", [])

    def fails(self, title, command, **_):
        raise checkout.StepFailed(title, 1, "no network")

    good = checkout.Steps.run
    monkeypatch.setattr(checkout.Steps, "run", fails)
    with pytest.raises(checkout.StepFailed):
        checkout.prepare("demo-other", [])
    monkeypatch.setattr(checkout.Steps, "run", good)
    checkout.ran.clear()
    checkout.prepare("dev", [])
    assert checkout.ran == EVERYTHING


def test_a_broken_stamp_counts_as_none(checkout):
    checkout.VENV.mkdir()
    checkout.STAMP.write_text("{")
    assert checkout.stamped() == {}
    checkout.STAMP.write_text("[]")
    assert checkout.stamped() == {}


def test_a_step_says_what_it_does_and_raises_with_the_output(scripts, capsys):
    bootstrap = scripts("bootstrap")
    steps = bootstrap.Steps(2)
    assert steps.run("fine", [sys.executable, "-c", "print('text')"]) == "text\n"
    with pytest.raises(bootstrap.StepFailed) as caught:
        steps.run("bad", [sys.executable, "-c", "import sys; print('why'); sys.exit(3)"])
    assert (caught.value.code, caught.value.output) == (3, "why\n")
    out = capsys.readouterr().out
    assert "[1/2] fine: done in" in out
    assert "[2/2] bad: FAILED in" in out


def test_on_a_terminal_one_line_lives(scripts, capsys, monkeypatch):
    bootstrap = scripts("bootstrap")
    steps = bootstrap.Steps(1)
    steps.live = True
    steps.run("fine", [sys.executable, "-c", "print('text')"])
    assert "\r\033[K[1/1] fine: done" in capsys.readouterr().out


def test_an_old_python_is_told_so(scripts, monkeypatch):
    bootstrap = scripts("bootstrap")
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match=r"needs Python 3\.10"):
        bootstrap.check_python()


REPORT = """<testsuites><testsuite tests="4" failures="1" errors="0" skipped="2">
<testcase classname="a" name="t1"><skipped message="no chromium here"/></testcase>
<testcase classname="a" name="t2"><skipped message="no chromium here"/></testcase>
<testcase classname="a" name="t3"><failure/></testcase><testcase classname="a" name="t4"/>
</testsuite></testsuites>"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_that_is_asked_for_help_does_nothing_else(script):
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout[:7], done.stderr) == (0, "usage: ", "")


def test_skipped_tests_are_listed_with_their_reasons(scripts, monkeypatch, tmp_path, capsys):
    test = scripts("test")
    monkeypatch.setattr(test, "REPORT", tmp_path / "report.xml")
    (tmp_path / "report.xml").write_text(REPORT)
    assert test.summary(["tests"], ["fuzz_png did not run: no gcc"], 0.0) == 1
    out = capsys.readouterr().out
    assert "1 passed, 1 failed, 2 skipped" in out
    assert "!!   2 x no chromium here   (a::t1, ...)" in out
    assert "!!   fuzz_png did not run: no gcc" in out
    assert "FAILED: tests" in out


def test_without_a_report_no_test_is_said_to_have_passed(scripts, monkeypatch, tmp_path, capsys):
    test = scripts("test")
    monkeypatch.setattr(test, "REPORT", tmp_path / "report.xml")
    assert test.summary([], [], 0.0) == 0
    assert "no tests ran" in capsys.readouterr().out


def test_packages_are_linked_under_their_import_names(scripts, monkeypatch, tmp_path):
    test = scripts("test")
    monkeypatch.setattr(test, "TYPES", tmp_path / "types")
    test.link_packages()
    test.link_packages()
    assert (tmp_path / "types" / "luna_farm_client").resolve() == ROOT / "client"


def test_ci_calls_exactly_the_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert script.rstrip().endswith("exec python3 scripts/test.py")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_an_environment_that_somebody_else_made_is_refused_and_stays(checkout):
    checkout.VENV.mkdir()
    (checkout.VENV / "mine").touch()
    with pytest.raises(SystemExit, match="did not make it"):
        checkout.prepare("dev", [])
    assert [path.name for path in checkout.VENV.iterdir()] == ["mine"]
    assert checkout.ran == []
