"""Breaks one thing in every process of a farm that a test starts with LUNA_FARM_TEST_MUTATION.

Python runs a module of this name at each start, so that spawned workers are broken as well and nothing of it
is in the code that ships.
"""

from __future__ import annotations

import os

_name = os.environ.get("LUNA_FARM_TEST_MUTATION")
if _name:
    import mutations

    mutations.apply(_name)
