"""Generation parameters as the text that A1111's web UI writes and galleries read.

    positive prompt
    Negative prompt: negative prompt
    Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 1024x1024, Model: name

The names that the parameters go by differ from node to node; the tables below say which are understood. This
module must never raise for what a map of parameters holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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
    "simple": "Simple",
    "sgm_uniform": "SGM Uniform",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
}
_POSITIVE = ("positive_prompt", "positive", "prompt")
_NEGATIVE = ("negative_prompt", "negative")


def text(known: Mapping[str, Any], *, model: str, width: int, height: int) -> str:
    """Return the text, "" where `known` holds none of the parameters that it would name.

    known: the generation parameters of the job. model: used where `known` names none. width, height: of this
    picture in pixels, used where `known` has no size.
    """
    positive, negative = _text_of(known, _POSITIVE), _text_of(known, _NEGATIVE)
    settings = _settings(known)
    if not (positive or negative or settings):
        return ""
    size = f"{_first(known, 'width') or width}x{_first(known, 'height') or height}"
    settings["Size"] = size
    own_model = _first(known, "model_name", "model", "ckpt_name", "checkpoint")
    if own_model or model:
        settings["Model"] = str(own_model or model)
    for name, keys in (("Model hash", ("model_hash",)), ("VAE", ("vae", "vae_name"))):
        value = _first(known, *keys)
        if isinstance(value, str):
            settings[name] = value
    lines = [positive] if positive else []
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def _settings(known: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings in A1111's order, without those that say nothing on their own (size, model)."""
    sampler = _first(known, "sampler_name", "sampler")
    scheduler = _first(known, "scheduler", "schedule")
    clip_skip = _first(known, "clip_skip")
    denoise = _first(known, "denoise", "denoising_strength")
    found = {
        "Steps": _first(known, "steps"),
        "Sampler": _SAMPLERS.get(str(sampler).removesuffix("_gpu"), sampler),
        "Schedule type": _SCHEDULERS.get(str(scheduler), scheduler),
        "CFG scale": _first(known, "cfg", "cfg_scale", "guidance"),
        "Seed": _first(known, "seed", "noise_seed"),
        # ComfyUI counts from the end (-2), A1111 from 1 (2); both leave the default out.
        "Clip skip": abs(clip_skip) if isinstance(clip_skip, int) and abs(clip_skip) > 1 else None,
        "Denoising strength": denoise if denoise != 1 else None,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


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
