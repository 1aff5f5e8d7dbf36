"""What a ComfyUI prompt says to a file name: the value of a node's widget, and the seed.

The texts are parsed when first asked, because most names ask for neither and a workflow can be a megabyte.
This module must never raise for what a foreign workflow holds: what cannot be read is simply not found.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

SEEDS = ("seed", "noise_seed")
"""Inputs that hold the seed of a sampler or of a noise source."""

PRIMITIVES = (*SEEDS, "value", "int", "number")
"""Inputs of a node that feeds a seed into a sampler, in the order in which they are looked for."""

MAX_LINKS = 8
"""How many links are followed from a sampler to its seed; also what ends a workflow that runs in a circle."""


class Prompt:
    """The prompt of a job, and the workflow it came from, both as JSON texts; "" for none."""

    def __init__(self, prompt: str, extra_pnginfo: str, metadata: str) -> None:
        self._prompt = prompt
        self._extra_pnginfo = extra_pnginfo
        self._metadata = metadata
        self._nodes: dict[str, dict[str, Any]] | None = None
        self._names: dict[str, list[str]] | None = None
        self._seed: str | None = None
        self._seed_known = False

    def widget(self, node: str, name: str) -> tuple[str | None, str]:
        """Return (text of the widget `name` of the node called `node`, "") or (None, why it is not known).

        Nodes are found as the ComfyUI frontend finds them (its `applyTextReplacements`): by the property
        "Node name for S&R", else by title; a prompt from elsewhere may have neither, so the class comes last.
        Of several the first is taken, which is said as well: (text, warning).
        """
        found = self._called(node)
        if not found:
            return None, f"no node is called {node[:60]!r}"
        inputs = found[0].get("inputs")
        value = inputs.get(name) if isinstance(inputs, dict) else None
        if not isinstance(inputs, dict) or name not in inputs or isinstance(value, (list, dict)):
            return None, f"node {node[:60]!r} has no widget {name[:60]!r} with a value of its own"
        several = f"{len(found)} nodes are called {node[:60]!r}, the first was taken"
        return script_text(value), several if len(found) > 1 else ""

    def seed(self) -> str | None:
        """Return the seed of the generation parameters, else of the first sampler, else of any node."""
        if not self._seed_known:
            self._seed, self._seed_known = self._search_seed(), True
        return self._seed

    def _search_seed(self) -> str | None:
        given = _parsed(self._metadata).get("seed")
        if _is_seed(given):
            return str(given)
        nodes = self.nodes
        samplers = [n for n in nodes.values() if "sampler" in str(n.get("class_type", "")).lower()]
        for node in (*samplers, *nodes.values()):
            value = self._follow(node, SEEDS)
            if value is not None:
                return value
        return None

    def _follow(self, node: dict[str, Any], names: tuple[str, ...]) -> str | None:
        """Return the first whole number that `node` has under one of `names`, along links if need be."""
        for _ in range(MAX_LINKS):
            inputs = node.get("inputs")
            if not isinstance(inputs, dict):
                return None
            value = next((inputs[name] for name in names if name in inputs), None)
            if _is_seed(value):
                return str(value)
            if not isinstance(value, list) or not value or str(value[0]) not in self.nodes:
                return None
            node, names = self.nodes[str(value[0])], PRIMITIVES
        return None

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes of the prompt by their ids."""
        if self._nodes is None:
            given = _parsed(self._prompt)
            self._nodes = {key: node for key, node in given.items() if isinstance(node, dict)}
        return self._nodes

    def _called(self, name: str) -> list[dict[str, Any]]:
        nodes = self.nodes
        if self._names is None:
            self._names = self._search_names()
        found = [nodes[key] for key in self._names.get(name, ()) if key in nodes]
        found = found or [n for n in nodes.values() if _title(n) == name]
        return found or [n for n in nodes.values() if n.get("class_type") == name]

    def _search_names(self) -> dict[str, list[str]]:
        """Map "Node name for S&R" to the ids of nodes, in the order of the workflow."""
        workflow = _parsed(self._extra_pnginfo).get("workflow")
        listed = workflow.get("nodes") if isinstance(workflow, dict) else None
        names: dict[str, list[str]] = {}
        for node in listed if isinstance(listed, list) else ():
            properties = node.get("properties") if isinstance(node, dict) else None
            name = properties.get("Node name for S&R") if isinstance(properties, dict) else None
            if isinstance(name, str):
                names.setdefault(name, []).append(str(node.get("id")))
        return names


def script_text(value: object) -> str:
    """Return a plain JSON value as JavaScript writes it, which is what ComfyUI users know from names."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, float):
        return str(value)
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        plain = format(Decimal(repr(value)), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    digits, exponent = repr(value).split("e")
    return f"{digits}e{int(exponent):+d}"


def _parsed(text: str) -> dict[str, Any]:
    """Return the map that a JSON text holds, or an empty one."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _title(node: dict[str, Any]) -> object:
    meta = node.get("_meta")
    return meta.get("title") if isinstance(meta, dict) else None
