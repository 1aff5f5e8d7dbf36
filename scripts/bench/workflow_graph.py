"""A workflow of ComfyUI's frontend as a graph, and the prompt that the frontend would send of it.

Subgraphs are expanded, bypassed and muted nodes taken out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

CONTROL = ("fixed", "increment", "decrement", "randomize")
BYPASSED, MUTED = 4, 2
NOT_RUN = ("Note", "MarkdownNote", "Reroute", "PrimitiveNode")
# Names of widgets in order, where a workflow does not give them (ComfyUI 0.33.0, nodes.py and comfy_extras/).
WIDGETS = {
    "KSampler": "seed control steps cfg sampler_name scheduler denoise",
    "KSamplerAdvanced": "add_noise noise_seed control steps cfg sampler_name scheduler start_at_step "
    "end_at_step return_with_leftover_noise",
    "SamplerCustom": "add_noise noise_seed control cfg",
    "RandomNoise": "noise_seed control",
    "KSamplerSelect": "sampler_name",
    "BasicScheduler": "scheduler steps denoise",
    "Flux2Scheduler": "steps width height",
    "CFGGuider": "cfg",
    "DualCFGGuider": "cfg_conds cfg_cond2_negative style",
    "FluxGuidance": "guidance",
    "CLIPTextEncode": "text",
    "UNETLoader": "unet_name weight_dtype",
    "UnetLoaderGGUF": "unet_name",
    "CheckpointLoaderSimple": "ckpt_name",
    "CLIPLoader": "clip_name type device",
    "DualCLIPLoader": "clip_name1 clip_name2 type device",
    "VAELoader": "vae_name",
    "LoraLoaderModelOnly": "lora_name strength_model",
    "LoraLoader": "lora_name strength_model strength_clip",
    "TextEncodeQwenImageEdit": "prompt",
    "TextEncodeQwenImageEditPlus": "prompt",
    "TextEncodeFibo2": "text",
    "TextEncodeMageFlowEdit": "prompt",
    "PrimitiveInt": "value control",
    "PrimitiveFloat": "value",
    "PrimitiveBoolean": "value",
    "PrimitiveString": "value",
    "PrimitiveStringMultiline": "value",
    "PrimitiveNode": "value control",
    "StringConcatenate": "string_a string_b delimiter",
    "StringReplace": "string find replace",
    "ComfySwitchNode": "switch",
    "ManualSigmas": "sigmas",
    "SDTurboScheduler": "steps denoise",
    "BetaSamplingScheduler": "steps alpha beta",
    "CLIPTextEncodeFlux": "clip_l t5xxl guidance",
    "TextEncodeBooguEdit": "prompt negative_prompt",
    "TextEncodeQwenImage21": "prompt negative_prompt",
    "TextEncodeMingImageEdit": "prompt",
    "SplitSigmas": "step",
    "SplitSigmasDenoise": "denoise",
    "SetFirstSigma": "sigma",
}

# Nodes whose class is the name of a sampler or scheduler.

Value = str | int | float | bool


class Source(NamedTuple):
    """Where an input comes from: the expanded id of a node and the number of its output."""

    node: str
    slot: int


class Level:
    """The nodes and links of a workflow, or of one instance of a subgraph in it."""

    def __init__(
        self, graph: dict[str, Any], prefix: str, parent: Level | None, instance: dict[str, Any]
    ) -> None:
        self.nodes = {str(node["id"]): node for node in graph["nodes"]}
        self.links = {}
        for link in graph.get("links", ()):
            fields = link if isinstance(link, dict) else dict(zip(LINK, link, strict=False))
            self.links[fields["id"]] = fields
        self.prefix, self.parent, self.instance, self.graph = prefix, parent, instance, graph


LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


class Workflow:
    """A workflow with its subgraphs expanded. `nodes`: those that run, by their expanded ids ("12:7")."""

    def __init__(self, workflow: dict[str, Any]) -> None:
        self._subgraphs = {sub["id"]: sub for sub in (workflow.get("definitions") or {}).get("subgraphs", ())}
        self._levels: dict[str, Level] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.inputs: dict[str, dict[str, Source | Value | None]] = {}
        self.types: dict[str, dict[str, str]] = {}
        self._expand(Level(workflow, "", None, {}))
        for key, (level, node) in list(self._places.items()):
            self.inputs[key], self.types[key] = self._inputs(level, node)

    _places: dict[str, tuple[Level, dict[str, Any]]]

    def _expand(self, level: Level) -> None:
        if level.parent is None:
            self._places = {}
        self._levels[level.prefix] = level
        for key, node in level.nodes.items():
            if node.get("mode") in (BYPASSED, MUTED):
                continue
            if node["type"] in self._subgraphs:
                self._expand(Level(self._subgraphs[node["type"]], f"{level.prefix}{key}:", level, node))
            elif node["type"] not in NOT_RUN:
                self.nodes[level.prefix + key] = node
                self._places[level.prefix + key] = (level, node)

    def _inputs(self, level: Level, node: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        found: dict[str, Any] = dict(widgets(node))
        types: dict[str, str] = {}
        for slot in node.get("inputs") or ():
            types[slot["name"]] = str(slot.get("type"))
            if slot.get("link") is not None:
                source = self._source(level, slot["link"], types[slot["name"]])
                if source is not None:
                    found[slot["name"]] = source
                elif not slot.get("widget"):
                    found.pop(slot["name"], None)
        return found, types

    def _source(self, level: Level, link_id: int, kind: str) -> Source | Value | None:
        link = level.links.get(link_id)
        if link is None:
            return None
        origin, slot = str(link["origin_id"]), link["origin_slot"]
        if origin == "-10":
            return self._from_outside(level, slot, kind)
        node = level.nodes.get(origin)
        if node is None or node.get("mode") == MUTED:
            return None
        if node["type"] == "PrimitiveNode":
            return next(iter(widgets(node).values()), None)
        if node["type"] == "Reroute" or node.get("mode") == BYPASSED:
            wanted = (node.get("outputs") or [{}])[slot].get("type") if node["type"] != "Reroute" else None
            slots = [s for s in node.get("inputs") or () if s.get("link") is not None]
            same = [s for s in slots if wanted in (None, s.get("type"))]
            return self._source(level, same[0]["link"], kind) if same else None
        if node["type"] in self._subgraphs:
            inner = self._levels[f"{level.prefix}{origin}:"]
            out = [
                k for k in inner.links.values() if str(k["target_id"]) == "-20" and k["target_slot"] == slot
            ]
            return self._source(inner, out[0]["id"], kind) if out else None
        return Source(level.prefix + origin, slot)

    def _from_outside(self, level: Level, slot: int, kind: str) -> Source | Value | None:
        """Return what comes into a subgraph: a link, or the value of the widget on its instance."""
        assert level.parent is not None
        name = level.graph["inputs"][slot]["name"]
        outer = [s for s in level.instance.get("inputs") or () if s["name"] == name]
        if outer and outer[0].get("link") is not None:
            return self._source(level.parent, outer[0]["link"], kind)
        value = instance_widgets(level.instance, level.graph).get(name)
        return value if isinstance(value, (str, int, float)) else None

    def prompt(self) -> dict[str, Any]:
        """Return what the frontend would send."""
        return {
            key: {
                "class_type": node["type"],
                "inputs": {
                    name: [value.node, value.slot] if isinstance(value, Source) else value
                    for name, value in self.inputs[key].items()
                    if not isinstance(value, Source) or value.node in self.nodes
                },
            }
            for key, node in self.nodes.items()
        }


def widgets(node: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the widgets of a node by their names, as far as the workflow tells them."""
    values = node.get("widgets_values")
    if isinstance(node.get("widgets_values_named"), dict):
        return {k: v for k, v in node["widgets_values_named"].items() if k != "control_after_generate"}
    if isinstance(values, dict):
        return values
    if not isinstance(values, list):
        return {}
    if node["type"] in WIDGETS:
        names = WIDGETS[node["type"]].split()
        if (
            "control" in names
            and len(values) < len(names)
            and not set(CONTROL) & {v for v in values if isinstance(v, str)}
        ):
            names.remove("control")
        return {name: value for name, value in zip(names, values, strict=False) if name != "control"}
    names = [slot["widget"]["name"] for slot in node.get("inputs") or () if slot.get("widget")]
    plain = [
        v for at, v in enumerate(values) if not (at and v in CONTROL and isinstance(values[at - 1], int))
    ]
    return dict(zip(names, plain, strict=False)) if len(names) == len(plain) else {}


