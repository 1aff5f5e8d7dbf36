"""Formats whose library is missing."""

from __future__ import annotations

import importlib.util

import pytest

from luna_farm.core.formats import FORMATS
from luna_farm.supervisor.formats import missing_formats


def test_a_missing_library_is_found_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        if name == "OpenEXR":
            raise ValueError("OpenEXR.__spec__ is None")
        return None if name == "imagecodecs" else object()

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert missing_formats() == {name: FORMATS[name].install for name in ("jxl", "exr")}
