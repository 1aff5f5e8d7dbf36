"""Maps of a caller as the JSON text that goes over the wire."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from luna_farm.errors import InvalidRequest
from luna_farm_client.requests import Json

_encode = json.JSONEncoder(allow_nan=False, default=str).encode


def json_text(name: str, value: Json) -> str:
    """Return a map as JSON text: ASCII, and never NaN, which no reader of the files takes (it becomes
    null). Objects with fields, such as the METADATA of ComfyUI-Image-Saver, count as maps.

    Raises InvalidRequest for a map that holds itself, or keys that JSON has not.
    """
    if value is None or isinstance(value, str):
        return value or ""
    value = _fields(value)
    try:
        try:
            return _encode(value)
        except ValueError:
            return _encode(_finite(value))
        except RecursionError:
            return "".join(_pieces(value))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest.of(name, value, f"a map that JSON can hold ({error})") from None


def _pieces(value: Any) -> Iterator[str]:
    """Write JSON without recursion, for values that are nested thousands of levels deep. Raises ValueError
    for one that holds itself."""
    ends: list[tuple[Iterator[Any], str, int]] = []
    holding: set[int] = set()
    between = ""
    while True:
        if isinstance(value, Mapping | list | tuple):
            if id(value) in holding:
                raise ValueError("Circular reference detected")
            holding.add(id(value))
            is_map = isinstance(value, Mapping)
            yield between + ("{" if is_map else "[")
            inside: Iterable[Any] = value.items() if isinstance(value, Mapping) else value
            ends.append((iter(inside), "}" if is_map else "]", id(value)))
            between = ""
        else:
            yield between + _encode(_finite(value))
            between = ","
        while ends:
            inner, end, held = ends[-1]
            found = next(inner, ends)
            if found is not ends:
                break
            ends.pop()
            holding.discard(held)
            yield end
            between = ","
        if not ends:
            return
        value = found
        if end == "}":
            key, value = found
            yield f"{between}{json.dumps(str(key))}:"
            between = ""


def _fields(value: Any) -> Any:
    """Return the fields of an object as a map: of a dataclass, a named tuple, a pydantic model, any other."""
    if isinstance(value, Mapping) or (isinstance(value, list | tuple) and not hasattr(value, "_asdict")):
        return value
    for read in ("_asdict", "model_dump"):
        if callable(getattr(value, read, None)):
            return getattr(value, read)()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if hasattr(value, "__dict__"):
        return {name: part for name, part in vars(value).items() if not name.startswith("_")}
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
