"""Models and LoRAs of a prompt graph, and the record of what was read.

The way goes from a sampler along its `model` inputs to the loader; what adds LoRAs lies on it. Pure, as
`generation.py` has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from luna_farm.core.graph import Graph

_MODEL_NAMES = (
    "ckpt_name",
    "unet_name",
    "gguf_name",
    "base_ckpt_name",
    "model_name",
    "diffusion_model",
    "checkpoint",
)
_MODEL_LINKS = ("model", "model1", "base_model", "unet", "model_high", "basic_pipe", "pipe")
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
    link = graph.link(key, *_MODEL_LINKS)
    while link and link.node not in seen:
        seen.add(link.node)
        loras[:0] = _loras(graph, link.node)
        name = graph.word(link.node, *_MODEL_NAMES)
        if name and (MODEL_FILE.search(name) or not graph.link(link.node, *_MODEL_LINKS)):
            found.model = name
            skip = graph.number(link.node, "clip_skip", "base_clip_skip", "stop_at_clip_layer")
            if isinstance(skip, int) and abs(skip) > 1:
                found.values["clip_skip"] = skip
            break
        link = graph.link(link.node, *_MODEL_LINKS)
    for lora in loras[:_MAX_LORAS]:
        add_lora(found.loras, lora.name, lora.strength)


def _loras(graph: Graph, key: str, depth: int = 0) -> list[Lora]:
    """Return the LoRAs of one node, in order: plain ones, numbered ones, rgthree's maps, lists, stacks."""
    inputs = graph.inputs(key)
    made: list[Lora] = []
    stack = graph.link(key, "lora_stack", "optional_lora_stack")
    if stack and depth < _MAX_STACKS:
        made += _loras(graph, stack.node, depth + 1)
    if graph.word(key, "lora_name"):
        strength = graph.number(key, "strength_model", "strength", "lora_model_strength", "lora_strength")
        made.append(Lora(graph.word(key, "lora_name"), 1.0 if strength is None else float(strength)))
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
            )
            if not off:
                made.append(Lora(value, 1.0 if strength is None else float(strength)))
        elif name == "loras" and isinstance(value, dict) and isinstance(value.get("__value__"), list):
            for one in value["__value__"]:
                if isinstance(one, dict) and isinstance(one.get("name"), str) and one.get("active", True):
                    made.append(Lora(one["name"], to_float(one.get("strength"), 1.0)))
    return [lora for lora in made if lora.name.strip() not in ("", "None") and lora.strength != 0]


def add_lora(loras: list[Lora], name: str, strength: float) -> None:
    """Add a LoRA that is not there yet, whatever its folders and extension."""
    bare = re.split(r"[/\\]", MODEL_FILE.sub("", name.strip()))[-1]
    if all(re.split(r"[/\\]", MODEL_FILE.sub("", lora.name))[-1] != bare for lora in loras):
        loras.append(Lora(name.strip(), strength))


def to_float(value: Any, default: float) -> float:
    """Return a number, `default` for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return default
