"""The text that A1111 writes, from the names that nodes use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.generation_models import Generation, Lora
from luna_farm.imaging.metadata_a1111 import text


def _of(known, model="base"):
    return text(known, model=model, width=512, height=768)


def test_the_whole_text():
    known = {
        "positive": "a cat, a dog",
        "negative": "blurry",
        "steps": 20,
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "cfg": 7.0,
        "seed": 5,
        "clip_skip": -2,
        "denoise": 0.5,
        "vae": "ae.safetensors",
        "model_hash": "abc123",
        "width": 1024,
        "height": 1536,
    }
    assert _of(known) == (
        "a cat, a dog\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 7.0, Seed: 5, Clip skip: 2, "
        "Denoising strength: 0.5, Size: 1024x1536, Model: base, Model hash: abc123, VAE: ae.safetensors"
    )


def test_the_size_of_the_picture_and_the_model_of_the_job_fill_in():
    assert _of({"steps": 4}) == "Steps: 4, Size: 512x768, Model: base"
    assert _of({"steps": 4, "model": "own"}, model="") == "Steps: 4, Size: 512x768, Model: own"


def test_defaults_are_left_out_and_unknown_names_kept():
    known = {"sampler": "new_one", "denoise": 1, "clip_skip": -1, "negative": "", "positive": None}
    assert _of(known, model="") == "Sampler: new_one, Size: 512x768"


def test_nothing_known_is_no_text():
    assert _of({}) == ""
    assert _of({"width": 5, "height": 5, "model": "x", "note": "hello"}) == ""


def test_a_value_that_would_end_the_line_early_is_quoted():
    assert _of({"sampler": "a, b: c"}).startswith('Sampler: "a, b: c", Size')


@given(
    st.dictionaries(
        st.sampled_from(["positive", "steps", "sampler", "seed", "width", "clip_skip", "vae"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
    )
)
def test_whatever_a_map_holds_it_never_raises(known):
    assert isinstance(_of(known), str)


def test_what_the_graph_says_fills_in_what_did_not_come_with_the_job():
    generation = Generation(
        {"positive": "a cat", "steps": 20, "sampler_name": "euler", "cfg": 1, "guidance": 3.5, "seed": 5},
        "x/flux.safetensors",
        [Lora("sub/a.safetensors", 0.5), Lora("b", 1.0)],
    )
    digests = {"model": "ab" * 32, "lora:a": "cd" * 32, "embed:bad": "ef" * 32}
    found = text(
        {"steps": 8}, model="x/flux.safetensors", width=64, height=32, generation=generation, hashes=digests
    )
    assert found == (
        "a cat\n"
        "Steps: 8, Sampler: Euler, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 5, Size: 64x32, "
        'Model: flux, Model hash: ababababab, LoRAs: "a: 0.5, b: 1", Lora hashes: "a: cdcdcdcdcd", '
        'TI hashes: "bad: efefefefef", '
        'Hashes: {"model":"ababababab","lora:a":"cdcdcdcdcd","embed:bad":"efefefefef"}'
    )


def test_hashes_that_came_with_the_job():
    known = {
        "steps": 1,
        "model": "x/m.ckpt",
        "hashes": {"model": "0123456789", "lora:a": "abcdef0123", "vae": 5},
    }
    assert _of(known).endswith(
        'Model: m, Model hash: 0123456789, Lora hashes: "a: abcdef0123", '
        'Hashes: {"model":"0123456789","lora:a":"abcdef0123"}'
    )
    known["hashes"] = '{"lora:b": "abcdef0123"}'
    assert 'Lora hashes: "b: abcdef0123"' in _of(known)
    for broken in ("{", "[" * 100_000, 5):
        assert "Hashes" not in _of({"steps": 1, "hashes": broken})
    assert "TI hashes" in _of({"steps": 1, "embedding_hashes": {"e": "abcdef0123"}})


def test_the_metadata_of_image_saver():
    known = {
        "modelname": "SDXL/base.safetensors",
        "positive": "a cat",
        "negative": "unknown",
        "steps": 20,
        "sampler_name": "euler",
        "scheduler_name": "karras",
        "seed": 5,
        "final_hashes": "base:0123456789,my_lora:abcdef0123:0.8,unnamed",
        "a111_params": "",
    }
    assert _of(known, model="") == (
        "a cat\n"
        "Steps: 20, Sampler: Euler, Schedule type: Karras, Seed: 5, Size: 512x768, Model: base, "
        'Model hash: 0123456789, Lora hashes: "my_lora: abcdef0123", '
        'Hashes: {"model":"0123456789","lora:my_lora":"abcdef0123"}'
    )
    ready = "a cat\nSteps: 20, Civitai resources: []"
    assert _of({**known, "a111_params": f"{ready}\n"}) == ready


def test_what_is_not_known_is_not_written():
    assert "Model" not in _of({"steps": 1}, model="")
    assert "Model" not in _of({"steps": 1, "model": "unknown"}, model="")
