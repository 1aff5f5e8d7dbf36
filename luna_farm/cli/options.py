"""What the commands' parsers share: options made from the table of settings, and how help looks.

It must never know a setting by itself: names, ranges and texts come from `luna_farm.config`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from luna_farm import config

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# Where the farm is: what every command may need to be told.
COMMON = {
    "host": "address of its job listener",
    "port": "port of its job listener",
    "state_dir": "its state folder",
}
_PREFIX = "setting_"


def command(subparsers: Subparsers, name: str, help: str, examples: str) -> argparse.ArgumentParser:  # noqa: A002
    """Return a new parser of a command; `examples` are lines shown as they are."""
    return subparsers.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes."""
    group = parser.add_argument_group("which farm")
    for name, text in COMMON.items():
        _add(group, name, f"{text} ({config.BY_NAME[name].default or 'as the platform has it'})")
    group.add_argument("--config", metavar="FILE", help="settings file instead of ./luna-farm.toml")


def add_settings(group: argparse._ArgumentGroup, names: Iterable[str]) -> None:
    """Add an option for each named setting."""
    for name in names:
        _add(group, name, f"{config.BY_NAME[name].help} ({config.BY_NAME[name].allowed})")


def _add(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    setting = config.BY_NAME[name]
    given: dict[str, Any] = {"dest": _PREFIX + name, "metavar": setting.key.upper()}
    if isinstance(setting.default, bool):
        given |= {"nargs": "?", "const": "true"}  # --durable alone means yes
    group.add_argument(setting.option, help=text.replace("%", "%%"), **given)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the command line gave, as `config.load` takes them."""
    found = {
        name.removeprefix(_PREFIX): value for name, value in vars(args).items() if name.startswith(_PREFIX)
    }
    return {name: value for name, value in found.items() if value is not None}
