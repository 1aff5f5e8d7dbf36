"""`logs`: the file of the state folder, as people read it."""

from __future__ import annotations

import contextlib
import json
import os

import pytest

from luna_farm import logs
from luna_farm.cli import logs as command


def line(message, level="info", **extra):
    entry = {"timestamp": "2026-01-02T03:04:05.678+00:00", "level": level, "logger": "luna_farm.x", "pid": 1}
    return json.dumps({**entry, "message": message, **extra}) + "\n"


@pytest.fixture
def log(tmp_path):
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / logs.FILE_NAME
    path.write_text(line("third", "warning") + "no JSON\n" + line("Saved to a.png", job_id="a1b2c3d4"))
    path.with_name(f"{path.name}.1").write_text(line("first") + line("second", "error"))
    return path


def test_all_files_in_order_as_people_read_them(log, cli):
    code, out, err = cli("logs")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "2026-01-02 03:04:05 [Luna Farm] first",
        "2026-01-02 03:04:05 [Luna Farm] ERROR: second",
        "2026-01-02 03:04:05 [Luna Farm] WARNING: third",
        "2026-01-02 03:04:05 [Image Save] Job a1b2c3d4: Saved to a.png",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--lines", 1), ["Saved to a.png"]),
        (("--level", "warning"), ["second", "third"]),
        (("--job", "a1b2c3d4"), ["Saved to a.png"]),
        (("--job", "ffffffff"), []),
    ],
)
def test_lines_are_chosen(options, expected, log, cli):
    out = cli("logs", "--json", *options)[1]
    assert [json.loads(shown)["message"] for shown in out.splitlines()] == expected


def test_no_log_is_an_error_that_says_where(cli, tmp_path):
    code, _, err = cli("logs")
    assert code == 1
    assert str(tmp_path / "state") in err


def test_new_lines_are_shown_also_when_the_file_is_rotated(log):
    def add(text):
        with log.open("a") as file:
            file.write(text)

    steps = iter(
        [
            lambda: add(line("half")[:10]),
            lambda: add(line("half")[10:] + line("whole")),
            lambda: log.rename(log.with_name(f"{log.name}.2")),
            lambda: log.write_text(line("new file")),
        ]
    )
    found = command.new_lines(log, lambda: next(steps)())
    with contextlib.closing(found):
        assert [json.loads(next(found))["message"] for _ in range(3)] == ["half", "whole", "new file"]


def test_following_ends_with_ctrl_c(log, cli, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    assert cli("logs", "--follow", "--lines", 0) == (0, "", "")


@pytest.mark.parametrize(
    "command", [("logs",), ("find",), ("status", "--port", "9"), ("jobs", "--port", "9"), ("doctor",)]
)
def test_a_state_folder_that_may_not_be_read_is_no_empty_one(command, cli, tmp_path, monkeypatch):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    listdir = os.listdir

    def refused(path="."):
        if str(path) == str(state):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refused)
    code, out, err = cli(*command)
    if command == ("doctor",):
        assert "permissions" in out, "it goes on with what it can look at"
        return
    assert code in (1, 3)
    assert f"The state folder {state} cannot be read: Permission denied." in err
