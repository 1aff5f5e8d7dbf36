"""What a ComfyUI prompt says to a file name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.core.graph import MAX_LINKS
from luna_farm.core.prompt import Documents, Prompt, is_unknown, ready_text, script_text, without_unknown


def prompt(nodes: object, workflow: object = None, metadata: object = None) -> Prompt:
    extra = "" if workflow is None else json.dumps({"workflow": workflow})
    return Prompt(json.dumps(nodes), extra, "" if metadata is None else json.dumps(metadata))


def node(kind: str, title: str = "", **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


def named(number: int, name: object) -> dict[str, object]:
    return {"id": number, "properties": {"Node name for S&R": name}}


NODES = {
    "1": node("KSampler", "First", seed=11, cfg=7.0, steps=20, name="a", model=["9", 0, 0], made_up=["8", 0]),
    "8": node("TextGenerate", prompt="a cat"),
    "2": node("KSampler", "Second", seed=["9", 0]),
    "9": node("PrimitiveInt", value=99),
}


def test_the_name_for_search_and_replace_comes_first_then_title_then_class() -> None:
    workflow = {"nodes": [named(7, "Second"), named(1, "Second"), named(2, "Other"), named(1, "Other")]}
    asked = prompt(NODES, workflow)
    assert asked.widget("Second", "cfg") == ("7", "")
    assert asked.widget("First", "cfg") == ("7", "")
    assert asked.widget("PrimitiveInt", "value") == ("99", "")
    assert asked.widget("Other", "seed")[0] == "99"
    assert asked.widget("KSampler", "seed") == ("11", "2 nodes are called 'KSampler', the first was taken")


@pytest.mark.parametrize(
    ("name", "widget", "reason"),
    [
        ("Nobody", "x", "no node is called 'Nobody'"),
        ("First", "nothing", "has no widget 'nothing'"),
        ("First", "model", "has no widget 'model'"),
        ("First", "made_up", "has no widget 'made_up'"),
    ],
)
def test_why_a_widget_is_not_known(name: str, widget: str, reason: str) -> None:
    text, warning = prompt(NODES).widget(name, widget)
    assert text is None
    assert reason in warning


def test_the_seed_of_the_parameters_comes_before_that_of_the_prompt() -> None:
    assert prompt(NODES, metadata={"seed": 5}).seed() == "5"
    assert prompt(NODES, metadata={"seed": True}).seed() == "11"
    assert prompt(NODES, metadata={"seed": "5"}).seed() == "11"


def test_the_seed_is_that_of_a_sampler_even_behind_a_link() -> None:
    assert prompt({"0": node("Noise", seed=1), **NODES}).seed() == "11"
    assert prompt({"2": NODES["2"], "9": NODES["9"]}).seed() == "99"
    assert prompt({"5": node("RandomNoise", noise_seed=3)}).seed() == "3"
    assert (
        prompt(
            {"5": node("SamplerCustomAdvanced", noise=["6", 0]), "6": node("RandomNoise", noise_seed=3)}
        ).seed()
        == "3"
    )


def test_the_seed_is_looked_for_once() -> None:
    asked = prompt(NODES)
    assert asked.seed() == asked.seed() == "11"


def test_links_that_run_in_a_circle_or_nowhere_end() -> None:
    circle = {"1": node("KSampler", seed=["2", 0]), "2": node("Int", value=["1", 0])}
    assert prompt(circle).seed() is None
    chain = {str(n): node("Int", seed=[str(n + 1), 0]) for n in range(MAX_LINKS + 2)}
    assert prompt({"s": node("KSampler", seed=["0", 0]), **chain}).seed() is None
    assert prompt({"1": node("KSampler", seed=["7", 0])}).seed() is None
    assert prompt({"1": node("KSampler", seed=[])}).seed() is None
    assert prompt({"1": {"class_type": "KSampler", "inputs": None}}).seed() is None


@pytest.mark.parametrize(
    "broken", ["", "{", "[]", "null", "[" * 100_000, '{"1": 1, "2": {"_meta": 3, "inputs": 4}}']
)
@pytest.mark.parametrize(
    "workflow", ["", "{", '{"workflow": 1}', '{"workflow": {"nodes": [1, {"properties": 2}, {}]}}']
)
def test_what_cannot_be_read_is_not_found(broken: str, workflow: str) -> None:
    asked = Prompt(broken, workflow, broken)
    assert asked.seed() is None
    assert asked.widget("a", "b")[0] is None


def test_a_name_that_is_no_text_is_no_name() -> None:
    assert prompt(NODES, {"nodes": [named(1, 5), named(1, None)]}).widget("5", "cfg")[0] is None


# Made with a JavaScript engine: `value + ""`.
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        ("x", "x"),
        (7, "7"),
        (7.0, "7"),
        (100.0, "100"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (-0.0, "0"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e16, "10000000000000000"),
        (1.5e-7, "1.5e-7"),
        (1e-6, "0.000001"),
        (0.00001, "0.00001"),
        (123456789.125, "123456789.125"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_values_are_written_as_javascript_writes_them(value: object, expected: str) -> None:
    assert script_text(value) == expected


@settings(max_examples=100)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_number_is_lost(value: float) -> None:
    assert float(script_text(value)) == value


def test_a_widget_that_is_fed_by_a_link_has_the_value_that_comes_along() -> None:
    nodes = {
        "1": node("KSampler", seed=["2", 0], cfg=["5", 0]),
        "2": node("Reroute", **{"": ["3", 0]}),
        "3": node("PrimitiveInt", value=7),
        "4": node("CLIPTextEncode", text=["6", 0]),
        "5": node("PrimitiveFloat", value=2.5),
        "6": node("StringConcatenate", string_a="a cat", string_b=["7", 0], delimiter=", "),
        "7": node("PrimitiveString", value="a dog"),
    }
    asked = prompt(nodes)
    assert asked.widget("KSampler", "seed") == ("7", "")
    assert asked.widget("KSampler", "cfg") == ("2.5", "")
    assert asked.widget("CLIPTextEncode", "text") == ("a cat, a dog", "")


def test_nodes_in_subgraphs_are_found_by_name_and_title() -> None:
    nodes = {"12:7": node("KSampler", seed=5), "12:30:4": node("Sub", steps=9), "1": node("Save", x=1)}
    inner = {"id": "inner", "nodes": [{"id": 4, "title": "Deep"}, {"id": 5, "type": "outer"}]}
    outer = {"id": "outer", "nodes": [named(7, "Base"), {"id": 30, "type": "inner"}]}
    workflow = {"nodes": [{"id": 12, "type": "outer"}], "definitions": {"subgraphs": [inner, outer, 5]}}
    asked = prompt(nodes, workflow)
    assert asked.widget("Base", "seed") == ("5", "")
    assert asked.widget("Deep", "steps") == ("9", "")


def test_the_seed_of_a_flux_graph_is_that_of_its_noise() -> None:
    nodes = {
        "1": node("SaveImage", images=["2", 0]),
        "2": node("VAEDecode", samples=["3", 0]),
        "3": node(
            "SamplerCustomAdvanced", noise=["4", 0], guider=["5", 0], sampler=["6", 0], sigmas=["7", 0]
        ),
        "4": node("RandomNoise", noise_seed=44),
        "0": node("OtherSampler", seed=1),
        "5": node("BasicGuider"),
        "6": node("KSamplerSelect", sampler_name="euler"),
        "7": node("BasicScheduler", steps=4, scheduler="simple", denoise=1),
    }
    assert prompt(nodes).seed() == "44"


def test_the_model_is_given_or_read_from_the_graph() -> None:
    nodes = {
        "1": node("KSampler", model=["2", 0], seed=1, steps=2),
        "2": node("CheckpointLoaderSimple", ckpt_name="XL/base.safetensors"),
    }
    assert prompt(nodes).model == "XL/base.safetensors"
    assert prompt(nodes, metadata={"modelname": "own"}).model == "own"
    assert prompt({}).model == ""


# --- prompts among the generation parameters


def test_a_prompt_among_the_parameters_is_taken_and_that_of_the_image_comes_first() -> None:
    graph, own = {"1": node("KSampler", seed=1)}, {"1": node("KSampler", seed=2)}
    assert Prompt("", "", json.dumps({"prompt": graph})).seed() == "1"
    assert Prompt("", "", json.dumps({"prompt": json.dumps(graph)})).seed() == "1"
    assert Prompt(json.dumps(graph), "", "", json.dumps({"prompt": own})).seed() == "2"
    assert Prompt(json.dumps(own), "", json.dumps({"prompt": graph})).seed() == "2"
    assert Prompt(json.dumps(graph), "", json.dumps({"seed": 3}), json.dumps({"seed": 4})).seed() == "4"


def test_a_workflow_among_the_parameters_names_the_nodes() -> None:
    workflow = {"nodes": [named(1, "Mine")]}
    for held in (workflow, json.dumps(workflow)):
        of_image = json.dumps({"prompt": NODES, "workflow": held})
        assert Prompt("", "", "", of_image).widget("Mine", "steps") == ("20", "")
        assert Prompt("", "", of_image).widget("Mine", "steps") == ("20", "")


@pytest.mark.parametrize("prompt", ["a cat", "{a cat", {}, {"1": {}}, {"a": 1}, [1], None, 5])
def test_a_prompt_that_is_no_graph_stays_a_parameter(prompt: object) -> None:
    given = {"prompt": prompt, "workflow": {"no": "nodes"}, "seed": 5}
    assert Documents.of(given) == Documents({}, {}, given)


@pytest.mark.parametrize(
    ("text", "seed", "model"),
    [
        ("a cat\nNegative prompt: bad\nSteps: 20, Seed: 5, Size: 8x8, Model: base", "5", "base"),
        ('Steps: 20, Model: "a, b", Seed: 7', "7", "a, b"),
        ("Seed: 1, Model: trap\nSteps: 20, CFG scale: 7", None, ""),
        ("Steps: 20, Seed: what, Model hash: 12345", None, ""),
    ],
)
def test_seed_and_model_come_from_a_text_of_a1111(text: str, seed: str | None, model: str) -> None:
    for name in ("parameters", "a111_params"):
        asked = Prompt("", "", json.dumps({name: text}))
        assert (asked.seed(), asked.model) == (seed, model)
    assert Prompt("", "", json.dumps({"parameters": text, "seed": 99})).seed() == "99"


def test_a_ready_text_is_one_of_image_saver_or_of_another_file() -> None:
    assert ready_text({"a111_params": " a\nSteps: 1 ", "parameters": "b\nSteps: 2"}) == "a\nSteps: 1"
    assert ready_text({"a111_params": " ", "parameters": "b\nSteps: 2"}) == "b\nSteps: 2"
    assert ready_text({"parameters": "just words", "a111_params": 5}) == ""


def test_what_says_that_something_is_not_known_says_nothing() -> None:
    given = {
        "model_name": "UnknownModel",
        "a": None,
        "b": "",
        "c": "unknown",
        "d": 0,
        "e": False,
        "f": "known",
        "positive": "UnknownModel",
        "negative": "unknown",
        "prompt": None,
    }
    known = {"d": 0, "e": False, "f": "known", "positive": "UnknownModel"}
    assert without_unknown(given) == known, "the words of a prompt are meant"
    assert is_unknown(" Unknown ")
    assert not is_unknown("unknown_v2")
