"""What ComfyUI loads when this repository itself was cloned into custom_nodes/.

The nodes are in comfy_nodes/; here they are only passed on. In a clone the packages of the farm need no
installation: the finder below knows their folders. It is asked last, so an installed luna-farm goes
first. Must never import more than that.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

FOLDERS = {"luna_farm": "luna_farm", "luna_farm_client": "client"}


class CloneFinder:
    """Finds the packages of this clone by their import names."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a package is; None for everything that is not this clone's."""
        if path is not None or name not in FOLDERS:
            return None
        folder = Path(__file__).resolve().parent / FOLDERS[name]
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


if __package__:  # loaded as a package, as ComfyUI does
    sys.meta_path.append(CloneFinder)
    from .comfy_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    WEB_DIRECTORY = "./comfy_nodes/web"

    __all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
