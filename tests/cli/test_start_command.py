"""`start` and what launches a farm: logging, ports that are taken, and processes that do not get ready."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys

import pytest
from free_ports import free_port

from luna_farm import config, config_settings
from luna_farm.cli import launch, start
from luna_farm.errors import AlreadyRunning


@pytest.fixture
def farm_run(monkeypatch):
    """Replace the supervisor: `does` gets the settings and returns the exit code."""

    def replace(does):
        module = type(sys)("luna_farm.supervisor.run")
        module.run = does
        monkeypatch.setitem(sys.modules, "luna_farm.supervisor.run", module)

    return replace


def test_settings_arrive_and_the_code_is_passed_on(farm_run, cli, tmp_path):
    seen = []
    farm_run(lambda settings: seen.append(settings) or 5)
    options = (
        "--max-workers",
        "8",
        "--idle-timeout",
        "1.5",
        "--durable",
        "--fsync",
        "false",
        "--feed-port",
        "off",
    )
    code, _, _ = cli("start", *options)
    assert code == 5
    assert (seen[0].max_workers, seen[0].idle_timeout_s, seen[0].durable) == (8, 1.5, True)
    assert (seen[0].fsync, seen[0].feed_port) == (False, config.FEED_OFF)


def test_every_setting_but_secrets_is_an_option(cli):
    text = cli("start", "--help")[1]
    for setting in config_settings.SETTINGS:
        assert (setting.option in text) is not setting.secret


def log_a_line(settings):
    import logging

    logging.getLogger("luna_farm.supervisor").info("hello")
    return 0


@pytest.mark.parametrize(
    ("options", "first"), [((), '{"'), (("--log-format", "human"), "[Lun"), (("--log-format", "json"), '{"')]
)
def test_lines_go_to_standard_error_in_the_format_asked_for(options, first, farm_run, cli):
    farm_run(log_a_line)
    assert cli("start", *options)[2].startswith(first)


def test_in_the_background_only_the_file_is_written(farm_run, cli, tmp_path):
    farm_run(log_a_line)
    assert cli("start", "--background") == (0, "", "")
    assert "hello" in (tmp_path / "state" / "luna-farm.log").read_text()


def test_a_second_farm_is_told_who_runs(farm_run, cli):
    def run(settings):
        raise AlreadyRunning("A farm already runs: process 7.", 7)

    farm_run(run)
    assert cli("start") == (1, "", "A farm already runs: process 7.\n")


def test_a_taken_port_is_named_with_its_holder(farm_run, cli):
    def run(settings):
        raise OSError(errno.EADDRINUSE, "Address already in use")

    farm_run(run)
    port = free_port()  # no other program takes it afterwards
    with socket.create_server(("127.0.0.1", port)):
        code, _, err = cli("start", "--port", port, "--feed-port", "off")
    assert code == 1
    assert err.startswith(f"Port {port} is taken by process {os.getpid()} (")
    code, _, err = cli("start", "--port", port, "--feed-port", "off")
    assert err == f"Port {port} is taken by another program; choose another --port or --feed-port.\n"


def test_a_port_that_may_not_be_had_is_explained(farm_run, cli):
    def run(settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    farm_run(run)
    code, _, err = cli("start", "--port", "80")
    assert (code, err.startswith("Cannot listen on 127.0.0.1, port 80: this user may not")) == (1, True)


def test_other_errors_of_the_system_are_passed_on(farm_run, cli):
    def run(settings):
        raise OSError(errno.EIO, "Input/output error")

    farm_run(run)
    assert cli("start") == (1, "", "Input/output error.\n")


def test_a_holder_that_the_system_does_not_tell_is_no_error(monkeypatch):
    import psutil

    def denied(kind):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    assert start._holder(1) == ""


@pytest.fixture
def launched(monkeypatch):
    """Replace the launch; holds the arguments that it got. No farm is asked what it has to say."""
    got = []
    monkeypatch.setenv("LUNA_FARM_PORT", str(free_port()))

    def fake(arguments, state_dir, environ=None):
        got.append(list(arguments))
        return launch.Launched(None, "127.0.0.1", 7, 8, 99, 0.5)

    monkeypatch.setattr(launch, "launch", fake)
    return got


@pytest.mark.parametrize("line", range(4))
def test_ctrl_c_while_the_place_is_told_does_not_hide_that_the_farm_runs(line, launched, cli, monkeypatch):
    """Each line of what is printed may be the one that is interrupted."""
    said: list[str] = []

    def interrupted(text: str, **_: object) -> None:
        said.append(text)
        if len(said) == line + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(start, "print", interrupted, raising=False)
    code, _, err = cli("start", "--detach")
    assert (code, err) == (0, "")
    assert said[-1].startswith("  stop it")
    assert said.count("Luna Farm runs in the background, process 99.") == 2


def test_detached_the_same_arguments_are_used_and_the_place_is_told(launched, cli, tmp_path):
    code, out, _ = cli("start", "--detach", "--max-workers", "3")
    assert (code, launched) == (0, [["--max-workers", "3"]])
    for part in (
        "process 99",
        "127.0.0.1:7",
        "http://127.0.0.1:8/",
        str(tmp_path / "state" / "luna-farm.log"),
    ):
        assert part in out


def test_detached_a_failure_is_told_with_its_code(monkeypatch, cli):
    def failing(arguments, state_dir, environ=None):
        raise launch.LaunchFailed("port: 5 is not allowed.", 2)

    monkeypatch.setattr(launch, "launch", failing)
    assert cli("start", "--detach") == (2, "", "port: 5 is not allowed.\n")


def test_a_process_that_ends_before_it_answers_is_quoted(tmp_path):
    with pytest.raises(launch.LaunchFailed, match=r"^port: '70000' is not allowed") as caught:
        launch.launch(["--port", "70000"], tmp_path)
    assert caught.value.exit_code == 2
    assert (tmp_path / launch.OUTPUT_FILE).stat().st_mode & 0o077 == 0


def test_a_process_that_does_not_answer_in_time_is_ended(tmp_path, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr(launch, "_spawn", lambda arguments, output, environ: child)
    monkeypatch.setattr(launch, "READY_WITHIN_S", 0.0)
    (tmp_path / launch.OUTPUT_FILE).write_text("")
    with pytest.raises(launch.LaunchFailed, match="shows what it waits for"):
        launch.launch([], tmp_path)
    child.stdin.close()
    assert child.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: /dev/full stands for a full disk")
@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("sys.exit(1)", "Cannot write .*start[.]log: No space left on device .* Free some space"),
        ("os.kill(os.getpid(), 9)", "ended by SIGKILL while it started"),
    ],
)
def test_a_process_that_could_say_nothing_is_explained(end, message, tmp_path, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", f"import os, sys; {end}"])
    child.wait()

    def spawn(arguments, output, environ):
        output.symlink_to("/dev/full")
        return child

    monkeypatch.setattr(launch, "_spawn", spawn)
    monkeypatch.setattr(launch, "_said", lambda state_dir: "")
    with pytest.raises(launch.LaunchFailed, match=message) as caught:
        launch.launch([], tmp_path)
    assert caught.value.exit_code == 1


def test_an_endpoint_of_an_earlier_farm_is_not_mistaken_for_the_new_one(tmp_path, monkeypatch):
    (tmp_path / "endpoint.json").write_text('{"host": "127.0.0.1", "port": 1, "feed_port": null, "pid": 1}')
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(launch, "_spawn", lambda arguments, output, environ: ended)
    monkeypatch.setattr(launch, "_answers", lambda endpoint: True)
    (tmp_path / launch.OUTPUT_FILE).write_text("first\nlast\n")
    with pytest.raises(launch.LaunchFailed, match=r"^last$"):
        launch.launch([], tmp_path)


def test_a_port_that_does_not_answer_is_no_farm():
    port = free_port()  # no other program takes it afterwards
    with socket.create_server(("127.0.0.1", port)):
        assert launch._answers({"host": "127.0.0.1", "port": port})
    assert not launch._answers({"host": "127.0.0.1", "port": port})


def test_the_dashboard_of_a_farm_with_a_certificate_is_told_by_its_scheme(
    launched, cli, tmp_path, monkeypatch
):
    monkeypatch.setattr(start, "_notes", lambda config: [])
    for name in ("cert", "key"):
        (tmp_path / name).touch()
    words = ("--tls-cert", tmp_path / "cert", "--tls-key", tmp_path / "key")
    code, out, _ = cli("start", "--detach", *words)
    assert code == 0
    assert "  dashboard  https://127.0.0.1:8/\n" in out
