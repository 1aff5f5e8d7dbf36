"""What the commands' parsers share: options made from the table of settings, and how help looks.

It must never know a setting by itself: names, ranges and texts come from `luna_farm.config`.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from luna_farm import config_settings, config_values
from luna_farm.core import fields
from luna_farm.core.options import Option
from luna_farm.errors import InvalidRequest
from luna_farm.recommended import with_options

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction["Parser"]

# Where the farm is: arguments of every command.
COMMON = {
    "host": "address of its job listener",
    "port": "port of its job listener",
    "state_dir": "its state folder",
}
_PREFIX = "setting_"


def for_this_farm(text: str, arguments: Sequence[str]) -> str:
    """Return a message in which each command that a person is to type names the farm that `arguments` name:
    without that it would act on another one. Where one was to start, its state folder knows where it
    listens."""
    named = ("--state-dir", "--config", *(("--host", "--port") if arguments[:1] != ["start"] else ()))
    words: list[str] = []
    for at, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option not in named:
            continue
        value = value if equals else next(iter(arguments[at + 1 :]), "")
        words += [option, os.path.abspath(value) if option in ("--state-dir", "--config") else value]
    return with_options(text, words)


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in a sentence, without a page of usage."""

    of_no_option = ""
    """What else a word that begins with "-" may have been meant as."""

    def error(self, message: str) -> NoReturn:
        """Say it and end with code 2."""
        choice = _CHOICE.match(message)
        if choice:
            what, given, listed = choice.groups()
            allowed = [word.strip(" '") for word in listed.split(",")]
            given = given.strip("'")
            if what == "COMMAND":
                self.error(f"there is no command {given}{_meant(given, allowed)}")
            message = f"{what}: {given} is not allowed{_meant(given, allowed)}; allowed: {', '.join(allowed)}"
        message = self._in_words(message).removeprefix("argument ")
        self.exit(2, f"{self.prog}: {message}. `{self.prog} --help` shows what there is.\n")

    def _in_words(self, message: str) -> str:
        """Return a message of argparse as a sentence that says what is allowed."""
        for pattern, words in _SENTENCES:
            if found := pattern.fullmatch(message):
                parts = [part for part in re.split(r",? ", found[1]) if part]
                choices = {str(a.metavar or a.dest): a.choices for a in self._actions if a.choices}
                allowed = [f"; allowed: {', '.join(choices[part])}" for part in parts if part in choices]
                return words.format(*found.groups(), listed=_listed(parts)) + "".join(allowed)
        return message

    def named(self, error: InvalidRequest) -> InvalidRequest:
        """Return an error of a field with the name that the field has on the command line."""
        option = _OPTIONS.get(error.field, f"--{error.field.replace('_', '-')}")
        if option not in self._option_string_actions or not str(error).startswith(f"{error.field}:"):
            return error
        text = f"{option}{str(error).removeprefix(error.field)}"
        return type(error)(text, option, error.given, error.allowed)

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """Say which arguments are none of this command, and end with code 2."""
        named = [word.partition("=")[0] for word in words if word.startswith("-")]
        if not named:
            self.error(f"too many arguments: {shlex.join(words)}")
        meant = _meant(named[0], self._option_string_actions)
        self.error(f"there is no option {named[0]}{meant or self.of_no_option}")


