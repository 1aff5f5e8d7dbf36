"""Graphs built with other packs and newer models: what they name is found, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from luna_farm.core.generation import read

Nodes = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def plain(**nodes: dict[str, Any]) -> Nodes:
    """A plain graph; `nodes` are added to it, and what is no node changes the inputs of one (`_7` is "7")."""
    graph = {
        "1": node("CheckpointLoaderSimple", ckpt_name="m.safetensors"),
        "4": node("CLIPTextEncode", clip=["1", 1], text="p"),
        "5": node("CLIPTextEncode", clip=["1", 1], text="n"),
        "6": node("EmptyLatentImage", width=8, height=8),
        "7": node(
            "KSampler", model=["1", 0], positive=["4", 0], negative=["5", 0], latent_image=["6", 0],
            seed=1, steps=20, cfg=7, sampler_name="euler", scheduler="normal", denoise=1,
        ),
        "8": node("VAEDecode", samples=["7", 0], vae=["1", 2]),
        "11": node("SaveImage", images=["8", 0]),
        "q": node("CLIPTextEncode", clip=["1", 1], text="q"),
        "r": node("CLIPTextEncode", clip=["1", 1], text="r"),
    }  # fmt: skip
    for name, given in nodes.items():
        key = name.lstrip("_")
        if "class_type" in given:
            graph[key] = given
        else:
            graph[key]["inputs"].update(given)
    return graph


def found(graph: Nodes) -> dict[str, Any]:
    read_of = read(graph)
    return {**read_of.values, "model": read_of.model, "loras": [(x.name, x.strength) for x in read_of.loras]}


PIPE = node("ToBasicPipe", model=["1", 0], clip=["1", 1], vae=["1", 2], positive=["4", 0], negative=["5", 0])
CONTEXT = node(
    "Context Big (rgthree)", model=["1", 0], positive=["4", 0], negative=["5", 0], seed=["20", 0],
    steps=["21", 0], cfg=["21", 1], sampler=["21", 2], scheduler=["21", 3],
)  # fmt: skip
SAMPLER = {
    "seed": 3,
    "steps": 22,
    "cfg": 6.5,
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
    "denoise": 1,
}
OF_SAMPLER = {name: value for name, value in SAMPLER.items() if name != "denoise"}
BOTH = {"positive": "a tree", "negative": "fog"}
SIDES = {"positive": "p", "negative": "n"}

PIPES = {
    "impact": (
        plain(
            _2=PIPE, _7=node("ImpactKSamplerBasicPipe", basic_pipe=["2", 0], latent_image=["6", 0], **SAMPLER)
        ),
        {**SIDES, **OF_SAMPLER, "model": "m.safetensors"},
    ),
    "impact, unpacked": (
        plain(
            _2=PIPE,
            _3=node("FromBasicPipe", basic_pipe=["2", 0]),
            _7={"model": ["3", 0], "positive": ["3", 3], "negative": ["3", 4]},
        ),
        {**SIDES, "seed": 1, "model": "m.safetensors"},
    ),
    "rgthree's context": (
        plain(
            _2=CONTEXT,
            _20=node("Seed (rgthree)", seed=77),
            _21=node(
                "KSampler Config (rgthree)", steps_total=30, cfg=8.0, sampler_name="lms", scheduler="beta"
            ),
            _22=node("Context (rgthree)", base_ctx=["2", 0]),
            _7={
                "model": ["2", 1],
                "positive": ["22", 4],
                "negative": ["22", 5],
                "seed": ["2", 8],
                "steps": ["2", 9],
                "cfg": ["2", 11],
                "sampler_name": ["2", 13],
                "scheduler": ["2", 14],
            },
        ),
        {**SIDES, "seed": 77, "steps": 30, "cfg": 8.0, "sampler_name": "lms", "scheduler": "beta"},
    ),
    "efficiency, SDXL": (
        {
            "1": node(
                "Eff. Loader SDXL", base_ckpt_name="xl.safetensors", vae_name="x.vae.safetensors", **BOTH
            ),
            "7": node(
                "KSampler SDXL (Eff.)", sdxl_tuple=["1", 0], optional_vae=["1", 2], noise_seed=3, steps=9
            ),
            "9": node("SaveImage", images=["7", 3]),
        },
        {**BOTH, "model": "xl.safetensors", "seed": 3, "steps": 9, "vae": "x.vae.safetensors"},
    ),
    "easy-use": (
        {
            "1": node(
                "easy a1111Loader",
                ckpt_name="d.safetensors",
                vae_name="Baked VAE",
                lora_name="l.pt",
                lora_model_strength=0.6,
                **BOTH,
            ),
            "2": node("easy preSampling", pipe=["1", 0], **SAMPLER),
            "7": node("easy kSampler", pipe=["2", 0], image_output="Preview"),
            "9": node("SaveImage", images=["7", 1]),
        },
        {**BOTH, **OF_SAMPLER, "model": "d.safetensors", "loras": [("l.pt", 0.6)], "vae": None},
    ),
    "tinyterra": (
        {
            "1": node("ttN pipeLoader_v2", ckpt_name="t.safetensors", loras="<lora:foo:0.5>", **BOTH),
            "7": node("ttN pipeKSampler_v2", pipe=["1", 0], lora_name="None", **SAMPLER),
            "9": node("SaveImage", images=["7", 8]),
        },
        {**BOTH, **OF_SAMPLER, "model": "t.safetensors", "loras": [("foo", 0.5)]},
    ),
    "Wan's wrapper": (
        {
            "1": node("WanVideoModelLoader", model="Wan/w.safetensors", lora=["2", 0]),
            "2": node("WanVideoLoraSelect", lora="x.safetensors", strength=0.8),
            "4": node("WanVideoTextEncode", positive_prompt="a dog", negative_prompt="ugly"),
            "7": node("WanVideoSampler", model=["1", 0], text_embeds=["4", 0], steps=6, cfg=1.0, seed=42),
            "8": node("WanVideoDecode", samples=["7", 0]),
            "9": node("SaveImage", images=["8", 0]),
        },
        {
            "model": "Wan/w.safetensors",
            "positive": "a dog",
            "negative": "ugly",
            "seed": 42,
            "loras": [("x.safetensors", 0.8)],
        },
    ),
}


@pytest.mark.parametrize(("graph", "expected"), PIPES.values(), ids=PIPES)
def test_pipes_and_contexts(graph: Nodes, expected: dict[str, Any]) -> None:
    of_graph = found(graph)
    assert {name: of_graph.get(name) for name in expected} == expected


LORAS = {
    "counted": (
        node("LoRA Stacker", lora_count=1, lora_name_1="a", lora_wt_1=0.7, lora_name_2="b"),
        [("a", 0.7)],
    ),
    "numbered": (node("easy loraStack", num_loras=1, lora_1_name="a", lora_1_strength=0.5), [("a", 0.5)]),
    "switched off": (node("easy loraStack", toggle=False, num_loras=1, lora_1_name="a"), []),
    "nunchaku": (node("Stack", lora_name_1="a", lora_strength_1=0.9, lora_name_2="None"), [("a", 0.9)]),
    "with a picture": (
        node("LoraLoader|pysssss", lora_name={"content": "a.pt", "image": None}),
        [("a.pt", 1.0)],
    ),
    "as a text": (node("LoraTagLoader", text="<lora:a:0.3>"), [("a", 0.3)]),
    "managed": (
        node(
            "Lora Loader (LoraManager)",
            text="<lora:a:0.3> <lora:b:1>",
            loras={"__value__": [{"name": "a", "strength": 0.3}, {"name": "b", "active": False}]},
        ),
        [("a", 0.3)],
    ),
}


@pytest.mark.parametrize(("stack", "expected"), LORAS.values(), ids=LORAS)
def test_stacks_of_loras(stack: dict[str, Any], expected: list[tuple[str, float]]) -> None:
    stacked = plain(
        _s=stack, _l=node("Apply LoRA Stack", model=["1", 0], lora_stack=["s", 0]), _7={"model": ["l", 0]}
    )
    assert found(stacked)["loras"] == expected
    stack["inputs"]["model"] = ["1", 0]
    assert found(plain(_s=stack, _7={"model": ["s", 0]}))["loras"] == expected
    assert found(plain(_s=stack, _7={"model": ["s", 0]}))["model"] == "m.safetensors"


@pytest.mark.parametrize(
    "loader",
    [
        {"unet_name": "dir/net.gguf"}, {"model_path": "dir/net.gguf"}, {"model": "dir/net.gguf"},
        {"ckpt_name": {"content": "dir/net.gguf", "image": "x.png"}}, {"model_name": "dir/net.gguf"},
    ],
)  # fmt: skip
def test_loaders(loader: dict[str, Any]) -> None:
    graph = plain(
        _1=node("Some Loader", **loader), _l=node("LoraLoaderModelOnly", model=["1", 0], lora_name="a")
    )
    graph["7"]["inputs"]["model"] = ["l", 0]
    assert found(graph)["model"] == "dir/net.gguf"
    assert found(graph)["loras"] == [("a", 1.0)]


def _wildcard() -> Nodes:
    encode = node("ImpactWildcardEncode", model=["1", 0], wildcard_text="{a|b}", populated_text="p", seed=5)
    return plain(_4=encode, _7={"model": ["4", 0], "positive": ["4", 2]})


def _switched(kind: str, **inputs: Any) -> Nodes:
    return plain(_s=node(kind, **inputs), _7={"positive": ["s", 0]})


def _text(kind: str, **inputs: Any) -> Nodes:
    return plain(_s=node(kind, **inputs), _4={"text": ["s", 0]})


PROMPTS = {
    "wildcards": (_wildcard(), "p"),
    "Lumina": (plain(_4=node("CLIPTextEncodeLumina2", system_prompt="superior", user_prompt="p")), "p"),
    "many": (
        _switched("Combine", conditioning_1=["4", 0], conditioning_2=["q", 0], conditioning_3=["r", 0]),
        "p AND q AND r",
    ),
    "rgthree's switch": (_switched("Any Switch (rgthree)", any_02=["4", 0], any_03=["q", 0]), "p"),
    "Comfyroll's switch": (
        _switched("CR Conditioning Input Switch", Input=2, conditioning1=["q", 0], conditioning2=["4", 0]),
        "p",
    ),
    "easy-use's choice": (_switched("easy ifElse", boolean=True, on_true=["4", 0], on_false=["q", 0]), "p"),
    "Impact's choice": (
        _switched("ImpactConditionalBranch", cond=False, tt_value=["q", 0], ff_value=["4", 0]),
        "p",
    ),
    "a choice that is not known": (_switched("easy ifElse", boolean=["x", 0], on_true=["4", 0]), None),
    "a text that is chosen": (_text("CR Text Input Switch", Input=1, text1="p", text2="q"), "p"),
    "texts that are joined": (_text("JoinStringMulti", string_1="p", string_2="q", delimiter=" "), "p q"),
}


@pytest.mark.parametrize(("graph", "expected"), PROMPTS.values(), ids=PROMPTS)
def test_prompts(graph: Nodes, expected: str | None) -> None:
    assert found(graph).get("positive") == expected
    assert found(graph)["negative"] == "n"


def test_outputs_behind_a_model_are_not_taken_for_one_another() -> None:
    applied = node("ApplyInstantID", model=["1", 0], positive=["4", 0], negative=["5", 0])
    graph = plain(_a=applied, _7={"model": ["a", 0], "positive": ["a", 1], "negative": ["a", 2]})
    assert {name: found(graph)[name] for name in SIDES} == SIDES


def test_seeds_that_a_node_is_called_after_are_known_and_made_up_ones_are_not() -> None:
    for kind in ("Seed Generator (Image Saver)", "easy seed", "Seed (rgthree)"):
        assert found(plain(_s=node(kind, seed=8), _7={"seed": ["s", 0]}))["seed"] == 8
    for kind in ("Random Number", "Generate"):
        assert "seed" not in found(plain(_s=node(kind, seed=8, minimum=0), _7={"seed": ["s", 0]}))


def test_settings_that_were_typed_as_texts() -> None:
    typed = node(
        "FluxSamplerParams+", model=["1", 0], conditioning=["4", 0], latent_image=["6", 0], seed="11",
        sampler="euler", scheduler="simple", steps="20", denoise="1.0",
    )  # fmt: skip
    of_graph = found(plain(_7=typed))
    assert [of_graph[name] for name in ("seed", "steps", "sampler_name", "denoise")] == [11, 20, "euler", 1.0]
    typed["inputs"]["steps"] = "20, 30"  # one image of each
    assert "steps" not in found(plain(_7=typed))


def test_a_sampler_behind_another_that_changes_it() -> None:
    graph = plain(
        _7=node("SamplerCustomAdvanced", noise=["n", 0], guider=["g", 0], sampler=["d", 0], sigmas=["s", 0]),
        _n=node("RandomNoise", noise_seed=4),
        _g=node("CFGGuider", model=["1", 0], positive=["4", 0], negative=["5", 0], cfg=3),
        _k=node("KSamplerSelect", sampler_name="heun"),
        _d=node("DetailDaemonSamplerNode", sampler=["k", 0], detail_amount=0.1),
        _s=node("BasicScheduler", scheduler="simple", steps=5, denoise=1),
    )
    assert found(graph)["sampler_name"] == "heun"
    graph["d"]["inputs"]["sampler"] = ["d", 0]
    assert "sampler_name" not in found(graph)


def test_stage_c_of_stable_cascade_is_described() -> None:
    graph = plain(
        _b=node("UNETLoader", unet_name="stage_b.safetensors"),
        _c=node("StableCascade_StageB_Conditioning", conditioning=["5", 0], stage_c=["7", 0]),
        _s=node(
            "KSampler", model=["b", 0], positive=["c", 0], negative=["5", 0], latent_image=["6", 1], **SAMPLER
        ),
        _8={"samples": ["s", 0]},
    )
    assert (found(graph)["model"], found(graph)["seed"], found(graph)["positive"]) == (
        "m.safetensors",
        1,
        "p",
    )


@pytest.mark.parametrize(("behind", "expected"), [(["2", 0], "p"), (["9", 0], None), (["3", 0], None)])
def test_pipes_are_followed_to_where_the_prompt_came_in(behind: list[Any], expected: str | None) -> None:
    graph = plain(
        _2=node("Context (rgthree)", positive=["4", 0]),
        _3=node("Context (rgthree)", base_ctx=behind, seed=1),
        _a=node("Context (rgthree)", base_ctx=["3", 0]),
        _7={"positive": ["a", 4]},
    )
    assert found(graph).get("positive") == expected


def test_the_vae_of_a_checkpoint_is_none_of_its_own() -> None:
    loader = node("Efficient Loader", ckpt_name="e.safetensors", vae_name="Baked VAE", **BOTH)
    sampler = node("KSampler (Efficient)", model=["1", 0], optional_vae=["1", 4], **SAMPLER)
    graph = {"1": loader, "7": sampler, "9": node("SaveImage", images=["7", 5])}
    assert "vae" not in found(graph)
    loader["inputs"]["vae_name"] = "v.safetensors"
    assert found(graph)["vae"] == "v.safetensors"
