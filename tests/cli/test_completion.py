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


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["sto"], ["stop"]),
        (["start", "--log-f"], ["--log-format"]),
        (["start", "--log-format", "j"], ["json"]),
        (["service", "un"], ["uninstall"]),
        (["jobs", "--state", "f"], ["failed"]),
    ],
)
def test_bash_completes(typed, expected, cli):
    if shutil.which("bash") is None:
        pytest.skip("NOT TESTED: bash is not installed")
    script = cli("completion", "bash")[1]
    line = " ".join(f"'{word}'" for word in ["luna-farm", *typed])
    script += f'\nCOMP_WORDS=({line}); COMP_CWORD={len(typed)}; _luna_farm; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_an_unknown_shell_is_wrong_usage(cli):
    assert cli("completion", "tcsh")[0] == 2
    assert set(entry.COMMANDS) >= set(completion.words())
