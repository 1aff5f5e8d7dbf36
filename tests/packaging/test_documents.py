"""What documents show to be typed or copied is real: units, options, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luna_farm import logs
from luna_farm.cli import entry

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


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


def test_the_size_of_the_log_is_told_right():
    assert f"{logs.FILES_KEPT + 1} files of {logs.FILE_BYTES // 2**20} MiB" in OPERATIONS
    assert logs.FILE_NAME in OPERATIONS