def _meant(given: str, known: Iterable[str]) -> str:
    import difflib  # only here: a command line without mistakes does without it

    near = difflib.get_close_matches(given, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


_SENTENCES = (
    (re.compile(r"the following arguments are required: (.+)"), "{listed} missing"),
    (re.compile(r"one of the arguments (.+) is required"), "one of {0} is missing"),
    (re.compile(r"argument ([^:]+): expected (?:one|at least one) argument"), "{0} needs a value"),
    (
        re.compile(r"argument ([^:]+): ignored explicit argument (.+)"),
        "{0} takes no value, and {1} was given",
    ),
    (re.compile(r"argument ([^:]+): not allowed with argument (.+)"), "{0} and {1} exclude each other"),
)
"""Messages of argparse, and how this program says them."""


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"


def text(given: str) -> str:
    """Type of options that are no paths: what was typed, also where the locale is another than that of the
    terminal. What is no UTF-8 becomes a replacement character."""
    return given if given.isascii() else os.fsencode(given).decode("utf-8", "replace")


_OPTIONS = {"index": "--image", "job_id": "--job"}
"""Field of a request -> option, where that is not its name."""
_CHOICE = re.compile(r"argument (.+?): invalid choice: (.+?) \(choose from (.+)\)$")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Lines of examples stay as they are, and every default is shown."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        shown = action.default not in (None, False, "", argparse.SUPPRESS) and action.option_strings
        if not shown or "(default" in text or text == argparse.SUPPRESS:
            return text
        return f"{text} (default: %(default)s)".lstrip()


def command(subparsers: Subparsers, name: str, help: str, examples: str) -> Parser:  # noqa: A002
    """Return a new parser of a command; `examples` are lines shown as they are."""
    return subparsers.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines()),
        formatter_class=_Help,
        allow_abbrev=False,
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes."""
    group = parser.add_argument_group("which farm")
    for name, text in COMMON.items():
        _add(group, name, text)
    group.add_argument("--config", metavar="FILE", help="settings file instead of ./luna-farm.toml")


def add_settings(group: argparse._ArgumentGroup, names: Iterable[str]) -> None:
    """Add an option for each named setting."""
    for name in names:
        _add(group, name, f"{config_settings.BY_NAME[name].help} ({config_settings.BY_NAME[name].allowed})")


def _add(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    setting = config_settings.BY_NAME[name]
    text += f" (default: {_default(setting)})"
    given: dict[str, Any] = {"dest": _PREFIX + name, "metavar": setting.key.upper()}
    if isinstance(setting.default, bool):
        given |= {"nargs": "?", "const": "true"}  # --durable alone means yes
    if isinstance(setting.default, tuple):
        given["action"] = _MoreOf
    group.add_argument(setting.option, help=text.replace("%", "%%"), **given)


class _MoreOf(argparse.Action):
    """An option with a list may be given several times."""

    def __call__(self, _: object, found: argparse.Namespace, value: Any, option: str | None = None) -> None:
        before = getattr(found, self.dest, None)
        setting = config_settings.BY_NAME[self.dest.removeprefix(_PREFIX)]
        between = os.pathsep if setting.reader is config_values.paths else ","
        setattr(found, self.dest, value if before is None else f"{before}{between}{value}")


def save_option(group: argparse._ArgumentGroup, option: Option) -> None:
    """Add an option of `luna-farm save` for one row of the table of save options."""
    kind = option.kind
    given: dict[str, Any] = {"default": option.default, "help": option.help.replace("%", "%%")}
    if option.of_farm:
        given["help"] += " (default: the farm's)"
    if isinstance(kind, fields.Flag):
        given["action"] = argparse.BooleanOptionalAction
    elif isinstance(kind, fields.Choice):
        given["choices"] = kind.values
    elif isinstance(kind, fields.Whole):
        given |= {"type": whole(kind.low, kind.high), "metavar": f"{kind.low}..{kind.high}"}
    elif isinstance(kind, fields.Number):
        given |= {"type": number(kind.low, kind.high), "metavar": f"{_plain(kind.low)}..{_plain(kind.high)}"}
    else:
        given |= {"type": text, "metavar": option.name.upper()}
    group.add_argument("--" + option.name.replace("_", "-"), **given)


def _default(setting: config_settings.Setting) -> str:
    """Return the default of a setting as people write it."""
    value = setting.default
    if setting.name == "state_dir":
        return "the platform's folder for it"
    if isinstance(value, bool):
        return str(value).lower()
    if value in (None, "", ()):
        return "none"
    if isinstance(value, tuple):
        return ",".join(value)
    return "automatic" if setting.name == "arena_bytes" else f"{value:g}" if _is_number(value) else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, float)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a type of options: a whole number from `low` to `high`; another one is wrong usage."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: {low} to {high}")
        return value

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a type of options: a number from `low` to `high`; another one is wrong usage."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text} is not allowed; allowed: {_plain(low)} to {_plain(high)}"
            )
        return value

    return read


def _plain(value: float) -> str:
    """Return a number as people write it: 31536000, not 3.1536e+07."""
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


SECONDS = number(0.0, 31_536_000.0)
"""Type of a --timeout: up to a year."""


def given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the command line gave, as `config.load` takes them."""
    found = {
        name.removeprefix(_PREFIX): value for name, value in vars(args).items() if name.startswith(_PREFIX)
    }
    return {name: value for name, value in found.items() if value is not None}
