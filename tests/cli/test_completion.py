"""`completion`: what can be typed, for each shell."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from luna_farm.cli import completion, entry

SHELLS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_every_command_and_option_is_in_it_and_the_shell_reads_it(shell, cli, tmp_path):
    code, out, _ = cli("completion", shell)
    assert code == 0
    for name, (_, found) in completion.words().items():
        assert name in out
        assert all(option.removeprefix("--") in out for option in found)
    assert "--background" not in completion.words()["start"][1], "an option that no person types"
    command = SHELLS.get(shell, [])
    if command and shutil.which(command[0]):
        script = tmp_path / "script"
        script.write_text(out)
        done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


TYPED = [
    (["sto"], ["stop"]),
    (["start", "--log-f"], ["--log-format"]),
    (["start", "--log-format", "j"], ["json"]),
    (["service", "un"], ["uninstall"]),
    (["jobs", "--state", "f"], ["failed"]),
]
ZSH = """
compdef() { : }; _files() { : }
_describe() { print -rl -- ${${(P)2}%%:*} }
compadd() { shift; print -rl -- "$@" }
"""
"""What zsh's completion system offers, as far as it prints what it is given."""


def _said(shell, *command):
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED: {shell} is not installed")
    done = subprocess.run([shell, *command], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(("typed", "expected"), TYPED)
def test_bash_completes(typed, expected, cli):
    line = " ".join(f"'{word}'" for word in ["luna-farm", *typed])
    script = cli("completion", "bash")[1]
    script += (
        f'\nCOMP_WORDS=({line}); COMP_CWORD={len(typed)}; _luna_farm; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    assert _said("bash", "-c", script) == expected


@pytest.mark.parametrize("loaded", ["source _luna-farm", "fpath=(. $fpath); autoload -Uz _luna-farm"])
@pytest.mark.parametrize(("typed", "expected"), TYPED)
def test_zsh_completes_at_the_first_time_and_later(typed, expected, loaded, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_luna-farm").write_text(cli("completion", "zsh")[1])
    line = " ".join(f"'{word}'" for word in ["luna-farm", *typed])
    for times in (1, 2):
        script = f"{ZSH}{loaded}; words=({line}); CURRENT=$#words\n" + "_luna-farm\n" * times
        offered = _said("zsh", "-fc", script)
        assert [word for word in offered if word.startswith(typed[-1])] == expected * times


@pytest.mark.parametrize(("typed", "expected"), TYPED)
def test_fish_completes(typed, expected, cli, tmp_path):
    (tmp_path / "it.fish").write_text(cli("completion", "fish")[1])
    line = " ".join(["luna-farm", *typed])
    offered = _said("fish", "--no-config", "-c", f"source {tmp_path}/it.fish; complete -C '{line}'")
    assert [word.split("\t")[0] for word in offered] == expected


def test_a_broken_settings_file_does_not_stand_in_the_way(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "luna-farm.toml").write_text("nonsense = 1\n")
    assert cli("status")[0] == 2
    assert cli("completion", "bash")[0] == 0
    assert cli("config", "init", "--print")[0] == 0


def test_an_unknown_shell_is_wrong_usage(cli):
    assert cli("completion", "tcsh")[0] == 2
    assert set(entry.COMMANDS) >= set(completion.words())
