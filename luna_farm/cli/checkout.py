"""Lets `python -m luna_farm` work in a clone that nothing was installed of, as ComfyUI-Manager makes them.

There the packages lie beside this one under other names. It must never come before an installed package.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"luna_farm_client": "client", "luna_farm_nodes": "comfy_nodes"}


class CheckoutFinder:
    """Finds the packages of this checkout by their import names."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a package is; None for everything that is not this checkout's."""
        if path is not None or name not in FOLDERS:
            return None
        folder = ROOT / FOLDERS[name]
        if not (folder / "__init__.py").is_file():
            return None
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


def find_packages() -> None:
    """Make them importable, after everything that is installed."""
    if CheckoutFinder not in sys.meta_path:
        sys.meta_path.append(CheckoutFinder)
