#!/usr/bin/env python3
"""Writes the table of settings in docs/configuration.md from the table in luna_farm/config.py.

`--check` writes nothing and fails if the page is not what would be written; a test runs that. It must never
touch the page outside its two marks.
"""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- settings: begin, made by scripts/tables.py -->\n", "<!-- settings: end -->\n"


def shown_default(name: str, value: object) -> str:
    """Return a default as a person would write it."""
    from luna_farm.config import SETTINGS

    if name == "state_dir":
        return "the platform's state folder"
    if name == "arena_bytes":
        return "0: automatic"
    if isinstance(value, bool):
        return str(value).lower()
    is_size = any(setting.name == name and "size" in setting.allowed for setting in SETTINGS)
    if is_size and isinstance(value, int):
        return f"{value // 2**30}GiB" if value % 2**30 == 0 else f"{value // 2**20}MiB"
    return "none" if value in (None, "", ()) else f"{value:g}" if isinstance(value, float) else str(value)


def table() -> str:
    """Return the settings as a Markdown table, one row a setting, in the order of the code."""
    from luna_farm.config import SETTINGS

    lines = ["| file | environment | option | default | allowed | what it is |", "| --- " * 6 + "|"]
    for setting in SETTINGS:
        default = shown_default(setting.name, setting.default)
        file = "–" if setting.secret else f"`[{setting.section}] {setting.key}`"
        option = "–" if setting.secret else f"`{setting.option}`"
        cells = (file, f"`{setting.env}`", option, default, setting.allowed, setting.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Rewrite or check the page. Returns the exit code."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = head + BEGIN + table() + END + tail
    if wanted == page:
        return 0
    if "--check" in sys.argv[1:]:
        print(f"{PAGE.name} is out of date; run python scripts/tables.py", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
