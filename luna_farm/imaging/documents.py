"""The JSON texts of a job, read once for all of its images: checked, free of NaN, in ASCII, without secrets.

This module must never raise for what a text holds: what cannot be used is left out with a warning.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from luna_farm.core import generation
from luna_farm.core.generation_models import Generation
from luna_farm.core.prompt import MODELS, Documents, without_unknown
from luna_farm.core.scrubber import Scrubber
from luna_farm.core.secret_shapes import mask
from luna_farm.core.secrets import MASK

_MOST_KEYS = 200  # of extra_pnginfo: each takes a tag of EXIF, and there are 271 below ComfyUI's first
_DEEPEST = 150  # levels of brackets: what walks the values stays far from Python's recursion limit


class Item(NamedTuple):
    """One thing to write: its name, its text, and whether the text is JSON (then it is pure ASCII)."""

    key: str
    text: str
    is_json: bool


class Lasting(NamedTuple):
    """What is written into each image of one size and affix, in the order of the file. Between `fields` and
    `kept` stands what changes with each image."""

    graph: tuple[Item, ...]
    parameters: str
    fields: tuple[Item, ...]
    kept: tuple[Item, ...]
    gen_fields: tuple[Item, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the images of a job have in common. `prompt`: the nodes of the graph, without secrets."""

    graph: tuple[Item, ...]
    prompt: dict[str, Any]
    known: dict[str, Any]
    fields: tuple[Item, ...]
    gen_fields: tuple[Item, ...]
    warnings: tuple[str, ...]
    beside: tuple[Item, ...]
    read: dict[str, Generation]
    texts: dict[str, Item]
    """Kept of another file, by key."""
    lasting: dict[tuple[bool, str, str, int, int], Lasting]
    """By whether the graph is written, affix, model_name, width and height of an image."""

    def generation_of(self, affix: str) -> Generation:
        """Return what the graph says of the image with this affix."""
        if affix not in self.read:
            self.read[affix] = generation.read(self.prompt, affix)
        return self.read[affix]

    def model(self, read: Generation) -> str:
        """Return the model that came with the job, else that of the graph."""
        given = (self.known.get(name) for name in MODELS)
        return next((name for name in given if isinstance(name, str) and name.strip()), read.model)


@lru_cache(maxsize=4)
def read(
    prompt: str, extra_pnginfo: str, metadata: str, of_image: str, custom_metadata: str, texts: str
) -> Shared:
    """Read the documents that images have in common. `of_image`: metadata of the one image."""
    warnings: list[str] = []
    beside: list[Item] = []
    graph_prompt = _parse(prompt, "prompt", warnings, beside)
    extra = _parse(extra_pnginfo, "extra_pnginfo", warnings, beside, kind=dict)
    shared = Documents.of(_parse(metadata, "metadata", warnings, beside, kind=dict) or {})
    own = Documents.of(_parse(of_image, "metadata of the image", warnings, beside, kind=dict) or {})
    # A person typed it: a slip of the pen must cost neither the image nor the text.
    custom = _parse(custom_metadata, "custom_metadata", warnings, beside, as_text=True)
    facts = without_unknown(shared.parameters) | without_unknown(own.parameters)
    # Prompt and workflow of the image, else of the job, else what came with the parameters of the job.
    kept = Documents.of(_parse(texts, "texts", warnings, beside, kind=dict) or {})
    graph_prompt = own.prompt or graph_prompt or shared.prompt or kept.prompt or None
    workflow = own.workflow or (extra or {}).get("workflow") or shared.workflow or kept.workflow

    if workflow:
        extra = {**(extra or {}), "workflow": workflow}

    scrub = Scrubber()
    documents = {"prompt": graph_prompt, "extra_pnginfo": extra, "metadata": facts, "custom_metadata": custom}
    documents["texts"] = without_unknown(kept.parameters)
    clean = scrub.all(documents, "".join((prompt, extra_pnginfo, metadata, of_image, custom_metadata, texts)))
    graph_prompt, extra, facts, custom, kept_texts = clean.values()
    if scrub.count:
        more = (
            f" and {scrub.count - len(scrub.places)} more places" if scrub.count > len(scrub.places) else ""
        )
        warnings.append(
            f"metadata: what is a password, key or token was replaced by {MASK!r} in {scrub.count} "
            f"place{'s' if scrub.count > 1 else ''}: {', '.join(scrub.places)}{more}."
        )

    graph: list[Item] = []
    if graph_prompt is not None:
        graph.append(Item("prompt", to_json(graph_prompt), True))
    extra = extra or {}
    keys = sorted(extra, key=lambda key: key != "workflow")  # stable: the others keep their order
    if len(keys) > _MOST_KEYS:
        warnings.append(
            f"metadata: extra_pnginfo has {len(keys)} keys; the first {_MOST_KEYS} are in the image, "
            "the others in the .json beside it"
        )
        beside += [Item(key, to_json(extra[key]), True) for key in keys[_MOST_KEYS:]]
    for key in keys[:_MOST_KEYS]:
        if key == "prompt" and graph:
            warnings.append("metadata: extra_pnginfo has a key 'prompt' beside the prompt itself; left out")
        else:
            graph.append(Item(key, to_json(extra[key]), True))
    fields: list[Item] = []
    if facts:
        fields.append(Item("generation_metadata", to_json(facts), True))
    if custom_metadata and custom is not None:
        fields.append(Item("custom_metadata", to_json(custom), True))
    gen_fields = tuple(
        Item(f"gen_{key}", value if isinstance(value, str) else to_json(value), not isinstance(value, str))
        for key, value in facts.items()
    )
    nodes = graph_prompt if isinstance(graph_prompt, dict) else {}
    return Shared(
        tuple(graph),
        nodes,
        facts,
        tuple(fields),
        gen_fields,
        tuple(warnings),
        tuple(beside),
        {},
        {key: _kept(key, text) for key, text in kept_texts.items()},
        {},
    )


def _kept(key: str, value: Any) -> Item:
    """Return a text that is kept of another file; one that is a map or a list in JSON stays that."""
    if not isinstance(value, str):
        return Item(key, to_json(value), True)
    if value.startswith(("{", "[")):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return Item(key, value, False)
        return Item(key, value if value.isascii() else to_json(parsed), True)
    return Item(key, value, False)


def _parse(
    text: str,
    field: str,
    warnings: list[str],
    beside: list[Item],
    kind: type | None = None,
    as_text: bool = False,
) -> Any:
    """Parse JSON; NaN and the infinities, which are no JSON, become null. Else None, or the text itself with
    `as_text`, and a warning."""
    if not text.strip():
        return None
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError as error:
        kept = "it is kept as a text" if as_text else "left out"
        warnings.append(f"metadata: {field} is not readable as JSON ({error}); {kept}")
        return text if as_text else None
    except RecursionError:  # some thousand brackets deep
        shallow = False
    else:
        shallow = _shallow(value)
    if not shallow:
        warnings.append(
            f"metadata: {field} is nested deeper than {_DEEPEST} levels; it is in the .json beside the image"
        )
        beside.append(Item(field, mask(text)[0], False))  # too deep to be walked: a text
        return None
    if kind is not None and not isinstance(value, kind):
        warnings.append(
            f"metadata: {field} is a JSON {type(value).__name__}, a JSON object is needed; left out"
        )
        return None
    return value


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False


def to_json(value: Any) -> str:
    """Return compact JSON in pure ASCII; NaN and the infinities (1e999 parses to one) become null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
