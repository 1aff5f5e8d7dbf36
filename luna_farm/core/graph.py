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
    ("text1", "text2", "text3", "text4"),
    ("string1", "string2", "string3", "string4"),
    ("prompt1", "prompt2", "prompt3"),
    ("prefix", "text", "suffix"),
    ("prepend", "text", "append"),
)


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
        if "switch" in inputs and ("on_true" in inputs or "on_false" in inputs):
            return True, inputs.get("on_true" if self.value(inputs["switch"], "switch") else "on_false")
        links = [value for value in inputs.values() if is_link(value)]
        if len(inputs) == 1 and links and "reroute" in kind:
            return True, links[0]
        if "switch" in kind and len(links) > 1:
            chosen = next((inputs[name] for name in ("select", "index", "input") if name in inputs), None)
            select = self.value(chosen)
            names = [
                f"input{select}",
                f"input_{select}",
                f"any_{int(select):02d}" if type(select) is int else "",
            ]
            return True, next((inputs[name] for name in names if is_link(inputs.get(name))), None)
        return False, None

    def value(self, value: Any, name: str = "") -> str | int | float | bool | None:
        """Return a number, switch or short text, along links if need be. `name`: the input that wants it."""
        for _ in range(MAX_LINKS):
            link = self.follow(value)
            if isinstance(link, (str, int, float)):
                return link
            if not isinstance(link, Link) or _MAKES_UP.search(self.kind(link.node)):
                return None
            inputs = self.inputs(link.node)
            names = (name, *_VALUE_NAMES) if name else _VALUE_NAMES
            value = next((inputs[key] for key in names if key in inputs), None)
            if value is None and len(inputs) == 1:
                value = next(iter(inputs.values()))
        return None

    def number(self, key: str, *names: str) -> int | float | None:
        """Return the first of the inputs `names` of a node that is a number."""
        for name in names:
            value = self.value(self.inputs(key).get(name), name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return value
        return None

    def word(self, key: str, *names: str) -> str:
        """Return the first of the inputs `names` of a node that is a text, "" for none."""
        for name in names:
            value = self.value(self.inputs(key).get(name), name)
            if isinstance(value, str) and value.strip():
                return value.strip()
        return ""

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
