"""The packages of this checkout, for scripts that run in any Python with nothing of it installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def find_packages() -> None:
    """Make luna_farm and luna_farm_client importable, as ComfyUI does with a clone."""
    spec = importlib.util.spec_from_file_location("luna_farm_clone", ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
