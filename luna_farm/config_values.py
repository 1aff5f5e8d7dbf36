"""How one value of a setting is read, whether it came as text (command line, environment) or typed (TOML).

A reader takes (value as given, folder that relative paths start from) and returns the value, or raises
ValueError: not allowed. It must never ask the machine anything but the home folder: the same text always
means the same.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Reader = Callable[[Any, Path], T]

FEED_OFF = -1
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20}
_UNITS |= {"gi": 2**30, "ti": 2**40}
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


def whole(low: int, high: int, *, off: bool = False) -> Reader[int]:
    """Read a whole number from `low` to `high`; with `off` also the word off, which becomes -1."""

    def read(value: Any, _: Path) -> int:
        if off and value in ("off", FEED_OFF, str(FEED_OFF)):
            return FEED_OFF
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(value)
        number = int(value)
        if not low <= number <= high:
            raise ValueError(value)
        return number

    return read


def size(low: int, *, automatic: bool = False) -> Reader[int]:
    """Read bytes as a number or as text like `64MiB`, at least `low`; with `automatic` also 0."""

    def read(value: Any, _: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(value)
        number = parse_size(value) if isinstance(value, str) else value
        if not (low <= number <= 2**50 or (automatic and number == 0)):
            raise ValueError(value)
        return number

    return read


def parse_size(text: str) -> int:
    """Return the bytes that a size such as `64MiB`, `1.5 GB` or `4096` means. Raises ValueError otherwise."""
    lowered = text.strip().lower().removesuffix("b")
    digits = lowered.rstrip("kmgti").rstrip()
    unit = lowered[len(digits) :].strip()
    if unit not in _UNITS or not digits.replace(".", "", 1).isdecimal():
        raise ValueError(text)
    return int(float(digits) * _UNITS[unit]) if "." in digits else int(digits) * _UNITS[unit]


def seconds(low: float, high: float) -> Reader[float]:
    """Read a finite number of seconds from `low` to `high`."""

    def read(value: Any, _: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(value)
        number = float(value)
        if not math.isfinite(number) or not low <= number <= high:
            raise ValueError(value)
        return number

    return read


def switch(value: Any, _: Path) -> bool:
    """Read true or false, or the words that people write for them in environments."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in _WORDS:
        raise ValueError(value)
    return _WORDS[value.lower()]


def one_of(*choices: str) -> Reader[str]:
    """Read one of the given lower-case words, in any case."""

    def read(value: Any, _: Path) -> str:
        if not isinstance(value, str) or value.lower() not in choices:
            raise ValueError(value)
        return value.lower()

    return read


def some_of(*choices: str) -> Reader[tuple[str, ...]]:
    """Read a list of some of the given lower-case words, or text with commas between them."""

    def read(value: Any, _: Path) -> tuple[str, ...]:
        named = {part.strip().lower() for part in _listed(value, ",")}
        if not named <= set(choices):
            raise ValueError(value)
        return tuple(choice for choice in choices if choice in named)

    return read


def text(value: Any, _: Path) -> str:
    """Read printable text without space around it."""
    if not isinstance(value, str) or not value.isprintable() or value != value.strip():
        raise ValueError(value)
    return value


def host(value: Any, folder: Path) -> str:
    """Read a host name or an address; a port, a user or a scheme in it is refused."""
    name = text(value, folder)
    if not name or (any(character in name for character in " /:@") and not is_address(name)):
        raise ValueError(value)
    return name


def is_address(name: str) -> bool:
    """Return whether `name` is an IP address as opposed to a host name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def path(value: Any, folder: Path) -> Path:
    """Read a path without space around it, expand `~`, and make it absolute from `folder`."""
    given = str(value) if isinstance(value, Path) else value.strip() if isinstance(value, str) else value
    if not isinstance(given, str) or not given or not given.isprintable():
        raise ValueError(value)
    if _URL.match(given) or (given[0] in "\"'" and given[-1] == given[0]):  # SET on Windows keeps the quotes
        raise ValueError(value)
    # normpath, not resolve: a link that the user chose as their folder stays a link.
    return Path(os.path.normpath(folder / Path(given).expanduser()))


def path_or_none(value: Any, folder: Path) -> Path | None:
    """Read a path as `path` does, or nothing."""
    return None if value in ("", None) else path(value, folder)


def paths(value: Any, folder: Path) -> tuple[Path, ...]:
    """Read a list of paths, or text with the platform's path separator between them. Text with another
    separator between absolute paths is refused: as one path it would be a wrong folder."""
    parts = _listed(value, os.pathsep)
    if isinstance(value, str) and (
        _URL.search(value) or any(_SEVERAL.search(part.strip()) for part in parts)
    ):
        raise ValueError(value)
    return tuple(path(part, folder) for part in parts)


def _listed(value: Any, separator: str) -> list[str]:
    """Return the parts of a list, of JSON text of one, or of text with a separator between them."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            value = json.loads(text)
        else:
            parts = [part for part in value.split(separator) if part.strip()]
            if value and not parts:  # an empty list may mean that all is allowed
                raise ValueError(value)
            return parts
    if not isinstance(value, list | tuple) or not all(isinstance(part, str | Path) for part in value):
        raise ValueError(value)
    return [str(part) for part in value]


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SEVERAL = re.compile(
    r"[,;:\s]\s*[A-Za-z]:[/\\]|[,;\s]\s*~?[/\\]|[\[\]{}]\s*[\"']|[\"']\s*[\[\]{}]"
    + (r"|^\s*\\" if os.sep == "/" else "")
)
"""What no single path holds: another separator in front of an absolute path, or half a list."""