def instance_widgets(node: dict[str, Any], subgraph: dict[str, Any]) -> dict[str, Any]:
    """Return the values that stand on an instance of a subgraph, by the names of its inputs."""
    properties = node.get("properties") or {}
    quarantine = properties.get("proxyWidgetErrorQuarantine") or ()
    found = {q["originalEntry"][1]: q["hostValue"] for q in quarantine if "hostValue" in q}
    names = [slot["widget"]["name"] for slot in node.get("inputs") or () if slot.get("widget")]
    values = node.get("widgets_values")
    if isinstance(node.get("widgets_values_named"), dict):
        found |= node["widgets_values_named"]
    elif isinstance(values, list) and len(values) == len(names):
        found |= dict(zip(names, values, strict=True))
    elif isinstance(values, list) and len(values) == len(inner := promoted(subgraph)):
        found |= dict(zip(inner, values, strict=True))
    elif isinstance(values, list) and len(values) == len(proxies := properties.get("proxyWidgets") or ()):
        found |= {
            name: value
            for (node_id, name), value in zip(proxies, values, strict=True)
            if str(node_id) == "-1"
        }
    return found


def promoted(subgraph: dict[str, Any]) -> list[str]:
    """Return the inputs of a subgraph that are widgets."""
    kinds = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
    return [slot["name"] for slot in subgraph["inputs"] if slot.get("type") in kinds]
