"""The text that A1111 writes, from the names that nodes use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
