"""What comes in on the METADATA socket, as a map: other packages hand over objects of their own.

It must never raise, for metadata never costs an image; and never leave something out silently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

MAX_DEPTH = 8
ALIASES = {"modelname": "model_name", "scheduler_name": "scheduler"}
"""Attribute of ComfyUI-Image-Saver's Metadata -> our name."""


class Facts(dict[str, Any]):
    """Generation parameters that other packages may read as attributes, as they read Image Saver's."""

    def __getattr__(self, name: str) -> Any:
        for key in (ALIASES.get(name, name), name):
            if key in self:
                return self[key]
        raise AttributeError(f"{name} is not filled in")


def json_map(given: Any, name: str) -> dict[str, Any]:
    """Return a map that came as such or as JSON text; empty for nothing. Raises ValueError for other JSON."""
    found = given
    if isinstance(given, str) and given.strip():
        try:
            found = json.loads(given)
        except ValueError:
            found = given
    if found and not isinstance(found, Mapping):
        raise ValueError(f'{name}: {str(given)[:80]!r} is no JSON object. Write one, like {{"steps": 20}}.')
    return dict(found or {})


def not_json(text: Any, name: str) -> str:
    """Return a warning where a text is no JSON, else "". The farm keeps such a text as it is."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"{name}: not readable as JSON ({error}); it is kept as a text."
    return ""


def as_map(given: Any) -> tuple[Any, str]:
    """Return (a map, or JSON text as it came; a warning or "").

    Read are maps, texts, dataclasses (ComfyUI-Image-Saver), named tuples, pydantic models and plain objects.
    """
    if given is None or isinstance(given, str):
        return given or None, ""
    try:
        members = _members(given)
        if members is None:
            return None, f"metadata: a value of type {type(given).__name__} holds nothing that can be read."
        return {str(key): _plain(value, MAX_DEPTH) for key, value in members.items()}, ""
    except Exception as error:  # what a foreign object does may raise anything
        return None, f"metadata: a value of type {type(given).__name__} could not be read ({error})."


def _members(given: Any) -> Mapping[Any, Any] | None:
    if isinstance(given, Mapping):
        return given
    if is_dataclass(given) and not isinstance(given, type):
        return {field.name: getattr(given, field.name, None) for field in fields(given)}
    for method in ("_asdict", "model_dump"):
        if callable(getattr(given, method, None)):
            members: Mapping[Any, Any] = getattr(given, method)()
            return members
    members = getattr(given, "__dict__", {})
    public = {name: value for name, value in members.items() if not name.startswith("_")}
    return public or None


def _plain(value: Any, depth: int) -> Any:
    """Return what JSON can say of `value`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth == 0:
        return str(value)
    members = _members(value)
    if members is not None:
        return {str(key): _plain(one, depth - 1) for key, one in members.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(one, depth - 1) for one in value]
    return str(value)
