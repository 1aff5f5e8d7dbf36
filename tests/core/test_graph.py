"""Values and texts along the links of a prompt."""

from __future__ import annotations

from typing import Any

import pytest

from luna_farm.core import graph
from luna_farm.core.graph import MAX_LINKS, Graph, Link


def node(kind: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


GRAPH = Graph(
    {
        "int": node("PrimitiveInt", value=7),
        "text": node("PrimitiveString", value="a cat"),
        "reroute": node("Reroute", **{"": ["int", 0]}),
        "params": node("Load Parameters", steps=30, cfg=2.5),
        "only": node("Custom", thing=4),
        "yes": node("ComfySwitchNode", switch=True, on_true=["int", 0], on_false="no"),
        "no": node("ComfySwitchNode", switch=["off", 0], on_true=["int", 0], on_false="no"),
        "off": node("PrimitiveBoolean", value=False),
        "impact": node("ImpactSwitch", select=2, input1=["text", 0], input2=["int", 0]),
        "any": node("Any Switch (rgthree)", any_01=["text", 0], any_02=["int", 0]),
        "llm": node("TextGenerate", prompt="x"),
        "math": node("ComfyMathExpression", expression="a+1", a=["int", 0]),
        "circle": node("Reroute", **{"": ["circle", 0]}),
        "joined": node("StringConcatenate", string_a=["text", 0], string_b="", delimiter=", "),
        "some": node("Text Concatenate", text_a="a", text_b="", text_c=["text", 0], delimiter="\\n"),
        "bad": node("StringConcatenate", string_a=["llm", 0], string_b="b", delimiter=" "),
        "plus": node("JoinStrings", string1="a", string2="b"),
        "replace": node("StringReplace", string=["text", 0], find="cat", replace="dog"),
        "nothing": node("StringReplace", string=["text", 0], find="", replace="dog"),
        "lost": node("StringReplace", string=["llm", 0], find="a", replace="b"),
        "show": node("PreviewAny", source=["text", 0]),
        "none": node("Note", x=1, y=2),
        "number": node("Text", text=["int", 0]),
        "broken": 5,
        "no inputs": {"class_type": "X"},
    }
)


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        (5, "", 5),
        ("x", "", "x"),
        (["int", 0], "", 7),
        (["reroute", 0], "seed", 7),
        (["params", 0], "steps", 30),
        (["params", 1], "cfg", 2.5),
        (["only", 0], "", 4),
        (["yes", 0], "", 7),
        (["no", 0], "", "no"),
        (["impact", 0], "", 7),
        (["llm", 0], "", None),
        (["math", 0], "", None),
        (["circle", 0], "", None),
        (["nowhere", 0], "", None),
        (["broken", 0], "", None),
        (["none", 0], "", None),
        (["any", 0], "", "a cat"),
        (None, "", None),
        ([], "", None),
    ],
)
def test_values(value: object, name: str, expected: object) -> None:
    assert GRAPH.value(value, name) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (["text", 0], "a cat"),
        (["joined", 0], "a cat, "),
        (["some", 0], "a\na cat"),
        (["bad", 0], None),
        (["plus", 0], "ab"),
        (["replace", 0], "a dog"),
        (["nothing", 0], "a cat"),
        (["lost", 0], None),
        (["show", 0], "a cat"),
        (["number", 0], "7"),
        (["none", 0], None),
        (["circle", 0], None),
    ],
)
def test_texts(value: object, expected: str | None) -> None:
    assert GRAPH.text(value) == expected


def test_words_and_numbers() -> None:
    assert GRAPH.number("params", "nothing", "cfg") == 2.5
    assert GRAPH.number("text", "value") is None
    assert GRAPH.word("text", "value") == "a cat"
    assert GRAPH.word("int", "value") == ""
    assert GRAPH.link("joined", "string_b", "string_a") == Link("text", 0)
    assert GRAPH.link("joined", "string_b") is None


def test_a_circle_of_texts_ends() -> None:
    circle = Graph({"a": node("Text", text=["b", 0]), "b": node("Text", text=["a", 0])})
    assert circle.text(["a", 0]) is None
    assert circle.value(["a", 0]) is None
    long = {str(n): node("Reroute", **{"": [str(n + 1), 0]}) for n in range(MAX_LINKS + 2)}
    assert Graph(long).value(["0", 0]) is None


def test_a_switch_that_hangs_on_itself_hands_nothing_on() -> None:
    switch = node("ComfySwitchNode", switch=["s", 0], on_true="x", on_false="y")
    assert Graph({"s": switch}).value(["s", 0]) is None
    two = {"a": node("Switch", select=["b", 0], input1=["x", 0], input2=["x", 0])}
    two["b"] = node("Switch", select=["a", 0], input1=["x", 0], input2=["x", 0])
    assert Graph(two).value(["a", 0]) is None


def test_a_prompt_that_branches_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_STEPS", 100)
    nodes = {
        str(n): node("StringConcatenate", string_a=[str(n + 1), 0], string_b=[str(n + 1), 0], delimiter="")
        for n in range(40)
    }
    assert Graph({**nodes, "40": node("Text", text="x")}).text(["0", 0]) is None
