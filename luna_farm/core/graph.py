"""A ComfyUI prompt as a graph: nodes, links, and the values that come along them.

A node is {"class_type": ..., "inputs": {name: a value, or [id of a node, number of its output]}}. Numbers and
texts are followed through primitives, reroutes, switches and nodes that join or show texts. What a node makes
up itself (a language model, a random prompt) is not known before it runs and is None here.

Pure. This module must never raise for what a foreign prompt holds, and never follow a circle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from luna_farm.core.scrubber import is_link

MAX_LINKS = 64
"""How many links are followed one behind the other; also what ends a prompt that runs in a circle."""
MAX_TEXT = 200_000
"""Characters of a text that is put together from others."""
MAX_STEPS = 20_000
"""Nodes that are looked at for one graph, so that a prompt built to branch without end costs no more."""

Node = dict[str, Any]

# What a node does that makes its text or number up: nothing is known of its output.
_MAKES_UP = re.compile(
    r"generat|random|wildcard|llm|vlm|vqa|caption|interrogat|gpt|gemini|ollama|claude|describ|translat|extract"
    r"|regex|tagger|joy|florence|qwenvl|chat|layout|math|expression|json",
    re.IGNORECASE,
)
_ALSO = {
    "steps": ("steps_total",),
    "sampler_name": ("sampler",),
    "noise_seed": ("seed",),
    "seed": ("noise_seed", "seed_num"),
}
"""Other names that packs have for an input, asked for behind its own."""
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{1,20})?")
_VALUE_NAMES = ("value", "number", "int", "float", "seed", "noise_seed", "boolean", "string", "text", "")
_TEXT_NAMES = (
    *(
        "populated_text",
        "text",
        "value",
        "string",
        "prompt",
        "positive",
        "source",
        "input",
        "text_input",
        "any",
    ),
    *("anything", "input_text", "string_field", "content", ""),
)
_JOINED = (
    ("string_a", "string_b"),
    ("text_a", "text_b", "text_c", "text_d"),
    ("prefix", "text", "suffix"),
    ("prepend", "text", "append"),
)


_PARTS = re.compile(r"(?:text|string|prompt)_?(\d{1,2})")
_BRANCHES = (("on_true", "on_false"), ("tt_value", "ff_value"), ("if_true", "if_false"))
_CONDITIONS = ("switch", "boolean", "condition", "cond", "bool")
_CHOOSERS = ("select", "index", "input", "Input")
_CHOICE = re.compile(r"[A-Za-z]+_?0*(\d{1,2})")
"""Inputs of a switch: input1, any_02, conditioning3."""
PIPES = ("basic_pipe", "pipe", "detailer_pipe", "sdxl_tuple", "base_ctx", "ctx")
"""Inputs that hold model, prompts and more in one."""


class Link(NamedTuple):
    """Where an input comes from: the id of a node and the number of its output."""

    node: str
    output: int


class Graph:
    """The nodes of a prompt, by id. `nodes` may hold anything: what is no node is left out."""

    def __init__(self, nodes: dict[str, Any]) -> None:
        self.nodes: dict[str, Node] = {
            key: node
            for key, node in nodes.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }
        self._steps = 0
        self._open: set[str] = set()
        """Switches whose choice is being looked up: one that hangs on itself hands nothing on."""

    def kind(self, key: str) -> str:
        """Return the class of a node."""
        return str(self.nodes[key].get("class_type", ""))

    def inputs(self, key: str) -> dict[str, Any]:
        """Return the inputs of a node."""
        inputs: dict[str, Any] = self.nodes[key]["inputs"]
        return inputs

    def link(self, key: str, *names: str) -> Link | None:
        """Return where the first of the inputs `names` of a node that has a link comes from.

        Reroutes and switches on the way are passed.
        """
        inputs = self.inputs(key)
        return next((found for name in names if (found := self.resolve(inputs.get(name)))), None)

    def resolve(self, value: Any) -> Link | None:
        """Return the node behind a link, past reroutes and switches; None if there is none."""
        found = self.follow(value)
        return found if isinstance(found, Link) else None

    def follow(self, value: Any) -> Any:
        """Return the node behind a link, or the plain value that a switch hands on; None for nowhere."""
        for _ in range(MAX_LINKS):
            if not is_link(value):
                return value
            if value[0] not in self.nodes:
                return None
            link = Link(*value)
            if link.node in self._open:
                return None
            self._open.add(link.node)
            passes, value = self._passed(link)
            self._open.discard(link.node)
            if not passes:
                return link
        return None

    def _passed(self, link: Link) -> tuple[bool, Any]:
        """Return (True, what a reroute or a switch hands on), or (False, None) where the node does more."""
        inputs, kind = self.inputs(link.node), self.kind(link.node).lower()
        for true, false in _BRANCHES:
            condition = next((name for name in _CONDITIONS if name in inputs), "")
            if condition and (true in inputs or false in inputs):
                chosen = self.value(inputs[condition], condition)
                return True, None if chosen is None else inputs.get(true if chosen else false)
        links = [value for value in inputs.values() if is_link(value)]
        if len(inputs) == 1 and links and "reroute" in kind:
            return True, links[0]
        choices = {int(found[1]): name for name in inputs if (found := _CHOICE.fullmatch(name))}
        if "switch" in kind and choices:
            chooser = next((name for name in _CHOOSERS if name in inputs), "")
            if chooser:
                return True, inputs.get(choices.get(self.value(inputs[chooser], chooser), ""))  # type: ignore[arg-type]
            return True, inputs[choices[min(choices)]]  # rgthree's takes the first that is there
        return False, None

    def value(self, value: Any, name: str = "") -> str | int | float | bool | None:
        """Return a number, switch or short text, along links if need be. `name`: the input that wants it."""
        for _ in range(MAX_LINKS):
            link = self.follow(value)
            if isinstance(link, (str, int, float)):
                return link
            if not isinstance(link, Link) or self._makes_up(link.node):
                return None
            inputs = self.inputs(link.node)
            names = (name, *_ALSO.get(name, ()), *_VALUE_NAMES) if name else _VALUE_NAMES
            value = next((inputs[key] for key in names if key in inputs), None)
            if value is None and len(inputs) == 1:
                value = next(iter(inputs.values()))
        return None

    def _makes_up(self, key: str) -> bool:
        """Whether a node makes its number or text up. One that is called after the seed it holds does not."""
        kind = self.kind(key)
        if "seed" in kind.lower() and isinstance(self.inputs(key).get("seed"), int):
            return False
        return _MAKES_UP.search(kind) is not None

    def number(self, key: str, *names: str) -> int | float | None:
        """Return the first of the inputs `names` of a node that is a number."""
        for name in names:
            value = self.value(self.inputs(key).get(name), name)
            if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):  # typed into a text
                value = float(value) if "." in value else int(value)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return value
        return None

    def word(self, key: str, *names: str) -> str:
        """Return the first of the inputs `names` of a node that is a text, "" for none."""
        for name in names:
            value = self.inputs(key).get(name)
            if isinstance(value, dict) and isinstance(value.get("content"), str):  # a list with pictures
                value = value["content"]
            value = self.value(value, name)
            if isinstance(value, str) and value.strip():
                return value.strip()
        return ""

    def in_pipe(self, value: Any, *names: str) -> Any:
        """Return the first of the inputs `names` of the node that made a pipe, or of one on its way; None for
        none."""
        for _ in range(MAX_LINKS):
            link = self.resolve(value)
            if link is None:
                return None
            inputs = self.inputs(link.node)
            found = next((inputs[name] for name in names if name in inputs), None)
            if found is not None:
                return found
            value = next((inputs[name] for name in PIPES if name in inputs), None)
        return None

    def text(self, value: Any, depth: int = 0) -> str | None:
        """Return a text, along links and put together where nodes do that; None where it is not known."""
        link = self.follow(value)
        if isinstance(link, (str, int, float)):
            return str(link)
        self._steps += 1
        if not isinstance(link, Link) or depth > MAX_LINKS or self._steps > MAX_STEPS:
            return None
        inputs, kind = self.inputs(link.node), self.kind(link.node)
        if isinstance(inputs.get("populated_text"), str):  # ImpactWildcard*: what was made of the wildcards
            return str(inputs["populated_text"])
        if _MAKES_UP.search(kind):
            return None
        numbered = sorted((int(part[1]), name) for name in inputs if (part := _PARTS.fullmatch(name)))
        if len(numbered) > 1 and "text" not in inputs:
            return self._joined(link.node, [name for _, name in numbered], depth)
        joined = next(
            (names for names in _JOINED if len([name for name in names if name in inputs]) > 1), None
        )
        if joined:
            return self._joined(link.node, joined, depth)
        if "find" in inputs and "replace" in inputs:  # StringReplace
            parts = [self.text(inputs.get(name), depth + 1) for name in ("string", "find", "replace")]
            text, find, replace = (part if part is not None else "" for part in parts)
            return None if None in parts else (text.replace(find, replace) if find else text)[:MAX_TEXT]
        names = (*(name for name in _TEXT_NAMES if name in inputs), *(inputs if len(inputs) == 1 else ()))
        return self.text(inputs[names[0]], depth + 1) if names else None

    def _joined(self, key: str, names: Iterable[str], depth: int) -> str | None:
        """Join the texts of a node with its delimiter. What is not linked and empty is left out."""
        inputs = self.inputs(key)
        between = next((inputs[name] for name in ("delimiter", "separator") if name in inputs), None)
        delimiter = self.text(between, depth + 1) if between is not None else ""
        parts = [self.text(inputs[name], depth + 1) for name in names if name in inputs]
        if None in parts or delimiter is None:
            return None
        delimiter = delimiter.replace("\\n", "\n")
        if self.kind(key) != "StringConcatenate":  # which joins empty texts, too
            parts = [part for part in parts if part]
        return delimiter.join(part for part in parts if part is not None)[:MAX_TEXT]
