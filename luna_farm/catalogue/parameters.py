"""Reads the text that A1111's web UI, Image Saver and this farm write into images: prompt, negative prompt,
settings. Pure; it must never raise for what a file holds.

    positive prompt
    Negative prompt: negative prompt
    Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 1024x1024, Model: name
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

_NEGATIVE = "Negative prompt:"
_SETTING = re.compile(r'\s*([A-Za-z][\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|\{[^{}]*\}|[^,]*)(?:,|$)')
_FIRST = re.compile(
    r"(?:Steps|Size|Sampler|Seed|CFG scale|Model|Model hash|Schedule type|Version): ", re.IGNORECASE
)
"""How a line of settings begins."""
_LORA = re.compile(r"<(?:lora|lyco):([^:<>]{1,200}):?(-?[\d.]{0,8})[^<>]{0,40}>")
_ENDING = re.compile(r"\.(?:safetensors|ckpt|pth?|bin|gguf|sft)$", re.IGNORECASE)
_UNKNOWN = ("", "unknownmodel", "none")
_MOST_LORAS = 64
_MOST_TEXT = 20_000
"""Characters of a prompt that a row keeps."""


def read(text: str) -> dict[str, Any]:
    """Return the fields of a CatalogueRow that a text names: prompt, negative, model, loras, sampler,
    scheduler, steps, cfg, seed. What it does not say is not there."""
    return dict(_read(text))


@lru_cache(maxsize=4)
def _read(text: str) -> dict[str, Any]:
    """Images of a job mostly have the same text, and it takes longer to read than a small image to encode."""
    lines = text.replace("\r\n", "\n").strip().split("\n")
    at = _line_of_settings(lines)
    settings = _settings(" ".join(lines[at:]))
    prompts = lines[:at]
    begins = next((n for n, line in enumerate(prompts) if line.startswith(_NEGATIVE)), len(prompts))
    found: dict[str, Any] = {
        "prompt": "\n".join(prompts[:begins]).strip()[:_MOST_TEXT],
        "negative": "\n".join(prompts[begins:]).removeprefix(_NEGATIVE).strip()[:_MOST_TEXT],
        "model": bare(settings.get("model", "")),
        "sampler": settings.get("sampler", ""),
        "scheduler": settings.get("schedule type", ""),
        "steps": whole(settings.get("steps")),
        "cfg": number(settings.get("cfg scale", settings.get("distilled cfg scale"))),
        "seed": whole(settings.get("seed")),
        "loras": tuple(_loras(text, settings)),
    }
    return {name: value for name, value in found.items() if value not in (None, "", ())}


def _line_of_settings(lines: list[str]) -> int:
    """Return the number of the line where the settings begin; that behind the last one where there are
    none."""
    for at in range(len(lines) - 1, -1, -1):
        if _FIRST.match(lines[at]):
            return at
        if lines[at].startswith(_NEGATIVE):
            break
    return len(lines)


def _settings(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _SETTING.findall(text):
        found.setdefault(name.strip().lower(), _unquoted(value.strip()))
    return found


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return read if isinstance(read, str) else value


def _loras(text: str, settings: dict[str, str]) -> list[str]:
    """Return the LoRAs of the settings, and those that only the prompt or the hashes name, as
    name:strength."""
    found: dict[str, str] = {}
    for part in settings.get("loras", "").split(", "):
        name, separator, strength = part.rpartition(": ")
        if separator:
            found.setdefault(bare(name), strength)
    for name, strength in _LORA.findall(text):
        found.setdefault(bare(name), strength or "1")
    for part in settings.get("lora hashes", "").split(","):
        name = bare(part.partition(":")[0])
        if name:
            found.setdefault(name, "")
    return [f"{name}:{strength}".removesuffix(":") for name, strength in found.items()][:_MOST_LORAS]


@lru_cache(maxsize=64)
def bare(name: str) -> str:
    """Return the name of a model without folders and ending, "" for a name that says nothing."""
    plain = re.split(r"[/\\]", _ENDING.sub("", name.strip()))[-1]
    return "" if plain.lower() in _UNKNOWN else plain


def whole(text: object) -> int | None:
    """Return a whole number, None for what is none."""
    try:
        return int(str(text))
    except ValueError:
        return None


def number(text: object) -> float | None:
    """Return a finite number, None for what is none."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None
