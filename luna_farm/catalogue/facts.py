"""From the texts of an image file to the fields of its row: one way for images that are being saved and for
files that are found. It must never raise for what a file holds, and reads nothing but what is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from luna_farm.catalogue import parameters
from luna_farm.core import generation
from luna_farm.imaging import metadata_a1111
from luna_farm.imaging.metadata import Embedded

KEYS = frozenset(
    {
        "parameters",
        "prompt",
        "custom_metadata",
        "image_type",
        "model_name",
        "save_timestamp",
        "generation_metadata",
    }
)
_MOST_CUSTOM = 4096
"""Characters of custom metadata that a row keeps."""


def of_embedded(embedded: Embedded) -> dict[str, Any]:
    """Return the fields of a row from what is being written into a file: without secrets, and nothing if
    nothing is written."""
    texts = {item.key: item.text for item in embedded.fields}
    if embedded.parameters:
        texts["parameters"] = embedded.parameters
    return of_texts(texts)


def of_texts(texts: Mapping[str, str], width: int = 0, height: int = 0) -> dict[str, Any]:
    """Return the fields of a row from the texts of a file, by their keywords (`parameters`, `prompt`,
    `custom_metadata`, `image_type`, `model_name`, `save_timestamp`). width, height: of the image in
    pixels."""
    affix = texts.get("image_type", "")
    text = texts.get("parameters", "") or _of_graph(texts.get("prompt", ""), affix, width, height)
    found: dict[str, Any] = parameters.read(text) if text else {}
    model = parameters.bare(texts.get("model_name", ""))
    if model and not found.get("model"):
        found["model"] = model
    if affix:
        found["affix"] = affix
    custom = texts.get("custom_metadata", "")
    if custom:
        found["custom"] = _readable(custom)[:_MOST_CUSTOM]
    submitted = moment(texts.get("save_timestamp", ""))
    if submitted is not None:
        found["submitted_at"] = submitted
    return found


def as_texts(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the known keys of a JSON object as texts."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in found.items()
        if key in KEYS
    }


def _of_graph(prompt: str, affix: str, width: int, height: int) -> str:
    """Return the A1111 text of a ComfyUI prompt: of a file that holds nothing else."""
    try:
        nodes = json.loads(prompt) if prompt else None
    except (ValueError, RecursionError):
        return ""
    if not isinstance(nodes, dict):
        return ""
    try:
        read = generation.read(nodes, affix)
    except RecursionError:
        return ""
    return metadata_a1111.text({}, model=read.model, width=width, height=height, generation=read)


def _readable(text: str) -> str:
    r"""Return JSON with its characters as they are: as \uXXXX no word of them would be found."""
    try:
        return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def moment(text: str) -> float | None:
    """Return an ISO 8601 date and time as seconds since 1970, None for what is none."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
