"""What a ComfyUI prompt says to a file name: the value of a node's widget, the seed and the model.

A prompt comes with the job, or in the generation parameters of a job or of one image, such as the texts of a
PNG. The texts are parsed when first asked: most names ask for neither, and a workflow can be a megabyte.
This module must never raise for what a foreign workflow holds: what cannot be read is simply not found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from luna_farm.core import generation
from luna_farm.core.generation_models import Generation
from luna_farm.core.graph import Graph

SEEDS = ("seed", "noise_seed")
"""Inputs that hold the seed of a sampler or of a noise source."""

MODELS = ("model_name", "modelname", "model", "ckpt_name", "checkpoint")
"""Generation parameters that name the model."""

MAX_SUBGRAPHS = 1000
"""Instances of subgraphs that are looked into for the names of their nodes."""


UNKNOWN_MODEL = "UnknownModel"
"""What stands in file names for a model that is not known. It is never written into a file."""
UNKNOWN = ("", "unknown", UNKNOWN_MODEL.lower())
"""What comes with a request for what its maker does not know, in lower case. Looked for only there: what a
graph does not name is absent."""
POSITIVE = ("positive_prompt", "positive", "prompt")
NEGATIVE = ("negative_prompt", "negative")
"""The names of prompts among generation parameters."""
NO_PROMPT = ("", "unknown")
"""What stands for no prompt: the second is Image Saver's default. All other words are meant."""
PARAMETERS = "parameters"
"""Generation parameter that holds the text of A1111's web UI."""
_SETTING = re.compile(r'(?:^|, |\n)(Seed|Model): ("(?:[^"\\]|\\.)*"|[^,\n]*)')


@dataclass(frozen=True, slots=True)
class Documents:
    """What a job or an image says of its making: the prompt graph, the workflow (each {} for none), and the
    other generation parameters."""

    prompt: dict[str, Any]
    workflow: dict[str, Any]
    parameters: dict[str, Any]

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Documents:
        """Take prompt graph and workflow out of a map of generation parameters, as maps or JSON texts."""
        prompt, workflow = _held(parameters.get("prompt")), _held(parameters.get("workflow"))
        prompt = prompt if _is_graph(prompt) else {}
        workflow = workflow if isinstance(workflow.get("nodes"), list) else {}
        taken = {name for name, found in (("prompt", prompt), ("workflow", workflow)) if found}
        return cls(prompt, workflow, {key: value for key, value in parameters.items() if key not in taken})


def without_unknown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the generation parameters without those that say that something is not known."""
    return {key: value for key, value in parameters.items() if not _says_nothing(key, value)}


def _says_nothing(name: str, value: object) -> bool:
    if name in POSITIVE or name in NEGATIVE:
        return value is None or value in NO_PROMPT
    return value is None or (isinstance(value, str) and is_unknown(value))


def is_unknown(name: str) -> bool:
    """Whether the name of a model, sampler or other thing says that it is not known."""
    return name.strip().lower() in UNKNOWN


def ready_text(parameters: Mapping[str, Any]) -> str:
    """Return the text of A1111's web UI that generation parameters hold, "" for none."""
    for name in ("a111_params", PARAMETERS):
        text = parameters.get(name)
        if isinstance(text, str) and text.strip() and (name != PARAMETERS or "Steps: " in text):
            return text.strip()
    return ""


