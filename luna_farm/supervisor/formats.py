"""Which files cannot be written here because a package is missing. Looks for it without loading it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterable

from luna_farm.core.formats import TABLE
from luna_farm.core.needs import Need
from luna_farm.errors import InvalidRequest

_found: set[str] = set()
"""What is there, of what was looked for: that takes 0.2 ms, which no hand-over should wait for."""


def missing_formats() -> dict[str, str]:
    """Return format -> what to install for it. Looks anew each time: pip may have run meanwhile."""
    return {row.name: row.install for row in TABLE if row.module and not _is_there(row.module)}


def check(needs: Iterable[Need]) -> None:
    """Raise InvalidRequest for the first need that is not met, with what to install."""
    for need in needs:
        if not any(one in _found for one in need.any_of):
            there = [one for one in need.any_of if _is_there(one)]
            _found.update(there)
            if not there:
                raise _refused(need)


def _refused(need: Need) -> InvalidRequest:
    packages = " or ".join(need.any_of)
    allowed = f"what the farm can write, or {need.given} once that is installed: {need.install}"
    text = (
        f"{need.field}: {need.what} needs the Python package {packages}, which is not installed where the"
        f" farm runs; install it there with: {need.install}. Or choose another one."
    )
    return InvalidRequest(text, need.field, need.given, allowed)


def _is_there(needed: str) -> bool:
    package, versioned, least = needed.partition(">=")
    try:
        if not versioned:
            return importlib.util.find_spec(package) is not None
        return _numbers(importlib.metadata.version(package)) >= _numbers(least)
    except (ImportError, ValueError):  # PackageNotFoundError is an ImportError
        return False


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]
