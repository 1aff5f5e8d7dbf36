"""What is collected for a file: full, parameters or none; NaN, broken texts and clashes never stop it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.imaging.metadata import NOTHING, embed, to_json


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
    assert [item.key for item in embedded.fields] == ["model_name", "model_path", "batch_index"]
    assert embedded.fields[0].text == "UnknownModel"


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
    assert "2 passwords, keys or tokens were replaced" in embedded.warnings[0]
    assert (
        "in prompt.1.inputs.api_key, extra_pnginfo.workflow.nodes[0].widgets_values[0]."
        in embedded.warnings[0]
    )


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
