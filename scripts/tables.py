#!/usr/bin/env python3
"""Write the made parts of the documents: settings and error codes, from the code itself.

`--check` writes nothing and fails if a page is not what would be written; a test runs that. It must never
touch a page outside its two marks.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from luna_farm.errors import FarmError

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- {}: begin, made by scripts/tables.py -->\n", "<!-- {}: end -->\n"


def shown_default(name: str, value: object) -> str:
    """Return a default as a person would write it."""
    from luna_farm.config_settings import SETTINGS

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


def row(*cells: str) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def settings() -> str:
    """Return the settings, one row each, in the order of the code."""
    from luna_farm.config_settings import SETTINGS

    text = row("file", "environment", "option", "default", "allowed", "what it is") + "| --- " * 6 + "|\n"
    for setting in SETTINGS:
        default = shown_default(setting.name, setting.default)
        file = "–" if setting.secret else f"`[{setting.section}] {setting.key}`"
        option = "–" if setting.secret else f"`{setting.option}`"
        text += row(file, f"`{setting.env}`", option, default, setting.allowed, setting.help)
    return text


def options() -> str:
    """Return the save options, one row each, in the order of the table."""
    from luna_farm.core.options import OPTIONS

    text = row("option", "what it is", "allowed", "if left out") + "| --- " * 4 + "|\n"
    for option in OPTIONS.values():
        default = "the farm's" if option.of_farm else shown_default(option.name, option.default)
        text += row(
            f"`{option.name}`", option.help, option.kind.allowed, default if default != "none" else '""'
        )
    return text


def errors() -> str:
    """Return every error code with what it means and what to do."""
    from luna_farm.errors import REPORT_CODES

    text = row("code", "class", "what happened", "what to do") + "| --- " * 4 + "|\n"
    for kind in kinds():
        meaning = " ".join((kind.__doc__ or "").split())
        text += row(f"`{kind.code}`", f"`{kind.__name__}`", meaning, kind.remedy)
    for code, (meaning, remedy) in REPORT_CODES.items():
        text += row(f"`{code}`", "in reports", meaning, remedy)
    return text


def decisions() -> str:
    """Return what each error of each call on the way of a file to its name leads to."""
    import errno

    from luna_farm.storage.ways import DECISIONS, OTHER, Then

    text = row("call", "error", "what follows") + "| --- " * 3 + "|\n"
    for call, after in DECISIONS.items():
        found: dict[Then, list[str]] = {}
        for number, then in sorted(after.items(), key=lambda pair: pair[0] == OTHER):
            named = errno.errorcode.get(number, "any other" if len(after) > 1 else "any")
            # Two names of one error on Linux, two errors on macOS.
            found.setdefault(then, []).append(named.replace("EOPNOTSUPP", "ENOTSUP"))
        for then, names in found.items():
            text += row(call, ", ".join(sorted({*names})), then.value)
    return text


def kinds() -> Iterator[type[FarmError]]:
    """Return every class of error that has a code of its own, those of all packages."""
    import luna_farm
    import luna_farm_client
    from luna_farm.errors import FarmError

    for package in (luna_farm, luna_farm_client):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(("__main__", "_png")):
                importlib.import_module(found.name)
    waiting: list[type[FarmError]] = [FarmError]
    while waiting:
        kind = waiting.pop(0)
        if "code" in vars(kind) and kind is not FarmError:
            yield kind
        # In the order of errors.py, then by module: the order of imports may be any.
        waiting += sorted(
            kind.__subclasses__(), key=lambda kind: kind.__module__.removeprefix(FarmError.__module__)
        )


MADE: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("configuration.md", settings),
    "options": ("protocol.md", options),
    "errors": ("troubleshooting.md", errors),
    "decisions": ("names.md", decisions),
}


def main() -> int:
    """Rewrite or check the pages. Returns the exit code."""
    stale = []
    for name, (page, make) in MADE.items():
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        head, begin, rest = text.partition(BEGIN.format(name))
        _, end, tail = rest.partition(END.format(name))
        if not (begin and end):
            sys.exit(f"{page} has no marks of the part {name!r}.")
        wanted = head + begin + make() + end + tail
        if wanted != text:
            stale.append(page)
            if "--check" not in sys.argv[1:]:
                path.write_text(wanted, encoding="utf-8")
    if stale and "--check" in sys.argv[1:]:
        print(f"Out of date: {', '.join(stale)}. Run: python scripts/tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a page is out of date")
    parser.parse_args()
    sys.exit(main())
