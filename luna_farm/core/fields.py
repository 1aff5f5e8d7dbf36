"""One field of a message at a time: is it what it must be? A value comes back, or one InvalidRequest.

Pure. Nothing is repaired silently.
"""

from __future__ import annotations

import binascii
import json
import ntpath
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from luna_farm.errors import InvalidRequest

TEXT_LIMIT = 4096
"""Characters of a path."""
NAME_LIMIT = 65_536
"""Characters of what names are made of; a name that is too long for a disk is cut, with a warning."""
TYPED_LIMIT = 2**20
"""Characters of JSON text that a person typed; it is parsed at once, so that they learn what is wrong."""
DOCUMENTS_LIMIT = 15 * 2**20
"""Characters of all JSON texts of a submit together, so that the frame of a submit holds them."""


class Kind:
    """What values an option takes. `allowed` says it in words."""

    @property
    def allowed(self) -> str:
        """The values in words, for messages, help and documents."""
        raise AssertionError("each kind says what it allows")

    def check(self, field: str, value: Any) -> Any:
        """Return the value, or raise InvalidRequest."""
        raise AssertionError("each kind checks its values")


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """A text without NUL and without lone surrogates. With `mended` these cost themselves, not the images: a
    NUL is left out, a lone surrogate (a byte of a file name that is no UTF-8) becomes a question mark."""

    limit: int = TEXT_LIMIT
    mended: bool = False

    @property
    def allowed(self) -> str:
        return f"a text of at most {self.limit} characters without NUL"

    def check(self, field: str, value: Any) -> str:
        if self.mended and isinstance(value, str):
            value = mended(value)
        if not isinstance(value, str) or len(value) > self.limit or "\0" in value:
            raise InvalidRequest.of(field, value, self.allowed)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidRequest.of(field, value, "a text without lone surrogates") from None
        return value


@dataclass(frozen=True, slots=True)
class Durations(Kind):
    """Whole milliseconds of each frame, as a list or as text. Kept as text: "100 100 400"."""

    longest: int = 65_535
    most: int = 10_000

    @property
    def allowed(self) -> str:
        return (
            f"1 to {self.longest} milliseconds for each frame, '100 100 400' or a list, at most {self.most}"
        )

    def check(self, field: str, value: Any) -> str:
        parts = _SPLIT.split(value.strip()) if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or len(parts) > self.most:
            raise InvalidRequest.of(field, value, self.allowed)
        for part in parts if value != "" else ():
            plain = part if isinstance(part, str) else str(part) if type(part) is int else ""
            if not _WHOLE.fullmatch(plain) or not 1 <= int(plain) <= self.longest:
                raise InvalidRequest.of(field, value, self.allowed)
        return " ".join(map(str, parts))


_SPLIT, _WHOLE = re.compile(r"[ ,]+"), re.compile(r"[0-9]{1,5}")


def mended(text: str) -> str:
    """Return a text without NUL, with a question mark for each lone surrogate."""
    if text.isascii():
        return text.replace("\0", "")
    return text.encode(errors="replace").decode().replace("\0", "")


@dataclass(frozen=True, slots=True)
class JsonText(Kind):
    """A text that holds JSON, or ""; of a map, if `of_map`."""

    of_map: bool = False

    @property
    def allowed(self) -> str:
        return "JSON text of a map" if self.of_map else "JSON text"

    def check(self, field: str, value: Any) -> str:
        text = Text(TYPED_LIMIT).check(field, value)
        if not text.strip():
            return ""
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest.of(field, text, f"JSON text ({error})") from None
        if self.of_map and not isinstance(parsed, dict):
            raise InvalidRequest.of(field, text, self.allowed)
        return text


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of some words."""

    values: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return " | ".join(self.values)

    def check(self, field: str, value: Any) -> str:
        if value not in self.values:
            raise InvalidRequest.of(field, value, self.allowed)
        return str(value)


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number in a range; bool is none."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def check(self, field: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise InvalidRequest.of(field, value, self.allowed)
        return value


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A number in a range, not NaN."""

    low: float
    high: float

    @property
    def allowed(self) -> str:
        return f"a number from {self.low} to {self.high}"

    def check(self, field: str, value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:
            raise InvalidRequest.of(field, value, self.allowed)
        return float(value)


@dataclass(frozen=True, slots=True)
class Flag(Kind):
    """True or false."""

    @property
    def allowed(self) -> str:
        return "true or false"

    def check(self, field: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidRequest.of(field, value, self.allowed)
        return value


@dataclass(frozen=True, slots=True)
class Colour(Kind):
    """A colour as #rrggbb."""

    @property
    def allowed(self) -> str:
        return "a colour as #rrggbb"

    def check(self, field: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch("#[0-9a-fA-F]{6}", value):
            raise InvalidRequest.of(field, value, self.allowed)
        return value.lower()


@dataclass(frozen=True, slots=True)
class Base64(Kind):
    """Bytes as base64 text, so that JSON holds them."""

    limit: int = 2**20

    @property
    def allowed(self) -> str:
        return f"base64 of at most {self.limit} bytes"

    def check(self, field: str, value: Any) -> str:
        text = Text(-(-self.limit // 3) * 4).check(field, value)
        try:
            binascii.a2b_base64(text, strict_mode=True) if text else None
        except ValueError:
            raise InvalidRequest.of(field, value, self.allowed) from None
        return text


# --- fields that are no options


# Making a frozen dataclass costs more than what it checks.
_text, _choice, _whole, _number, _flag = (
    lru_cache(maxsize=64)(Text),
    lru_cache(maxsize=64)(Choice),
    lru_cache(maxsize=64)(Whole),
    lru_cache(maxsize=64)(Number),
    lru_cache(maxsize=1)(Flag),
)


def text(given: Mapping[str, Any], field: str, default: str = "", limit: int = TEXT_LIMIT) -> str:
    """Return a text field without NUL and without lone surrogates, at most `limit` characters."""
    value = given.get(field, default)
    return default if value is None else _text(limit).check(field, value)


_AFFIX = Text(NAME_LIMIT, mended=True)


def affix(value: object) -> str:
    """Return the affix of an image, "" for None. Raises InvalidRequest."""
    return "" if value is None else _AFFIX.check("affix", value)


def choice(given: Mapping[str, Any], field: str, allowed: tuple[str, ...], default: str) -> str:
    """Return one of `allowed`."""
    return _choice(allowed).check(field, given.get(field, default))


def integer(given: Mapping[str, Any], field: str, low: int, high: int, default: int | None = None) -> int:
    """Return a whole number from `low` to `high`; bool is not one."""
    return _whole(low, high).check(field, given.get(field, default))


def boolean(given: Mapping[str, Any], field: str, default: bool) -> bool:
    """Return true or false."""
    return _flag().check(field, given.get(field, default))


def number(given: Mapping[str, Any], field: str, low: float, high: float, default: float) -> float:
    """Return a number from `low` to `high`, not NaN."""
    return _number(low, high).check(field, given.get(field, default))


def absolute(given: Mapping[str, Any], field: str) -> str:
    """Return an absolute path, in the form of the platform or of the other one."""
    value = text(given, field)
    if not (posixpath.isabs(value) or (ntpath.isabs(value) and ntpath.splitdrive(value)[0])):
        raise InvalidRequest.of(field, value, "an absolute path (the client makes it absolute)")
    return value


def moment(given: Mapping[str, Any], field: str) -> str:
    """Return an ISO 8601 date and time."""
    value = text(given, field, limit=64)
    try:
        datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise InvalidRequest.of(field, value, "an ISO 8601 date and time") from None
    return value
