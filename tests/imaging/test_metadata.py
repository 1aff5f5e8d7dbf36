"""What is collected for a file: full, parameters or none; NaN, broken texts and clashes never stop it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.imaging import hashes, metadata
from luna_farm.imaging.documents import to_json
from luna_farm.imaging.metadata import NOTHING, embed


def _strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_full_has_everything_in_the_order_of_the_contract(options, task):
    embedded = embed(options(), task())
    assert [item.key for item in embedded.graph] == ["prompt", "workflow", "other"]
    assert {item.key: item.text for item in embedded.fields} == {
        "generation_metadata": embedded.fields[0].text,
        "custom_metadata": '{"artist":"Zo\\u00eb"}',
        "image_type": "RAW",
        "model_name": "base",
        "model_path": "SDXL/base",
        "save_timestamp": "2025-11-22T10:11:12+00:00",
        "batch_index": "2",
    }
    assert {item.key: item.text for item in embedded.generation} == {
        "gen_positive": "a café at night",
        "gen_negative": "blurry",
        "gen_steps": "20",
        "gen_cfg": "7.5",
        "gen_sampler": "euler_ancestral",
        "gen_scheduler": "karras",
        "gen_seed": "12345678901234567890",
    }
    assert embedded.parameters.startswith("a café at night\nNegative prompt: blurry\nSteps: 20, ")
    assert embedded.warnings == ()


def test_parameters_leaves_out_the_graph_alone(options, task):
    full, some = embed(options(), task()), embed(options(embed="parameters"), task())
    assert some.graph == ()
    assert (some.parameters, some.fields, some.generation) == (full.parameters, full.fields, full.generation)


def test_none_is_nothing(options, task):
    assert embed(options(embed="none"), task()) is NOTHING
    assert NOTHING.empty


def test_no_parameters_text_where_none_are_known(options, task):
    embedded = embed(options(metadata=""), task())
    assert (embedded.parameters, embedded.generation) == ("", ())


def test_empty_texts_are_not_written(options, task):
    bare = SaveOptions(output_dir="/out")
    embedded = embed(bare, task(affix=""))
    assert [item.key for item in embedded.fields] == ["batch_index"]
    named = embed(SaveOptions(output_dir="/out", model_name="UnknownModel"), task(affix=""))
    assert [item.key for item in named.fields] == ["batch_index"]


@pytest.mark.parametrize("field", ["prompt", "extra_pnginfo", "metadata", "custom_metadata"])
@pytest.mark.parametrize("text", ["{", "[" * 100_000, "nope", '{"a": ' * 200 + "1" + "}" * 200, "9" * 5000])
def test_an_unreadable_text_costs_a_warning_and_only_itself(options, task, field, text):
    embedded = embed(options(**{field: text}), task())
    assert len(embedded.warnings) == 1
    assert field in embedded.warnings[0]
    assert not embedded.empty


@pytest.mark.parametrize("field", ["extra_pnginfo", "metadata"])
def test_a_map_is_needed_where_keys_are_written(options, task, field):
    assert "a JSON object is needed" in embed(options(**{field: "[1]"}), task()).warnings[0]


def test_nan_and_infinities_become_null(options, task):
    embedded = embed(options(prompt='{"a": [NaN, -Infinity, 1e999, "NaN"]}'), task())
    assert _strict(embedded.graph[0].text) == {"a": [None, None, None, "NaN"]}


def test_the_farms_own_keys_win_over_those_of_extra_pnginfo(options, task):
    extra = json.dumps({"prompt": 1, "parameters": 2, "image_type": 3, "gen_steps": 4, "mine": 5})
    embedded = embed(options(extra_pnginfo=extra), task())
    assert [(item.key, item.text) for item in embedded.graph[1:]] == [("mine", "5")]
    assert len(embedded.warnings) == 4
    keys = [item.key for item in (*embedded.graph, *embedded.fields, *embedded.generation)]
    assert len(keys) == len(set(keys))


def test_a_flood_of_keys_is_bounded(options, task):
    embedded = embed(options(extra_pnginfo=json.dumps({f"k{n}": n for n in range(500)})), task())
    assert len(embedded.graph) == 201
    assert "500 keys" in embedded.warnings[0]


def test_secrets_are_masked_everywhere_but_in_what_the_user_wrote(options, task):
    secret = "tr0ub4dor-and-more"
    graph = json.dumps({"1": {"inputs": {"api_key": secret}}})
    workflow = json.dumps({"workflow": {"nodes": [{"id": 1, "widgets_values": [secret]}]}})
    embedded = embed(
        options(prompt=graph, extra_pnginfo=workflow, custom_metadata='{"token": "mine"}'), task()
    )
    assert secret not in "".join(item.text for item in embedded.graph)
    assert '{"token":"mine"}' in [item.text for item in embedded.fields]
    places = "prompt.1.inputs.api_key, extra_pnginfo.workflow.nodes[0].widgets_values[0]"
    assert embedded.warnings[0].endswith(f"replaced by '***' in 2 places: {places}.")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_to_json_is_strict_ascii_whatever_it_gets(value):
    text = to_json(value)
    assert text.isascii()
    _strict(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_embed_never_raises_and_writes_only_strict_json(data):
    texts = st.text(max_size=40) | json_values.map(json.dumps)
    options = SaveOptions(
        output_dir="/out",
        model_name=data.draw(st.text(max_size=20)),
        prompt=data.draw(texts),
        extra_pnginfo=data.draw(texts),
        metadata=data.draw(texts),
        custom_metadata=data.draw(texts),
        embed=data.draw(st.sampled_from(["full", "parameters"])),
    )
    embedded = embed(options, ImageTask("j", 0, "RAW", "png", 0, 1, "/out/a", "shm:x", 0, 1, 1, 3))
    for item in (*embedded.graph, *embedded.fields, *embedded.generation):
        if item.is_json:
            assert item.text.isascii()
            _strict(item.text)


GRAPH = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "x/flux.safetensors"}},
    "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": "a.safetensors", "model": ["1", 0]}},
    "3": {
        "class_type": "KSampler",
        "inputs": {"model": ["2", 0], "seed": 5, "steps": 4, "sampler_name": "euler"},
    },
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}


@pytest.mark.parametrize("how", ["full", "parameters"])
def test_parameters_and_model_come_from_the_graph(task, how):
    job = SaveOptions(output_dir="/out", prompt=json.dumps(GRAPH), embed=how)
    embedded = embed(job, task(affix="RAW"))
    assert (
        embedded.parameters == 'Steps: 4, Sampler: Euler, Seed: 5, Size: 512x768, Model: flux, LoRAs: "a: 1"'
    )
    fields = {item.key: item.text for item in embedded.fields}
    assert (fields["model_name"], fields["model_path"]) == ("flux", "x/flux")
    assert bool(embedded.graph) == (how == "full")


def test_metadata_of_one_image_comes_before_that_of_the_job(options, task):
    embedded = embed(options(), task(metadata='{"seed": 77, "note": "mine"}'))
    assert "Seed: 77" in embedded.parameters
    assert {item.key: item.text for item in embedded.generation}["gen_note"] == "mine"
    assert "Steps: 20" in embedded.parameters
    assert "metadata of the image" in embed(options(), task(metadata="[")).warnings[0]


def test_hashes_of_models_are_written(task, tmp_path, monkeypatch):
    (tmp_path / "loras").mkdir()
    (tmp_path / "unet/x").mkdir(parents=True)
    (tmp_path / "loras/a.safetensors").write_bytes(b"lora")
    (tmp_path / "unet/x/flux.safetensors").write_bytes(b"model")
    monkeypatch.setattr(metadata, "_hash_store", lambda: hashes.Hashes(None))
    job = SaveOptions(output_dir="/out", prompt=json.dumps(GRAPH), model_dirs=f"/nowhere\n{tmp_path}")
    embedded = embed(job, task())
    digests = {"model": hashlib.sha256(b"model").hexdigest(), "lora:a": hashlib.sha256(b"lora").hexdigest()}
    assert f"Model hash: {digests['model'][:10]}" in embedded.parameters
    assert f'Lora hashes: "a: {digests["lora:a"][:10]}"' in embedded.parameters
    assert json.loads({item.key: item.text for item in embedded.fields}["model_hashes"]) == digests
    late = type("Late", (), {"of": lambda self, files: ({}, list(files))})()
    monkeypatch.setattr(metadata, "_hash_store", lambda: late)
    assert "the hashes of model, lora:a are still being computed" in embed(job, task()).warnings[0]
