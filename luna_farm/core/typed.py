"""Whether the fields of a dataclass hold what their annotations say, for records that another version, or
damage, may have written.

Pure. Records from a disk pass here before anything acts on them; messages of this version's own processes
need not.
"""

from __future__ import annotations

import types
from collections.abc import Hashable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def typed(message: T) -> T:
    """Return a dataclass as it is. Raises TypeError, with the name of the field, for a value of another type
    than its annotation; whole numbers pass for floats, lists for tuples."""
    for name, hint, plain in _hints(cast(Hashable, type(message))):
        value = getattr(message, name)
        if type(value) is not plain and not fits(value, hint):
            raise TypeError(f"{type(message).__name__}.{name} is {type(value).__name__}, not {hint}")
    return message


@cache
def _hints(kind: Hashable) -> tuple[tuple[str, Any, Any], ...]:
    """Return name and annotation of each field, and the class that is enough to look at, if there is one."""
    hints = get_type_hints(cast(Any, kind))
    plain = (str, int, bool, float, bytes)
    return tuple(
        (row.name, hints[row.name], hints[row.name] if hints[row.name] in plain else None)
        for row in fields(cast(Any, kind))
    )


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the annotated type."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in (tuple, list):
        return isinstance(value, (tuple, list)) and all(fits(one, inner[0]) for one in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, inner[0]) and fits(one, inner[1]) for key, one in value.items()
        )
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, origin or hint)
