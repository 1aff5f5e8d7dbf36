"""Generation parameters as the text that A1111's web UI writes and galleries read.

    positive prompt
    Negative prompt: negative prompt
    Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 1024x1024, Model: name

The names that the parameters go by differ from node to node; the tables below say which are understood, those
of ComfyUI-Image-Saver's METADATA among them. What is not known is not written. This module must never raise
for what a map of parameters holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from luna_farm.core.generation_models import MODEL_FILE, Generation
from luna_farm.core.prompt import NEGATIVE, POSITIVE, ready_text, without_unknown

AUTOV2 = 10
"""Digits of a SHA-256 that Civitai calls AutoV2 and that this text carries."""

# ComfyUI's samplers and schedulers under the names that readers of this text know; others stay as they are.
_SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "lms": "LMS",
    "ddim": "DDIM",
    "lcm": "LCM",
    "uni_pc": "UniPC",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
}
_SCHEDULERS = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "simple": "Simple",
    "sgm_uniform": "SGM Uniform",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
    "align_your_steps": "Align Your Steps",
}
_MODEL = ("model_name", "modelname", "model", "ckpt_name", "checkpoint")
_HASH = re.compile(r"[0-9A-Fa-f]{6,64}")


def text(
    known: Mapping[str, Any],
    *,
    model: str,
    width: int,
    height: int,
    generation: Generation | None = None,
    hashes: Mapping[str, str] | None = None,
) -> str:
    """Return the text, "" where nothing is known that it would name.

    known: the generation parameters of the job, which come before what the graph says. model: used where
    `known` names none. width, height: of this image in pixels, used where `known` has no size. generation:
    what the graph says. hashes: SHA-256 by "model", "lora:NAME" and "embed:NAME", as Civitai names them.
    """
    ready = ready_text(known)
    if ready:  # Image Saver has written it already, or it comes from another file
        return ready
    if not known and not (generation and generation.values):
        return ""
    facts = _merged(known, generation)
    positive, negative = _text_of(facts, POSITIVE), _text_of(facts, NEGATIVE)
    settings = _settings(facts)
    if not (positive or negative or settings):
        return ""
    settings["Size"] = f"{_first(facts, 'width') or width}x{_first(facts, 'height') or height}"
    own_model = bare(str(_first(facts, *_MODEL) or model))
    if own_model:
        settings["Model"] = own_model
    found = {**{name: digest[:AUTOV2] for name, digest in (hashes or {}).items()}, **_given_hashes(known)}
    if "model" in found:
        settings["Model hash"] = found["model"]
    vae = _first(facts, "vae", "vae_name")
    if isinstance(vae, str):
        settings["VAE"] = re.split(r"[/\\]", vae)[-1]
    loras = generation.loras if generation else []
    if loras:
        settings["LoRAs"] = ", ".join(f"{bare(lora.name)}: {lora.strength:g}" for lora in loras)
    for title, kind in (("Lora hashes", "lora:"), ("TI hashes", "embed:")):
        listed = [f"{name[len(kind) :]}: {found[name]}" for name in found if name.startswith(kind)]
        if listed:
            settings[title] = ", ".join(listed)
    lines = [positive] if positive else []
    if negative:
        lines.append(f"Negative prompt: {negative}")
    written = [f"{name}: {_quoted(value)}" for name, value in settings.items()]
    if set(found) - {"model"}:  # Civitai wants this one as JSON without quotes around it
        written.append(f"Hashes: {json.dumps(found, separators=(',', ':'))}")
    lines.append(", ".join(written))
    return "\n".join(lines)


def bare(name: str) -> str:
    """Return the name of a model without folders and extension."""
    return MODEL_FILE.sub("", re.split(r"[/\\]", name.strip())[-1])


def _merged(known: Mapping[str, Any], generation: Generation | None) -> dict[str, Any]:
    """Return what came with the job, and for what is missing there, what the graph says."""
    facts = without_unknown(known)
    for group in (
        POSITIVE,
        NEGATIVE,
        _STEPS,
        _SAMPLER,
        _SCHEDULER,
        _CFG,
        _SEED,
        _DENOISE,
        _CLIP_SKIP,
        _VAE,
    ):
        value = _first(generation.values, *group) if generation and _first(facts, *group) is None else None
        if value is not None:
            facts[group[0]] = value
    if generation and "guidance" in generation.values:
        facts.setdefault("distilled_cfg", generation.values["guidance"])
    return facts


_STEPS = ("steps",)
_SAMPLER = ("sampler_name", "sampler")
_SCHEDULER = ("scheduler", "scheduler_name", "schedule")
_CFG = ("cfg", "cfg_scale")
_SEED = ("seed", "noise_seed", "seed_value")
_DENOISE = ("denoise", "denoising_strength")
_CLIP_SKIP = ("clip_skip",)
_VAE = ("vae", "vae_name")


def _settings(known: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings in A1111's order, without those that say nothing on their own (size, model)."""
    sampler, scheduler = _first(known, *_SAMPLER), _first(known, *_SCHEDULER)
    clip_skip, denoise = _first(known, *_CLIP_SKIP), _first(known, *_DENOISE)
    cfg = _first(known, *_CFG)
    found = {
        "Steps": _first(known, *_STEPS),
        "Sampler": _SAMPLERS.get(str(sampler).removesuffix("_gpu"), sampler),
        "Schedule type": _SCHEDULERS.get(str(scheduler), scheduler),
        "CFG scale": cfg if cfg is not None else _first(known, "guidance"),
        "Distilled CFG Scale": _first(known, "distilled_cfg"),
        "Seed": _first(known, *_SEED),
        # ComfyUI counts from the end (-2), A1111 from 1 (2); both leave the default out.
        "Clip skip": abs(clip_skip) if isinstance(clip_skip, int) and abs(clip_skip) > 1 else None,
        "Denoising strength": denoise if denoise != 1 else None,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _given_hashes(known: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes that came with the job, under Civitai's names."""
    found: dict[str, str] = {}
    given = known.get("hashes")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = None
    if isinstance(given, Mapping):
        found |= {str(name): value for name, value in given.items() if _is_hash(value)}
    for field, kind in (("lora_hashes", "lora:"), ("embedding_hashes", "embed:")):
        listed = known.get(field)
        if isinstance(listed, Mapping):
            found |= {f"{kind}{bare(str(name))}": value for name, value in listed.items() if _is_hash(value)}
    listed = known.get("final_hashes") or known.get("additional_hashes")
    model = bare(str(_first(known, *_MODEL) or ""))
    for part in listed.split(",") if isinstance(listed, str) else ():  # Image Saver: Name:HASH:weight
        name, _, rest = part.strip().partition(":")
        digest = rest.partition(":")[0]
        if name and _is_hash(digest):
            found.setdefault("model" if name == model else f"lora:{bare(name)}", digest)
    if _is_hash(known.get("model_hash")):
        found.setdefault("model", str(known["model_hash"]))
    return found


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _first(known: Mapping[str, Any], *keys: str) -> str | int | float | None:
    for key in keys:
        value = known.get(key)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != "":
            return value
    return None


def _text_of(known: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    value = _first(known, *keys)
    return value.strip() if isinstance(value, str) else ""


def _quoted(value: str) -> str:
    """Quote what would end the setting early, as A1111 does."""
    return json.dumps(value, ensure_ascii=False) if any(char in value for char in ",:\n") else value
