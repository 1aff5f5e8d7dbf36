"""What the texts of a file say about its image."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luna_farm.catalogue import facts, parameters
from luna_farm.core.prompt import NO_PROMPT
from luna_farm.imaging import metadata_a1111

A1111 = """masterpiece, a cat (sitting:1.2),
on a <lora:film_grain:0.6> roof
Negative prompt: blurry, Steps: many,
bad hands
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 18446744073709551615, \
Size: 832x1216, Model hash: 31e35c80fc, Model: sd_xl_base_1.0, \
Lora hashes: "film_grain: 0123456789ab, detail: aabbccddeeff", Version: v1"""
IMAGE_SAVER = """a red bike
Negative prompt: rain
Steps: 20, Sampler: Euler Karras, CFG Scale: 7.0, Seed: 5, Size: 512x512, Model hash: 6ce0161689, \
Model: v1-5, Hashes: {"model":"6ce0161689"}, Version: ComfyUI"""
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 42,
            "steps": 12,
            "cfg": 3.5,
            "sampler_name": "euler_ancestral",
            "scheduler": "karras",
            "denoise": 1,
            "model": ["10", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "xl/dream.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a boat", "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["10", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "ink.safetensors",
            "strength_model": 0.7,
            "model": ["4", 0],
            "clip": ["4", 1],
        },
    },
}


def test_the_text_of_a1111() -> None:
    assert parameters.read(A1111) == {
        "prompt": "masterpiece, a cat (sitting:1.2),\non a <lora:film_grain:0.6> roof",
        "negative": "blurry, Steps: many,\nbad hands",
        "model": "sd_xl_base_1.0",
        "loras": ("film_grain:0.6", "detail"),
        "sampler": "DPM++ 2M",
        "scheduler": "Karras",
        "steps": 28,
        "cfg": 6.5,
        "seed": 2**64 - 1,
    }


def test_the_text_of_image_saver() -> None:
    found = parameters.read(IMAGE_SAVER)
    assert (found["prompt"], found["negative"]) == ("a red bike", "rain")
    assert (found["model"], found["sampler"], found["cfg"], found["seed"]) == ("v1-5", "Euler Karras", 7.0, 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("only a prompt", {"prompt": "only a prompt"}),
        ("Negative prompt: only that", {"negative": "only that"}),
        ("Steps: 5", {"steps": 5}),
        ("p\nSize: 8x8", {"prompt": "p"}),
        ('p\nSteps: 3, Model: "a, b: c"', {"prompt": "p", "steps": 3, "model": "a, b: c"}),
        ("p\nSteps: 3, Model: unknown", {"prompt": "p", "steps": 3, "model": "unknown"}),
        ("p\nSteps: x, CFG scale: inf, Seed: 1.5, Model: UnknownModel", {"prompt": "p"}),
    ],
)
def test_texts_that_say_little(text: str, expected: dict[str, object]) -> None:
    assert parameters.read(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.text(max_size=40))
def test_no_text_is_too_odd(text: str, value: str) -> None:
    parameters.read(text)
    parameters.read(f"a\nSteps: {value}, Model: {value}")
    facts.of_texts({"prompt": text, "parameters": value})


WORDS = st.text(st.characters(categories=("L", "N", "Zs"), include_characters=',:()"\\{}'), max_size=40)


@settings(max_examples=200, deadline=None)
@example("UNKNOWNMODEL", 0, 1, "")
@example("Unknown", 0, 1, "unknown")
@given(
    WORDS.filter(lambda text: text not in NO_PROMPT),
    st.integers(0, 2**64 - 1),
    st.integers(1, 200),
    WORDS.filter(lambda name: '"' not in name),
)
def test_what_the_farm_writes_is_read_again(prompt: str, seed: int, steps: int, model: str) -> None:
    known = {"positive": prompt, "seed": seed, "steps": steps}
    text = metadata_a1111.text(known, model=model, width=8, height=8)
    found = parameters.read(text)
    assert found.get("prompt", "") == prompt.strip()
    assert (found["seed"], found["steps"]) == (seed, steps)
    assert found.get("model", "") == parameters.bare(model)


def test_a_file_of_comfyui_is_read_from_its_graph() -> None:
    found = facts.of_texts({"prompt": json.dumps(GRAPH), "workflow": "{}"}, 512, 512)
    assert found == {
        "prompt": "a boat",
        "negative": "fog",
        "model": "dream",
        "loras": ("ink:0.7",),
        "sampler": "Euler a",
        "scheduler": "Karras",
        "steps": 12,
        "cfg": 3.5,
        "seed": 42,
    }


def test_the_farms_own_fields() -> None:
    texts = {
        "image_type": "RAW",
        "model_name": "flux",
        "custom_metadata": '{"client":"Miller"}',
        "save_timestamp": "2026-01-02T03:04:05+00:00",
    }
    assert facts.of_texts(texts) == {
        "affix": "RAW",
        "model": "flux",
        "custom": '{"client":"Miller"}',
        "submitted_at": 1767323045.0,
    }


@pytest.mark.parametrize("prompt", ["{", "[1]", "[" * 100_000, '{"1": 5}', "null"])
def test_a_graph_that_is_none_says_nothing(prompt: str) -> None:
    assert facts.of_texts({"prompt": prompt, "save_timestamp": "yesterday"}) == {}
