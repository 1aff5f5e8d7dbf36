"""`luna-farm config init`: a settings file with every setting, its default and what is allowed.

It must never replace a file that is there.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from luna_farm import DOCUMENTATION
from luna_farm.cli import options
from luna_farm.config import FILE_NAME, Config, default_state_dir, user_config_dir
from luna_farm.config_settings import SETTINGS, Setting
from luna_farm.errors import NotPossible
from luna_farm.system import disk_error

_EXAMPLES = """
luna-farm config init                         in your own settings folder
luna-farm config init --file luna-farm.toml   here: it counts for farms started in this folder
luna-farm config init --print                 only show it
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "config", "write a settings file to begin with", _EXAMPLES)
    parser.add_argument("action", choices=["init"], help="what to do")
    parser.add_argument("--file", metavar="FILE", type=Path, help="where to (default: your settings folder)")
    parser.add_argument("--print", action="store_true", help="print it instead")


def run(args: argparse.Namespace, config: Config) -> int:
    """Write or print the file. Returns the exit code; raises NotPossible where one is."""
    text = "\n".join(lines()) + "\n"
    if args.print:
        print(text, end="")
        return 0
    path: Path = (args.file or user_config_dir() / FILE_NAME).expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise NotPossible(f"{path} is there and stays as it is. Remove it, or name another --file.") from None
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:  # half a file would not be made again
        path.unlink(missing_ok=True)
        raise disk_error("write", path, error) from error
    print(f"{path} holds every setting with its default. Remove the # of those you change.")
    return 0


def lines() -> Iterator[str]:
    """Yield the lines of a settings file that changes nothing: every setting stands in a comment."""
    yield "# Settings of Luna Farm. The command line and the environment count more than this file."
    yield f"# Remove the # in front of a setting to change it. More: {DOCUMENTATION}configuration/"
    listed = [setting for setting in SETTINGS if not setting.secret]
    for section, settings in groupby(sorted(listed, key=_place), key=lambda setting: setting.section):
        yield ""
        yield f"[{section}]"
        for setting in settings:
            yield f"# {setting.help}; allowed: {setting.allowed}"
            default = str(default_state_dir()) if setting.name == "state_dir" else setting.default
            yield f"# {setting.key} = {_toml(default)}"


def _place(setting: Setting) -> int:
    """Where the section of a setting came first: a section stands once in the file."""
    return [other.section for other in SETTINGS].index(setting.section)


def _toml(value: Any) -> str:
    if value is None:
        return '""'
    return json.dumps(list(value) if isinstance(value, tuple) else value)
