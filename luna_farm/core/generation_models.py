"""Models and LoRAs of a prompt graph, and the record of what was read.

The way goes from a sampler along its `model` inputs to the loader; what adds LoRAs lies on it. Pure, as
`generation.py` has it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from luna_farm.core.graph import PIPES, Graph, Link

_MODEL_NAMES = (
    "ckpt_name",
    "unet_name",
    "gguf_name",
    "base_ckpt_name",
    "model_name",
    "diffusion_model",
    "checkpoint",
)
_MODEL_FILES = ("model_path", "model")
"""Inputs that name a model where they hold the name of a file: the second is a link in most nodes."""
_MODEL_LINKS = ("model", "model1", "base_model", "unet", "model_high", *PIPES)
_STACKS = ("lora_stack", "optional_lora_stack", "prev_lora", "lora", "loras")
_COUNTS = ("lora_count", "num_loras")
_STRENGTHS = ("strength_model", "strength", "lora_model_strength", "lora_strength")
LORA_TEXT = re.compile(r"<(?:lora|lyco):([^:<>]{1,200}):?(-?[\d.]{0,8})[^<>]{0,40}>")
"""How a LoRA is named in a text."""
MODEL_FILE = re.compile(r"\.(?:safetensors|ckpt|pth?|bin|gguf|sft)$", re.IGNORECASE)
_MAX_LORAS = 64
_MAX_STACKS = 16


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA as the graph names it, with folders and extension, and its strength on the model."""

    name: str
    strength: float


@dataclass(slots=True)
class Generation:
    """What is known. `values`: parameters under ComfyUI's names; a name that is not there is not known."""

    values: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    """The name of the checkpoint or diffusion model, as the graph has it."""
    loras: list[Lora] = field(default_factory=list)
    embeddings: list[str] = field(default_factory=list)


def read_model(graph: Graph, key: str, found: Generation) -> None:
    """Walk from a sampler or guider to its model; the LoRAs are on the way, the last one first."""
    seen: set[str] = set()
    loras: list[Lora] = []
    link: Link | None = Link(key, 0)  # a loader of a pipe has all of it
    while link and link.node not in seen:
        seen.add(link.node)
        loras[:0] = _loras(graph, link.node)
        behind = graph.link(link.node, *_MODEL_LINKS)
        name = graph.word(link.node, *_MODEL_NAMES) or _file(graph.inputs(link.node), behind is None)
        if name and (MODEL_FILE.search(name) or not behind):
            found.model = name
            skip = graph.number(link.node, "clip_skip", "base_clip_skip", "stop_at_clip_layer")
            if isinstance(skip, int) and abs(skip) > 1:
                found.values["clip_skip"] = skip
            break
        link = behind
    for lora in loras[:_MAX_LORAS]:
        add_lora(found.loras, lora.name, lora.strength)


def _file(inputs: dict[str, Any], loads: bool) -> str:
    """Return the file of a model. `loads`: nothing is behind the node, so that it may be a folder as well."""
    given = [value.strip() for name in _MODEL_FILES if isinstance(value := inputs.get(name), str)]
    return next((name for name in given if loads or MODEL_FILE.search(name)), "")


def _loras(graph: Graph, key: str, depth: int = 0) -> list[Lora]:
    """Return the LoRAs of one node, in order: plain ones, numbered ones, rgthree's maps, lists, stacks."""
    inputs = graph.inputs(key)
    made: list[Lora] = []
    stack = graph.link(key, *_STACKS)
    if stack and depth < _MAX_STACKS:
        made += _loras(graph, stack.node, depth + 1)
    if inputs.get("toggle") is False:
        return made
    most = graph.number(key, *_COUNTS)
    managed = isinstance(inputs.get("loras"), dict)  # says the same as the text beside it
    alone = graph.word(key, "lora_name") or (graph.word(key, "lora") if not stack else "")
    if alone:
        strength = graph.number(key, *_STRENGTHS)
        made.append(Lora(alone, to_float(strength, 1.0)))
    for name, value in inputs.items():
        number = re.fullmatch(r"(?:lora_name|lora|LORA)_(\d{1,2})(?:_name)?", name)
        if isinstance(value, dict) and isinstance(value.get("lora"), str):
            if value.get("on", True):
                made.append(Lora(value["lora"], to_float(value.get("strength"), 1.0)))
        elif number and isinstance(value, str):
            off = inputs.get(f"switch_{number[1]}") in ("Off", False)
            strength = graph.number(
                key,
                *(f"{kind}_{number[1]}" for kind in ("model_weight", "model_str", "lora_wt", "strength")),
                *(f"lora_{kind}_{number[1]}" for kind in ("strength", "weight")),
                *(f"lora_{number[1]}_{kind}" for kind in ("strength", "model_strength")),
            )
            if not off and (most is None or int(number[1]) <= most):
                made.append(Lora(value, to_float(strength, 1.0)))
        elif name == "loras" and isinstance(value, dict) and isinstance(value.get("__value__"), list):
            for one in value["__value__"]:
                if isinstance(one, dict) and isinstance(one.get("name"), str) and one.get("active", True):
                    made.append(Lora(one["name"], to_float(one.get("strength"), 1.0)))
        elif isinstance(value, str) and "<lora:" in value and not managed:
            made += [Lora(one, to_float(weight, 1.0)) for one, weight in LORA_TEXT.findall(value)]
    return [lora for lora in made if lora.name.strip() not in ("", "None") and lora.strength != 0]


def add_lora(loras: list[Lora], name: str, strength: float) -> None:
    """Add a LoRA that is not there yet, whatever its folders and extension."""
    bare = re.split(r"[/\\]", MODEL_FILE.sub("", name.strip()))[-1]
    if all(re.split(r"[/\\]", MODEL_FILE.sub("", lora.name))[-1] != bare for lora in loras):
        loras.append(Lora(name.strip(), strength))


def to_float(value: Any, default: float) -> float:
    """Return a finite number, `default` for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return number if math.isfinite(number) else default
