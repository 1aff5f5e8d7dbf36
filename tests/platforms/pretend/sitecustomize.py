"""Makes this Linux answer like Windows or macOS in every process of a farm, by LUNA_FARM_TEST_PRETEND.

Python runs a module of this name at each start, so supervisor and workers are covered. The fakes come in
when luna_farm is first imported: the standard library has chosen its own implementations for Linux by then.
"""

from __future__ import annotations

import os
import sys

_platform = os.environ.get("LUNA_FARM_TEST_PRETEND")
_PACKAGES = ("luna_farm", "luna_farm_client", "luna_farm_nodes")


class _AtFirstImport:
    """Applies the fakes when a package of the project is looked for, and finds nothing itself."""

    def find_spec(self, name, path=None, target=None):
        if name in _PACKAGES and self in sys.meta_path:
            sys.meta_path.remove(self)
            import fakes

            fakes.apply(_platform)


if _platform:
    sys.meta_path.insert(0, _AtFirstImport())
