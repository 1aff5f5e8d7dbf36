"""What documents show to be typed or copied is real: units, options, links."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from luna_farm import logs
from luna_farm.cli import entry

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def between(name, text=OPERATIONS):
    return (
        text.split(f"<!-- {name}: begin -->")[1]
        .split(f"<!-- {name}: end -->")[0]
        .strip()
        .split("\n", 1)[1][:-3]
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page):
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"(?:^|`|&& )luna-farm ([a-z]+)((?: --[a-z-]+)*)", text, re.MULTILINE)
    for command, options in shown:
        assert command in entry.COMMANDS
        known = entry.parser_for([command]).format_help() if not options else help_of(command)
        for option in options.split():
            assert option in known


def help_of(command):
    import io
    from contextlib import redirect_stdout

    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit):
        entry.parser_for([command]).parse_args([command, "--help"])
    return out.getvalue()


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: the unit of docs/operations.md was not verified")
    unit = tmp_path / "luna-farm.service"
    unit.write_text(between("unit").replace("%h/.local/bin/luna-farm", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", "--user", str(unit)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    told = [line for line in done.stderr.splitlines() if "luna-farm" in line]
    assert told == []


def test_the_property_list_is_one():
    plist = plistlib.loads(between("plist").encode())
    assert plist["ProgramArguments"][1:] == ["start"]
    assert plist["KeepAlive"] == {"SuccessfulExit": False}


def test_the_size_of_the_log_is_told_right():
    assert f"{logs.FILES_KEPT + 1} files of {logs.FILE_BYTES // 2**20} MiB" in OPERATIONS
    assert logs.FILE_NAME in OPERATIONS
