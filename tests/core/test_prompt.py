"""What a ComfyUI prompt says to a file name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.core.prompt import MAX_LINKS, Prompt, script_text


def prompt(nodes: object, workflow: object = None, metadata: object = None) -> Prompt:
    extra = "" if workflow is None else json.dumps({"workflow": workflow})
    return Prompt(json.dumps(nodes), extra, "" if metadata is None else json.dumps(metadata))


def node(kind: str, title: str = "", **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


def named(number: int, name: object) -> dict[str, object]:
    return {"id": number, "properties": {"Node name for S&R": name}}


NODES = {
    "1": node("KSampler", "First", seed=11, cfg=7.0, steps=20, name="a"),
    "2": node("KSampler", "Second", seed=["9", 0]),
    "9": node("PrimitiveInt", value=99),
}


def test_the_name_for_search_and_replace_comes_first_then_title_then_class() -> None:
    workflow = {"nodes": [named(7, "Second"), named(1, "Second"), named(2, "Other"), named(1, "Other")]}
    asked = prompt(NODES, workflow)
    assert asked.widget("Second", "cfg") == ("7", "")
    assert asked.widget("First", "cfg") == ("7", "")
    assert asked.widget("PrimitiveInt", "value") == ("99", "")
    assert asked.widget("Other", "seed")[0] is None
    assert asked.widget("KSampler", "seed") == ("11", "2 nodes are called 'KSampler', the first was taken")


@pytest.mark.parametrize(
    ("name", "widget", "reason"),
    [
        ("Nobody", "x", "no node is called 'Nobody'"),
        ("First", "nothing", "has no widget 'nothing'"),
        ("Second", "seed", "has no widget 'seed'"),
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
