"""Which formats cannot be written here because their library is missing. Looks for it without loading it."""

from __future__ import annotations

import importlib.util

from luna_farm.core.formats import TABLE


def missing_formats() -> dict[str, str]:
    """Return format -> what to install for it. Looks anew each time: pip may have run meanwhile."""
    return {row.name: row.install for row in TABLE if row.module and not _is_there(row.module)}


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
