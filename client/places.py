"""Where the files of a request go and what they are read from: folders, files and URLs for the farm."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from luna_farm.core import batches
from luna_farm.core import fields as checks
from luna_farm.core.options import OPTIONS
from luna_farm.errors import InvalidRequest
from luna_farm.locations import check_folder, is_url, parse
from luna_farm_client.requests import SaveRequest


def places(request: SaveRequest) -> dict[str, Any]:
    """Return the folders, files and URLs of a request, paths absolute. Raises InvalidRequest."""
    given: dict[str, Any] = {}
    if request.output_dir is not None:
        given["output_dir"] = _place("output_dir", request.output_dir)
    if request.mirrors:
        given["mirrors"] = _mirrors(request.mirrors)
    if request.model_dirs:
        given["model_dirs"] = _model_dirs(request.model_dirs)
    if request.ingredient:
        given["ingredient"] = _path("ingredient", request.ingredient)
    return given


def _model_dirs(given: Any) -> str:
    if isinstance(given, str):
        return _checked_dirs(given)
    folders = tuple(given)
    try:
        return _absolute_dirs(folders)
    except (TypeError, ValueError):
        return _joined(folders)


@lru_cache(maxsize=batches.KEPT_SETTINGS)
def _absolute_dirs(folders: tuple[Any, ...]) -> str:
    """As `_joined`; mostly they are those of the request before. Raises ValueError if one is relative: what
    that means may change."""
    if not all(map(os.path.isabs, folders)):
        raise ValueError
    return _joined(folders)


def _joined(folders: tuple[Any, ...]) -> str:
    return _checked_dirs("\n".join(_path("model_dirs", folder) for folder in folders))


def _checked_dirs(text: str) -> str:
    return str(OPTIONS["model_dirs"].kind.check("model_dirs", text))


def _path(field: str, given: Any) -> str:
    if not isinstance(given, str | os.PathLike):
        raise InvalidRequest.of(field, given, "a path as text or os.PathLike")
    path = os.fspath(given)
    return _absolute(field, path) if os.path.isabs(path) else _absolute.__wrapped__(field, path)


@lru_cache(maxsize=batches.KEPT_SETTINGS)
def _absolute(field: str, path: str) -> str:
    checks.text({field: path}, field)
    check_folder(field, path)
    return os.path.abspath(os.path.expanduser(path))


def _place(field: str, given: Any) -> str:
    """Return a place as the farm takes it: a URL as it is, a folder absolute."""
    return _url(field, given) or _path(field, given) if isinstance(given, str) else _path(field, given)


@lru_cache(maxsize=batches.KEPT_SETTINGS)
def _url(field: str, given: str) -> str:
    """Return a URL as the farm takes it, "" for a path."""
    return parse(field, given).url if is_url(given) else ""


def _mirrors(given: Any) -> list[str]:
    if isinstance(given, str | os.PathLike) or not isinstance(given, Sequence):
        raise InvalidRequest.of("mirrors", given, "a list of folders and URLs")
    return [_place("mirrors", place) for place in given]
