"""Presets: rows of known settings that fill in what a request leaves at its default."""

from __future__ import annotations

from typing import Any

import pytest

from luna_farm import config
from luna_farm.core import presets, schema
from luna_farm.errors import InvalidRequest


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_holds_allowed_settings_only(name: str) -> None:
    judged = schema.settings({"output_dir": "/", **presets.PRESETS[name]})
    assert {field: judged[field] for field in presets.PRESETS[name]} == presets.PRESETS[name]


def test_what_was_chosen_wins() -> None:
    judged = schema.settings({"output_dir": "/", "preset": "small", "lossy_quality": 77})
    assert (judged["png_compression"], judged["lossy_quality"], judged["avif_speed"]) == (9, 77, 6)
    assert "png_compression" not in schema.settings({"output_dir": "/", "preset": "balanced"})


@pytest.mark.parametrize("wrong", ["smallest", 5, ["small"]])
def test_a_preset_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="fast"):
        schema.settings({"output_dir": "/", "preset": wrong})


def test_the_setting_of_the_farm_takes_every_preset() -> None:
    for name in presets.NAMES:
        assert config.load({"preset": name}, {}, None).preset == name


def test_the_farm_may_be_configured_with_a_preset() -> None:
    given = {"timestamp": "2026-01-02T03:04:05", "output_dir": "/out"}
    for request, level in (({}, 1), ({"preset": "balanced"}, 4), ({"png_compression": 7}, 7)):
        options = schema.options({**given, **request}, {"preset": "fast"})
        assert options.png_compression == level
    assert schema.options(given, {}).preset == "balanced"
