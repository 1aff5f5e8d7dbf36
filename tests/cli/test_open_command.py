"""`open` and `dashboard` against a farm in memory, on a desktop that only writes down what it is told."""

from __future__ import annotations

import importlib.util
import os
import webbrowser
from pathlib import Path

import pytest

from luna_farm import system_desktop

spec = importlib.util.spec_from_file_location("cli_conftest", Path(__file__).with_name("conftest.py"))
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="NOT TESTED: Windows opens files by os.startfile")


@pytest.fixture
def desktop(monkeypatch, tmp_path):
    """A desktop with an opener that notes its argument."""
    folder = tmp_path / "bin"
    folder.mkdir()
    opened = tmp_path / "opened"
    for name in ("xdg-open", "open"):
        (folder / name).write_text(
            f'#!/bin/sh\n[ -e "$1.refuse" ] && echo no program >&2 && exit 3\necho "$1" >> {opened}\n'
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":1")
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.write_text(address + "\n")))
    return lambda: opened.read_text() if opened.exists() else ""


@pytest.fixture
def job(farm, tmp_path):
    saved = tmp_path / "out" / "a.png"
    saved.parent.mkdir()
    saved.write_bytes(b"")
    images = [
        fakes.image("failed", path=str(tmp_path / "no.png")),
        fakes.image("saved", index=1, path=str(saved)),
        fakes.image("saved", index=2, path="s3://bucket/a.png"),
    ]
    farm.reports = {"a1b2c3d4": fakes.report("a1b2c3d4", "failed", images)}
    return saved


def test_the_folder_of_a_job_or_one_of_its_images_is_opened(desktop, job, cli):
    assert cli("open", "a1b2c3d4")[0] == 0
    assert cli("open", "a1b2c3d4", "--image", "1")[0] == 0
    assert desktop().splitlines() == [str(job.parent), str(job)]


def test_without_a_job_it_is_the_output_folder(desktop, farm, cli, tmp_path):
    farm.statuses = [{**fakes.STATUS, "output_dir": str(tmp_path)}]
    assert cli("open")[0] == 0
    assert desktop() == f"{tmp_path}\n"


def test_a_path_is_printed_instead(desktop, job, cli):
    assert cli("open", "a1b2c3d4", "--image", "1", "--print")[:2] == (0, f"{job}\n")
    assert desktop() == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("a1b2c3d4", "--image", "0"), 1, "Image 0 of job a1b2c3d4 has no file: it is failed."),
        (("a1b2c3d4", "--image", "9"), 1, "Image 9 of job a1b2c3d4 does not exist."),
        (("a1b2c3d4", "--image", "2"), 1, "s3://bucket/a.png is not on this machine"),
        (("00000000",), 1, "No job"),
        (("--image", "1"), 2, "with the id of a job"),
    ],
)
def test_what_cannot_be_opened_is_said(arguments, code, said, desktop, job, cli):
    ended, _, err = cli("open", *arguments)
    assert (ended, said in err) == (code, True), err
    assert desktop() == ""


def test_a_file_that_is_gone_and_a_program_that_refuses_are_said(desktop, job, cli):
    job.with_name("a.png.refuse").write_bytes(b"")
    assert "no program" in cli("open", "a1b2c3d4", "--image", "1")[2]
    job.unlink()
    assert "it is not there" in cli("open", "a1b2c3d4", "--image", "1")[2]


def test_files_of_another_machine_are_not_opened(desktop, job, cli, monkeypatch):
    monkeypatch.setattr("luna_farm.cli.farm.place", lambda config: ("farm.example", 19283))
    code, _, err = cli("open", "a1b2c3d4")
    assert (code, "farm.example" in err) == (1, True)


def test_the_dashboard_is_opened_by_a_link(desktop, farm, cli):
    code, out, _ = cli("dashboard")
    assert (code, out) == (0, "")
    assert desktop() == "http://127.0.0.1:19284/#login=secret\n"
    assert cli("dashboard", "--print")[:2] == (0, "http://127.0.0.1:19284/#login=secret\n")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.uname().sysname == "Darwin", reason="NOT TESTED: macOS")
def test_without_a_desktop_the_link_is_printed(farm, cli, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, out, _ = cli("dashboard")
    assert code == 1
    assert "there is no desktop here" in out
    assert "#login=secret" in out
    monkeypatch.setenv("DISPLAY", ":1")
    monkeypatch.setenv("PATH", "")
    assert "xdg-open" in system_desktop.missing()
