"""Presets: settings of all formats by intent. Measured by `scripts/bench codecs`; docs/formats.md has the
figures. A preset fills in what a request leaves at its default, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "fast": {
        "png_compression": 1,
        "lossy_quality": 85,
        "webp_method": 0,
        "avif_speed": 10,
        "jxl_effort": 1,
    },
    "balanced": {},
    "small": {
        "png_compression": 9,
        "lossy_quality": 80,
        "webp_method": 6,
        "avif_speed": 6,
        "jxl_effort": 7,
    },
    "archive": {
        "png_compression": 6,
        "lossy_quality": 100,
        "lossless_webp": True,
        "exr_compression": "zip",
    },
    "web": {
        "png_compression": 6,
        "lossy_quality": 82,
        "webp_method": 4,
        "avif_speed": 7,
        "jxl_effort": 5,
    },
}
NAMES = tuple(PRESETS)


def filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a request gives, with those of its `preset` for what it leaves out."""
    preset = given.get("preset")
    return {**(PRESETS.get(preset, {}) if isinstance(preset, str) else {}), **given}
