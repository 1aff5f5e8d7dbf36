"""Presets: rows of known settings that fill in what a request leaves at its default."""

from __future__ import annotations

from typing import Any

import pytest

from luna_farm.core import presets, schema

DEFAULTS: dict[str, Any] = {"png_compression": 4, "lossy_quality": 90, "avif_speed": 8}


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_holds_allowed_settings_only(name: str) -> None:
    judged = schema.settings({"output_dir": "/", **presets.PRESETS[name]})
    assert {field: judged[field] for field in presets.PRESETS[name]} == presets.PRESETS[name]


def test_what_was_chosen_wins() -> None:
    chosen = {**DEFAULTS, "lossy_quality": 77}
    filled = presets.filled(chosen, "small", {**DEFAULTS, "webp_method": 2, "jxl_effort": 3})
    assert (filled["png_compression"], filled["lossy_quality"], filled["avif_speed"]) == (9, 77, 6)
    assert presets.filled(chosen, "balanced", DEFAULTS) == chosen
