"""What made an image: read from graphs as people build them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.generation import read
from luna_farm.core.generation_models import Lora, to_float

Nodes = dict[str, dict[str, Any]]


def node(kind: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def plain(**changes: object) -> Nodes:
    """A text-to-image graph with one KSampler; `changes` replace its inputs."""
    sampler = {
        "seed": 5, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0,
        "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["5", 0],
    }  # fmt: skip
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="XL/base.safetensors"),
        "2": node("CLIPTextEncode", text="a cat", clip=["1", 1]),
        "3": node("CLIPTextEncode", text="blurry", clip=["1", 1]),
        "4": node("KSampler", **{**sampler, **changes}),
        "5": node("EmptyLatentImage", width=64, height=64),
        "6": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="x"),
    }


def flux() -> Nodes:
    """A Flux graph with its sampler in parts, in the instance 12 of a subgraph."""
    return {
        "9": node("SaveImage", images=["12:8", 0]),
        "12:8": node("VAEDecode", samples=["12:13", 0], vae=["12:10", 0]),
        "12:10": node("VAELoader", vae_name="ae.safetensors"),
        "12:11": node("DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="l.safetensors"),
        "12:12": node("UNETLoader", unet_name="flux1-dev.safetensors"),
        "12:13": node(
            "SamplerCustomAdvanced", noise=["12:25", 0], guider=["12:22", 0], sampler=["12:16", 0],
            sigmas=["12:17", 0], latent_image=["12:27", 0],
        ),
        "12:16": node("KSamplerSelect", sampler_name="euler"),
        "12:17": node("BasicScheduler", scheduler="simple", steps=["12:40", 0], denoise=1),
        "12:22": node("BasicGuider", model=["12:30", 0], conditioning=["12:26", 0]),
        "12:25": node("RandomNoise", noise_seed=44),
        "12:26": node("FluxGuidance", guidance=3.5, conditioning=["12:6", 0]),
        "12:6": node("CLIPTextEncode", text=["12:41", 0], clip=["12:11", 0]),
        "12:27": node("EmptySD3LatentImage", width=64, height=64),
        "12:30": node("ModelSamplingFlux", model=["12:31", 0], max_shift=1.15),
        "12:31": node("LoraLoaderModelOnly", lora_name="b.safetensors", strength_model=0.5,
                      model=["12:32", 0]),
        "12:32": node("LoraLoaderModelOnly", lora_name="x/a.safetensors", strength_model=1,
                      model=["12:12", 0]),
        "12:40": node("PrimitiveInt", value=28),
        "12:41": node("StringConcatenate", string_a=["12:42", 0], string_b="at night", delimiter=", "),
        "12:42": node("PrimitiveStringMultiline", value="a fox"),
    }  # fmt: skip


def test_a_plain_graph() -> None:
    found = read(plain())
    assert found.values == {
        "steps": 20, "sampler_name": "euler", "scheduler": "karras", "cfg": 7.0, "seed": 5, "denoise": 1.0,
        "positive": "a cat", "negative": "blurry",
    }  # fmt: skip
    assert (found.model, found.loras, found.embeddings) == ("XL/base.safetensors", [], [])


def test_a_flux_graph_in_a_subgraph() -> None:
    found = read(flux())
    assert found.values == {
        "steps": 28, "sampler_name": "euler", "scheduler": "simple", "cfg": 1, "seed": 44, "denoise": 1,
        "positive": "a fox, at night", "guidance": 3.5, "vae": "ae.safetensors",
    }  # fmt: skip
    assert found.model == "flux1-dev.safetensors"
    assert found.loras == [Lora("x/a.safetensors", 1.0), Lora("b.safetensors", 0.5)]


def test_a_guider_with_two_sides_and_a_sampler_by_class() -> None:
    nodes = flux()
    nodes["12:22"] = node(
        "CFGGuider", model=["12:12", 0], positive=["12:26", 0], negative=["12:50", 0], cfg=2.5
    )
    nodes["12:50"] = node("ConditioningZeroOut", conditioning=["12:26", 0])
    nodes["12:16"] = node("SamplerEulerAncestral", eta=1.0)
    nodes["12:17"] = node("SplitSigmas", sigmas=["12:51", 0], step=3)
    nodes["12:51"] = node("KarrasScheduler", steps=9)
    values = read(nodes).values
    assert (values["cfg"], values["sampler_name"], values["scheduler"]) == (2.5, "euler_ancestral", "karras")
    assert values["steps"] == 9
    assert "negative" not in values


@pytest.mark.parametrize(("sigmas", "steps"), [("1.0, 0.5, 0", 2), ("", None), ("abc", None)])
def test_sigmas_that_are_written_out(sigmas: str, steps: int | None) -> None:
    nodes = flux()
    nodes["12:17"] = node("ManualSigmas", sigmas=sigmas)
    assert read(nodes).values.get("steps") == steps
    assert "scheduler" not in read(nodes).values


def test_a_chain_is_told_by_the_sampler_that_began_it() -> None:
    nodes = plain()
    second = {**nodes["4"]["inputs"], "seed": 99, "denoise": 0.5, "latent_image": ["20", 0]}
    nodes |= {
        "20": node("LatentUpscale", samples=["4", 0]),
        "21": node("KSampler", **second),
        "6": node("VAEDecode", samples=["21", 0], vae=["1", 2]),
    }
    assert read(nodes).values["seed"] == 5
    nodes["21"]["inputs"]["denoise"] = 1.0  # begins anew
    assert read(nodes).values["seed"] == 99


@pytest.mark.parametrize(
    "goes_on",
    [
        {"start_at_step": 10},
        {"add_noise": "disable"},
        {"noise": ["30", 0]},
        {"sigmas": ["31", 1]},
    ],
)
def test_what_goes_on_with_the_image_of_another(goes_on: dict[str, object]) -> None:
    nodes = plain()
    second = {"model": ["1", 0], "steps": 20, "noise_seed": 99, "latent_image": ["4", 0]}
    if "sigmas" in goes_on:
        second |= {"sampler": ["32", 0]}
    nodes |= {
        "21": node("KSamplerAdvanced", **{**second, **goes_on}),
        "30": node("DisableNoise"),
        "31": node("SplitSigmas", sigmas=["33", 0]),
        "32": node("KSamplerSelect", sampler_name="lcm"),
        "33": node("BasicScheduler", steps=4),
        "6": node("VAEDecode", samples=["21", 0]),
    }
    assert read(nodes).values["seed"] == 5


def test_a_saver_of_several_images_says_by_affix_which_one() -> None:
    nodes = plain()
    del nodes["7"]
    nodes |= {
        "14": node("KSampler", **{**nodes["4"]["inputs"], "seed": 77}),
        "16": node("VAEDecode", samples=["14", 0]),
        "8": node(
            "LunaMultiSaver",
            image_1=["6", 0],
            affix_1="RAW",
            image_2=["16", 0],
            affix_2="SECOND",
            filename="x",
        ),
    }
    assert read(nodes, "RAW").values["seed"] == 5
    assert read(nodes, "SECOND").values["seed"] == 77
    assert read(nodes, "other").values["seed"] == 5


def test_without_a_saver_the_last_sampler_counts() -> None:
    nodes = plain()
    del nodes["7"]
    nodes["8"] = node("KSampler", **{**nodes["4"]["inputs"], "seed": 99, "latent_image": ["4", 0]})
    assert read(nodes).values["seed"] == 99
    nodes["8"]["inputs"]["denoise"] = 0.4
    assert read(nodes).values["seed"] == 5


def test_samplers_in_a_circle_are_still_read() -> None:
    nodes = plain(latent_image=["8", 0], denoise=0.5)
    nodes["8"] = node("KSampler", **{**nodes["4"]["inputs"], "latent_image": ["4", 0]})
    del nodes["7"]
    assert read(nodes).values["seed"] == 5


CONDITIONINGS: list[tuple[Nodes, str | None]] = [
    ({"2": node("ConditioningCombine", conditioning_1=["2a", 0], conditioning_2=["2b", 0])}, "one AND two"),
    ({"2": node("ConditioningConcat", conditioning_to=["2a", 0], conditioning_from=["2b", 0])},
     "one BREAK two"),
    ({"2": node("ControlNetApply", conditioning=["2a", 0], control_net=["9", 0])}, "one"),
    ({"2": node("ReferenceLatent", conditioning=["2c", 0]),
      "2c": node("FluxGuidance", conditioning=["2b", 0])}, "two"),
    ({"2": node("ControlNetApplyAdvanced", positive=["2a", 0], negative=["2b", 0])}, "one"),
    ({"2": node("CLIPTextEncodeSDXL", text_g="big", text_l="small", clip=["1", 1])}, "big"),
    ({"2": node("CLIPTextEncodeFlux", clip_l="", t5xxl="long", clip=["1", 1])}, "long"),
    ({"2": node("CLIPTextEncodeFlux", clip_l="short", t5xxl="", clip=["1", 1])}, "short"),
    ({"2": node("TextEncodeQwenImageEdit", prompt="edit", clip=["1", 1])}, "edit"),
    ({"2": node("CLIPTextEncode", text=["2t", 0]), "2t": node("ShowText|pysssss", text=["2u", 0]),
      "2u": node("Text Multiline", text="shown")}, "shown"),
    ({"2": node("CLIPTextEncode", text=["2t", 0]), "2t": node("TextGenerate", prompt="make up")}, None),
    ({"2": node("ImpactWildcardEncode", wildcard_text="__x__", text=["2t", 0]),
      "2t": node("ImpactWildcardProcessor", wildcard_text="__x__", populated_text="a wolf")}, "a wolf"),
    ({"2": node("Efficient Loader", positive="in the loader", negative="bad")}, "in the loader"),
    ({"2": node("Easy Loader", positive=["2t", 0], negative="bad"),
      "2t": node("Text", text="linked")}, "linked"),
    ({"2": node("SomethingElse", x=1)}, None),
    ({"2": node("FluxGuidance", conditioning=["2", 0])}, None),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), CONDITIONINGS)
def test_prompts_are_followed_to_their_text(changes: Nodes, expected: str | None) -> None:
    base = plain() | {"2a": node("CLIPTextEncode", text="one"), "2b": node("CLIPTextEncode", text="two")}
    assert read(base | changes).values.get("positive") == expected


def test_the_sides_of_a_node_with_two_outputs() -> None:
    nodes = plain(positive=["8", 0], negative=["8", 1])
    nodes["8"] = node("ControlNetApplyAdvanced", positive=["2", 0], negative=["3", 0], strength=1)
    values = read(nodes).values
    assert (values["positive"], values["negative"]) == ("a cat", "blurry")
    nodes["8"] = node("TextEncodeBooguEdit", prompt="do", negative_prompt="not", clip=["1", 1])
    values = read(nodes).values
    assert (values["positive"], values["negative"]) == ("do", "not")


LORAS: list[tuple[dict[str, Any], list[Lora]]] = [
    (node("LoraLoader", lora_name="a.safetensors", strength_model=0.8), [Lora("a.safetensors", 0.8)]),
    (node("LoraLoader", lora_name="a.safetensors", strength_model=0), []),
    (node("LoraLoader", lora_name="None", strength_model=1), []),
    (
        node(
            "Power Lora Loader (rgthree)",
            lora_1={"on": True, "lora": "a.safetensors", "strength": 0.7},
            lora_2={"on": False, "lora": "b.safetensors", "strength": 1},
            lora_3={"on": True, "lora": "c.safetensors", "strength": "x"},
        ),
        [Lora("a.safetensors", 0.7), Lora("c.safetensors", 1.0)],
    ),
    (
        node("CR Apply LoRA Stack", lora_stack=["60", 0]),
        [Lora("a.safetensors", 0.6)],
    ),
    (
        node("Lora Loader (LoraManager)", loras={"__value__": [
            {"name": "a", "strength": 0.4, "active": True}, {"name": "b", "active": False}, 5,
        ]}),
        [Lora("a", 0.4)],
    ),
    (node("LoRA Stacker", lora_name_1="a.safetensors", lora_name_2="None"), [Lora("a.safetensors", 1.0)]),
]  # fmt: skip


@pytest.mark.parametrize(("loader", "expected"), LORAS)
def test_loras_of_all_kinds(loader: dict[str, Any], expected: list[Lora]) -> None:
    loader["inputs"]["model"] = ["1", 0]
    stack = node(
        "CR LoRA Stack", switch_1="On", lora_name_1="a.safetensors", model_weight_1=0.6,
        switch_2="Off", lora_name_2="b.safetensors", model_weight_2=1,
    )  # fmt: skip
    found = read(plain(model=["50", 0]) | {"50": loader, "60": stack})
    assert found.loras == expected
    assert found.model == "XL/base.safetensors"


def test_stacks_of_loras_in_a_circle_end() -> None:
    stacks = {
        "50": node("Apply", lora_stack=["51", 0], model=["1", 0]),
        "51": node("Stack", lora_stack=["52", 0], lora_name_1="a.safetensors"),
        "52": node("Stack", lora_stack=["51", 0], lora_name_1="b.safetensors"),
    }
    found = read(plain(model=["50", 0]) | stacks)
    assert {lora.name for lora in found.loras} == {"a.safetensors", "b.safetensors"}


def test_loras_and_embeddings_in_the_prompt() -> None:
    text = "a cat <lora:sub/a:0.7>, <lora:b>, embedding:EasyNegative, embedding:EasyNegative"
    nodes = plain(model=["50", 0])
    nodes["50"] = node("LoraLoaderModelOnly", lora_name="x/a.safetensors", strength_model=0.5, model=["1", 0])
    nodes["2"]["inputs"]["text"] = text
    found = read(nodes)
    assert found.loras == [Lora("x/a.safetensors", 0.5), Lora("b", 1.0)]
    assert found.embeddings == ["EasyNegative"]
    assert found.values["positive"] == text


@pytest.mark.parametrize("kind", ["between", "loader", "none", "one"])
def test_clip_skip(kind: str) -> None:
    nodes = plain()
    if kind in ("between", "one"):
        nodes["2"]["inputs"]["clip"] = ["8", 0]
        nodes["8"] = node(
            "CLIPSetLastLayer", stop_at_clip_layer=-2 if kind == "between" else -1, clip=["1", 1]
        )
    elif kind == "loader":
        nodes["1"] = node("Efficient Loader", ckpt_name="m.ckpt", clip_skip=-2)
    assert read(nodes).values.get("clip_skip") == (-2 if kind in ("between", "loader") else None)


@pytest.mark.parametrize(
    ("loader", "model"),
    [
        (node("UnetLoaderGGUF", unet_name="q.gguf"), "q.gguf"),
        (node("ModelMergeSimple", model1=["1", 0], model2=["9", 0]), "XL/base.safetensors"),
        (node("DiffusersLoader", model_path="sdxl-turbo"), "sdxl-turbo"),
        (node("Loop", model=["50", 0]), ""),
        (node("Nunchaku", model_name="svdq-flux"), "svdq-flux"),
        (node("ModelPatcher", model_name="not a file", model=["1", 0]), "XL/base.safetensors"),
    ],
)
def test_models(loader: dict[str, Any], model: str) -> None:
    assert read(plain(model=["50", 0]) | {"50": loader}).model == model


def test_pipes_and_detailers() -> None:
    nodes = plain()
    nodes |= {
        "8": node(
            "FaceDetailer", image=["6", 0], model=["1", 0], seed=3, steps=9, denoise=0.4, positive=["3", 0]
        ),
        "7": node("SaveImage", images=["8", 0]),
    }
    assert read(nodes).values["seed"] == 5
    nodes["8"] = node("PipeSampler", basic_pipe=["9", 0], seed=8, steps=3, image=["6", 0])
    nodes["9"] = node("ToBasicPipe", model=["1", 0], positive=["2", 0], negative=["3", 0])
    found = read(nodes)
    assert (found.values["seed"], found.values["positive"], found.model) == (
        8,
        "a cat",
        "XL/base.safetensors",
    )


def test_the_vae_is_looked_for_a_few_nodes_deep() -> None:
    nodes = plain()
    nodes["6"]["inputs"]["vae"] = ["8", 0]
    nodes["8"] = node("VAELoader", vae_name="v.pt")
    nodes["7"]["inputs"]["images"] = ["9", 0]
    nodes["9"] = node("ImageScale", image=["6", 0])
    assert read(nodes).values["vae"] == "v.pt"
    nodes["9"]["inputs"]["image"] = ["9", 0]
    assert "vae" not in read(nodes).values


def test_sigmas_in_a_circle_and_long_chains_end() -> None:
    nodes = flux()
    nodes["12:17"] = node("FlipSigmas", sigmas=["12:17", 0])
    assert "steps" not in read(nodes).values
    chain = plain(denoise=0.5, latent_image=["20", 0])
    for number in range(20, 40):
        inputs = {**chain["4"]["inputs"], "seed": number, "latent_image": [str(number + 1), 0]}
        chain[str(number)] = node("KSampler", **inputs)
    assert read(chain).values["seed"] == 27


def test_a_graph_without_a_sampler_says_nothing() -> None:
    assert read({"1": node("LoadImage", image="a.png"), "2": node("SaveImage", images=["1", 0])}).values == {}


def test_numbers_as_texts() -> None:
    assert (to_float("0.5", 1.0), to_float(None, 1.0), to_float("", 2.0)) == (0.5, 1.0, 2.0)
    for none in (10**400, "nan", float("inf"), "9" * 400):
        assert to_float(none, 1.0) == 1.0


KEYS = st.sampled_from(["1", "2", "3", "x"])
NAMES = st.sampled_from(
    ["model", "steps", "seed", "positive", "negative", "latent_image", "images", "text", "sigmas", "sampler",
     "guider", "lora_1", "lora_name", "lora_stack",
     "strength", "strength_1", "conditioning_1", "conditioning_2", "switch", "on_true",
     "noise", "vae", "clip"]
)  # fmt: skip
HUGE = st.sampled_from([10**400, -(10**400)])  # JSON has them, floats have not
PLAIN = st.none() | st.booleans() | st.integers() | HUGE | st.floats() | st.text(max_size=5)
VALUES = (
    PLAIN | st.tuples(KEYS, st.integers(0, 2)).map(list) | st.lists(PLAIN) | st.dictionaries(NAMES, PLAIN)
)
KINDS = st.sampled_from(["KSampler", "SaveImage", "Reroute", "Switch", "SplitSigmas", "X", ""])
ANY_NODE = st.fixed_dictionaries({"class_type": KINDS, "inputs": st.dictionaries(NAMES, VALUES)})


@given(st.dictionaries(KEYS, ANY_NODE | PLAIN))
def test_whatever_a_prompt_holds_it_never_raises(nodes: dict[str, Any]) -> None:
    read(nodes, "RAW")


def test_a_prompt_that_stands_in_the_sampler_itself() -> None:
    assert "a fox" in read(plain(positive="a fox")).values.values()
