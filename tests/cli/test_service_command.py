"""`service`: the files of each platform as text, and the commands that put them in place."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from luna_farm.cli import service, service_files

START = ["/opt/my python/bin/python", "-m", "luna_farm", "start", "--state-dir", '/a "b"/100%']


@pytest.fixture
def system(monkeypatch, tmp_path):
    """The system's commands: what was called, and what each answers (0 unless told)."""
    seen = types.SimpleNamespace(calls=[], codes={})

    def run(command, **options):
        seen.calls.append(" ".join(command))
        code = next((code for part, code in seen.codes.items() if part in seen.calls[-1]), 0)
        if code is None:
            raise FileNotFoundError(2, "No such file or directory")
        return subprocess.CompletedProcess(command, code, "", "Failed to connect to bus\n" if code else "")

    monkeypatch.setattr(service.subprocess, "run", run)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    seen.unit = tmp_path / ".config" / "systemd" / "user" / "luna-farm.service"
    return seen


def test_install_writes_the_unit_and_starts_it(system, cli, tmp_path):
    code, out, err = cli("service", "install", "--state-dir", tmp_path / "my state")
    assert code == 0
    assert system.calls == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now luna-farm.service",
    ]
    started = f'ExecStart={sys.executable} -m luna_farm start --state-dir "{tmp_path / "my state"}"\n'
    assert started in system.unit.read_text()
    assert "enable-linger" in out
    assert "LUNA_FARM_STATE_DIR" in err, "what is set in this shell does not reach the service"


def test_a_system_that_refuses_is_quoted(system, cli):
    system.codes = {"enable": 1}
    code, out, err = cli("service", "install")
    assert (code, out) == (1, "")
    assert "Failed to connect to bus" in err
    system.codes = {"daemon-reload": None}
    code, _, err = cli("service", "install")
    assert code == 1
    assert "systemctl cannot be run" in err


def test_uninstall_undoes_it_also_when_it_does_not_run(system, cli):
    assert cli("service", "uninstall")[0] == 1
    cli("service", "install")
    system.codes = {"disable": 1}
    code, out, _ = cli("service", "uninstall")
    assert (code, system.unit.exists()) == (0, False)
    assert "no more" in out


def test_status_is_that_of_the_system(system, cli):
    code, out, _ = cli("service", "status")
    assert code == 1
    assert "luna-farm service install" in out
    cli("service", "install")
    assert cli("service", "status")[:2] == (0, f"Installed: {system.unit}\n")
    system.codes = {"status": 3}
    assert cli("service", "status")[0] == 1
    system.codes = {"status": None}
    assert cli("service", "status")[0] == 1


def test_logs_are_those_of_the_farm(system, cli, tmp_path):
    assert cli("service", "logs")[0] == 1
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "luna-farm.log").write_text('{"level": "info", "message": "hello"}\n')
    code, out, _ = cli("service", "logs")
    assert (code, out.split(" ", 1)[1]) == (0, "[Luna Farm] hello\n")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_print_shows_all_and_changes_nothing(platform, system, cli, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    for action in ("install", "uninstall", "status"):
        code, out, _ = cli("service", action, "--print")
        assert code == 0
        assert "luna-farm" in out.lower().replace(" ", "-")
    assert (system.calls, system.unit.exists()) == ([], False)


def test_the_unit_quotes_what_systemd_would_read_otherwise(tmp_path):
    text = service_files.systemd_unit(START)
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert line.endswith(r'"/opt/my python/bin/python" -m luna_farm start --state-dir "/a \"b\"/100%%"')
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT TESTED: whether systemd takes the unit; systemd-analyze is not installed")
    unit = tmp_path / "luna-farm.service"
    unit.write_text(service_files.systemd_unit(["/bin/true", "start"]))
    command = ["systemd-analyze", "verify", "--man=no", "--user", str(unit)]
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert [said for said in done.stderr.splitlines() if "luna-farm" in said] == []


def test_the_launch_agent_is_a_property_list():
    made = service_files.launchd(START, PurePosixPath("/Users/a"), 501)
    agent = plistlib.loads(made.content)
    assert (agent["ProgramArguments"], agent["RunAtLoad"]) == (START, True)
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    path = "/Users/a/Library/LaunchAgents/luna-farm.plist"
    assert made.install == (("launchctl", "bootstrap", "gui/501", path),)
    assert made.uninstall == (("launchctl", "bootout", "gui/501/luna-farm"),)


def test_the_task_is_xml_that_starts_at_logon_and_is_stopped_by_the_farm():
    start = [r"C:\my python\pythonw.exe", "-m", "luna_farm", "start", "--state-dir", r"C:\a & b"]
    made = service_files.windows(start, PureWindowsPath(r"C:\local"), r"PC\me", ["python", "stop"])
    task = ElementTree.fromstring(made.content.decode("utf-16"))
    space = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
    found = {name: task.findtext(f".//t:{name}", namespaces=space) for name in ("Command", "Arguments")}
    assert found == {"Command": start[0], "Arguments": r'-m luna_farm start --state-dir "C:\a & b"'}
    assert task.findtext(".//t:LogonTrigger/t:UserId", namespaces=space) == r"PC\me"
    assert made.uninstall[0] == ("python", "stop")
    assert made.install[0][:5] == ("schtasks", "/Create", "/F", "/TN", "Luna Farm")


def test_on_windows_no_window_opens(monkeypatch, tmp_path):
    for name in ("python.exe", "pythonw.exe"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python.exe"))
    args = types.SimpleNamespace(
        setting_state_dir=None, config="my.toml", setting_host=None, setting_port="5"
    )
    start = service.start_command(args)
    assert (Path(start[0]).name, start[4:]) == (
        "pythonw.exe",
        ["--config", str(Path("my.toml").absolute()), "--port", "5"],
    )