class Prompt:
    """The prompt of a job, the workflow it came from, and generation parameters, all as JSON texts; "" for
    none. `of_image`: the parameters of one image, which come first. `texts`: those of another file, which
    come last."""

    def __init__(
        self, prompt: str, extra_pnginfo: str, metadata: str, of_image: str = "", texts: str = ""
    ) -> None:
        self._prompt = prompt
        self._extra_pnginfo = extra_pnginfo
        self._metadata = metadata
        self._of_image = of_image
        self._texts = texts

    @cached_property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes of the prompt by their ids."""
        nodes = self._own.prompt or _parsed(self._prompt) or self._shared.prompt
        return {key: node for key, node in nodes.items() if isinstance(node, dict)}

    @cached_property
    def _own(self) -> Documents:
        return Documents.of(_parsed(self._of_image))

    @cached_property
    def _shared(self) -> Documents:
        return Documents.of({**_parsed(self._texts), **_parsed(self._metadata)})

    @cached_property
    def graph(self) -> Graph:
        """The nodes with their links."""
        return Graph(self.nodes)

    @cached_property
    def generation(self) -> Generation:
        """What the graph says of the image."""
        return generation.read(self.nodes)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The generation parameters that came with the job and the image."""
        found: dict[str, Any] = {}
        for given in (self._shared.parameters, self._own.parameters):
            found |= {**_said(ready_text(given)), **without_unknown(given)}
        return found

    def widget(self, node: str, name: str) -> tuple[str | None, str]:
        """Return (text of the widget `name` of the node called `node`, "") or (None, why it is not known).

        Nodes are found as the ComfyUI frontend finds them (its `applyTextReplacements`): by the property
        "Node name for S&R", else by title, in subgraphs, too; a prompt from elsewhere may have neither, so
        the class comes last. Of several the first is taken, which is said as well: (text, warning). A widget
        that is fed by a link has the value that comes along the link.
        """
        found = self._called(node)
        if not found:
            return None, f"no node is called {node[:60]!r}"
        inputs = found[0].get("inputs")
        value = inputs.get(name) if isinstance(inputs, dict) else None
        if isinstance(value, list):
            plain = self.graph.value(value, name)
            value = self.graph.text(value) if plain is None or isinstance(plain, str) else plain
            value = value if value is not None else []
        if not isinstance(inputs, dict) or name not in inputs or isinstance(value, (list, dict)):
            return (
                None,
                f"node {node[:60]!r} has no widget {name[:60]!r} with a value that is known before it runs",
            )
        several = f"{len(found)} nodes are called {node[:60]!r}, the first was taken"
        return script_text(value), several if len(found) > 1 else ""

    def seed(self) -> str | None:
        """Return the seed of the generation parameters, else of the sampler that made the image, else of any
        node."""
        return self._seed

    @cached_property
    def _seed(self) -> str | None:
        given = next((self.metadata[name] for name in SEEDS if name in self.metadata), None)
        for seed in (given, self.generation.values.get("seed")):
            if _is_seed(seed):
                return str(seed)
        samplers = [key for key in self.graph.nodes if "sampler" in self.graph.kind(key).lower()]
        for key in (*samplers, *self.graph.nodes):
            seed = self.graph.number(key, *SEEDS)
            if _is_seed(seed):
                return str(seed)
        return None

    @cached_property
    def model(self) -> str:
        """The model of the generation parameters, else of the graph; "" for not known."""
        given = (self.metadata.get(name) for name in MODELS)
        return next((name for name in given if isinstance(name, str) and name.strip()), self.generation.model)

    def _called(self, name: str) -> list[dict[str, Any]]:
        nodes = self.nodes
        found = [nodes[key] for key in self._names.get(name, ()) if key in nodes]
        found = found or [n for n in nodes.values() if _title(n) == name]
        return found or [n for n in nodes.values() if n.get("class_type") == name]

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Map "Node name for S&R" and titles to the ids of nodes, in the order of the workflow.

        A node 7 in the instance 12 of a subgraph is "12:7" in the prompt.
        """
        workflow = self._own.workflow or _parsed(self._extra_pnginfo).get("workflow") or self._shared.workflow
        names: dict[str, list[str]] = {}
        titles: dict[str, list[str]] = {}
        subgraphs = {
            sub.get("id"): sub for sub in _maps(_map(_map(workflow).get("definitions")).get("subgraphs"))
        }
        waiting = [("", _map(workflow))]
        for _ in range(MAX_SUBGRAPHS):
            if not waiting:
                break
            prefix, graph = waiting.pop(0)
            for node in _maps(graph.get("nodes")):
                key = f"{prefix}{node.get('id')}"
                name, title = _map(node.get("properties")).get("Node name for S&R"), node.get("title")
                if isinstance(name, str):
                    names.setdefault(name, []).append(key)
                if isinstance(title, str):
                    titles.setdefault(title, []).append(key)
                inner = subgraphs.get(node.get("type")) if isinstance(node.get("type"), str) else None
                if inner is not None and len(waiting) < MAX_SUBGRAPHS:
                    waiting.append((f"{key}:", inner))
        return {**titles, **names}


def _held(value: object) -> dict[str, Any]:
    """Return the map that a value is, or holds as JSON text."""
    return value if isinstance(value, dict) else _parsed(value) if isinstance(value, str) else {}


def _is_graph(value: dict[str, Any]) -> bool:
    """Whether a map is a prompt of ComfyUI: nodes by their ids, each with its class."""
    return bool(value) and all(isinstance(node, dict) and "class_type" in node for node in value.values())


def _said(text: str) -> dict[str, Any]:
    """Return seed and model as a text of A1111's web UI has them, in the line behind the prompts."""
    found = {name: value.strip('"') for name, value in _SETTING.findall(text[text.rfind("\nSteps: ") + 1 :])}
    said: dict[str, Any] = {"model": found["Model"]} if found.get("Model") else {}
    return said | ({"seed": int(found["Seed"])} if found.get("Seed", "").isdecimal() else {})


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
        from decimal import Decimal  # only here: few names hold a number that is no integer

        plain = format(Decimal(repr(value)), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    digits, exponent = repr(value).split("e")
    return f"{digits}e{int(exponent):+d}"


def _parsed(text: str) -> dict[str, Any]:
    """Return the map that a JSON text holds, or an empty one."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _title(node: dict[str, Any]) -> object:
    meta = node.get("_meta")
    return meta.get("title") if isinstance(meta, dict) else None
