"""Maps of a caller as the JSON text that goes over the wire."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from luna_farm.errors import InvalidRequest
from luna_farm_client.requests import Json


def json_text(name: str, value: Json) -> str:
    """Return a map as JSON text: ASCII, and never NaN, which no reader of the files takes (it becomes
    null). Objects with fields, such as the METADATA of ComfyUI-Image-Saver, count as maps."""
    if value is None or isinstance(value, str):
        return value or ""
    value = _fields(value)
    try:
        try:
            return json.dumps(value, allow_nan=False, default=str)
        except ValueError:
            return json.dumps(_finite(value), allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest.of(name, value, f"a map that JSON can hold ({error})") from None


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
