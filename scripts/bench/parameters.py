"""The reader of prompts: are the parameters right that it finds in workflows of people?

    python3 scripts/bench parameters TEMPLATES INDEX [--list]

TEMPLATES: the folder `templates/` of the package comfyui-workflow-templates-json (pip). INDEX: its
`index.json`, which says what each template makes. Every image template with a sampler is turned into the
prompt that ComfyUI's frontend would send (subgraphs expanded, bypassed and muted nodes taken out); what
`luna_farm.core.generation` reads in that prompt is compared, field by field, with what the workflow itself
says. The workflow knows the type of each link (MODEL, CONDITIONING, ...), which a prompt does not: the judge
follows types and knows nothing of the reader's lists of names.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from luna_farm.core import generation

CONTROL = ("fixed", "increment", "decrement", "randomize")
BYPASSED, MUTED = 4, 2
NOT_RUN = ("Note", "MarkdownNote", "Reroute", "PrimitiveNode")
SAVERS = ("SaveImage", "SaveImageAdvanced", "PreviewImage", "SaveAnimatedWEBP", "SaveSVGNode")
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
CLASSES = {"SamplerER_SDE": "er_sde", "BetaSamplingScheduler": "beta", "KarrasScheduler": "karras"}

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


class Judge:
    """Says what a workflow says, by the types of its links."""

    def __init__(self, workflow: Workflow) -> None:
        self.w = workflow

    def back(self, key: str, kind: str, seen: set[str] | None = None) -> Any:
        """Yield the nodes behind the inputs of one type, nearest first."""
        for name, value in self.w.inputs[key].items():
            if isinstance(value, Source) and value.node in self.w.nodes and self.type(key, name) == kind:
                yield value

    def type(self, key: str, name: str) -> str:
        return self.w.types[key].get(name, "")

    def source(self, key: str, name: str) -> Source | None:
        """Return the node behind an input; switches are passed."""
        return self.passed(self.w.inputs[key].get(name))

    def passed(self, value: Any) -> Source | None:
        found = self.behind(value)
        return found if isinstance(found, Source) else None

    def behind(self, value: Any) -> Any:
        """Return the node, or the value, behind an input; switches are passed."""
        for _ in range(50):
            if not isinstance(value, Source):
                return value
            if value.node not in self.w.nodes:
                return None
            if self.w.nodes[value.node]["type"] != "ComfySwitchNode":
                return value
            value = self.w.inputs[value.node].get(
                "on_true" if self.scalar(value.node, "switch") else "on_false"
            )
        return None

    def scalar(self, key: str, name: str) -> Any:
        """Return the value of a widget, through primitives; None where another kind of node makes it."""
        value = self.w.inputs[key].get(name)
        for _ in range(50):
            source = self.behind(value)
            if not isinstance(source, Source):
                return source
            if not self.w.nodes[source.node]["type"].startswith("Primitive"):
                return None
            value = self.w.inputs[source.node].get("value")
        return None

    def kinds(self, key: str) -> set[str]:
        return {str(out.get("type")) for out in self.w.nodes[key].get("outputs") or ()}

    def is_sampler(self, key: str) -> bool:
        types = set(self.w.types[key].values())
        return (
            "LATENT" in self.kinds(key)
            and bool({"MODEL", "GUIDER"} & types)
            and bool({"CONDITIONING", "GUIDER"} & types)
        )

    def samplers(self) -> list[str]:
        """Return the samplers nearest to the savers."""
        found: list[str] = []
        savers = [key for key, node in self.w.nodes.items() if node["type"].startswith("Save")]
        savers += [key for key, node in self.w.nodes.items() if node["type"].startswith("Preview")]
        for saver in savers:
            waiting, seen = [saver], set()
            while waiting:
                key = waiting.pop(0)
                if key in seen:
                    continue
                seen.add(key)
                if self.is_sampler(key):
                    found.append(key)
                    continue
                for name, value in self.w.inputs[key].items():
                    source = self.passed(value)
                    if source and self.type(key, name) in (
                        "IMAGE",
                        "LATENT",
                        "*",
                        "IMAGE,MASK",
                        "COMFY_MATCHTYPE_V3",
                    ):
                        waiting.append(source.node)
        return list(dict.fromkeys(found))

    def began(self, key: str) -> str:
        """Return the sampler of a chain that began from noise: it does all steps, with noise of its own."""
        for _ in range(10):
            sigmas, noise = self.source(key, "sigmas"), self.source(key, "noise")
            scheduler = self.up(sigmas, "SIGMAS", "denoise") if sigmas else key
            denoise = self.scalar(scheduler, "denoise") if scheduler else None
            goes_on = (
                (isinstance(denoise, (int, float)) and denoise < 1)
                or (self.scalar(key, "start_at_step") or 0) > 0
                or self.scalar(key, "add_noise") in (False, "disable")
                or (noise is not None and self.w.nodes[noise.node]["type"] == "DisableNoise")
                or (
                    sigmas is not None
                    and self.w.nodes[sigmas.node]["type"].startswith("Split")
                    and sigmas.slot == 1
                )
            )
            before = self.near(next(iter(self.back(key, "LATENT")), None)) if goes_on else None
            if before is None:
                return key
            key = before
        return key

    def near(self, start: Source | None) -> str | None:
        """Return the nearest sampler behind a latent or an image."""
        waiting, seen = [self.passed(start)], set()
        while waiting:
            at = waiting.pop(0)
            if at is None or at.node in seen:
                continue
            seen.add(at.node)
            if self.is_sampler(at.node):
                return at.node
            kinds = ("IMAGE", "LATENT", "*", "IMAGE,MASK", "COMFY_MATCHTYPE_V3")
            waiting += [
                self.passed(v) for n, v in self.w.inputs[at.node].items() if self.type(at.node, n) in kinds
            ]
        return None

    def expected(self, key: str) -> dict[str, Any]:
        """Return the parameters of one sampler, None for what is made up while it runs."""
        w, out = self.w, {}
        sigmas, guider = self.source(key, "sigmas"), self.source(key, "guider")
        sampler, noise = self.source(key, "sampler"), self.source(key, "noise")
        head = guider.node if guider else key
        scheduler = self.up(sigmas, "SIGMAS", "steps") if sigmas else key
        out["steps"] = self.scalar(scheduler, "steps") if scheduler else None
        if sigmas and w.nodes[sigmas.node]["type"] == "ManualSigmas":
            out["steps"] = str(w.inputs[sigmas.node]["sigmas"]).count(",")
        out["denoise"] = self.scalar(scheduler, "denoise") if scheduler else None
        named = self.up(sigmas, "SIGMAS", "scheduler") if sigmas else key
        out["scheduler"] = self.scalar(named, "scheduler") if named else None
        chosen = sampler.node if sampler else key
        out["sampler_name"] = self.scalar(chosen, "sampler_name")
        for name, at in (("sampler_name", sampler), ("scheduler", sigmas)):
            kind = w.nodes[at.node]["type"] if at else ""
            if out[name] is None and kind in CLASSES:
                out[name] = CLASSES[kind]
        out["seed"] = (
            self.scalar(noise.node if noise else key, "noise_seed")
            if noise
            else self.scalar(key, "noise_seed" if "noise_seed" in w.inputs[key] else "seed")
        )
        cfg = next((name for name in ("cfg", "cfg_conds") if name in w.inputs[head]), "")
        out["cfg"] = self.scalar(head, cfg) if cfg else 1 if w.nodes[head]["type"] == "BasicGuider" else None
        model, at = None, self.source(head, "model")
        loras: list[tuple[Any, Any]] = []
        while at:
            inputs = w.inputs[at.node]
            if "lora_name" in inputs:
                loras.insert(0, (self.scalar(at.node, "lora_name"), self.scalar(at.node, "strength_model")))
            loader = next((n for n in ("unet_name", "ckpt_name") if n in inputs), None)
            if loader:
                model = self.scalar(at.node, loader)
                break
            at = next(map(self.passed, self.back(at.node, "MODEL")), None)
        out["model"] = model
        out["loras"] = [(name, strength) for name, strength in loras if strength]
        for side, names in (("positive", ("positive", "conditioning", "cond1")), ("negative", ("negative",))):
            found = [self.w.inputs[head][n] for n in names if isinstance(self.w.inputs[head].get(n), Source)]
            out[side] = self.prompt(found[0], side) if found else ""
        return out

    def up(self, at: Source | None, kind: str, name: str) -> str | None:
        while at:
            if name in self.w.inputs[at.node]:
                return at.node
            at = next(map(self.passed, self.back(at.node, kind)), None)
        return None

    def prompt(self, value: Any, side: str) -> str | None:
        """Return the text behind a conditioning."""
        at = self.passed(value)
        for _ in range(100):
            if at is None:
                return None
            kind, inputs = self.w.nodes[at.node]["type"], self.w.inputs[at.node]
            if kind == "ConditioningZeroOut":
                return ""
            outputs = [o.get("type") for o in self.w.nodes[at.node].get("outputs") or ()]
            behind = [
                n
                for n, v in inputs.items()
                if isinstance(v, Source) and self.type(at.node, n) == "CONDITIONING"
            ]
            if not behind:
                if "negative_prompt" in inputs and at.slot == 1:
                    return self.text(inputs["negative_prompt"])
                texts = [n for n in ("text", "prompt", "t5xxl", "clip_l", "text_g") if n in inputs]
                return self.text(inputs[texts[0]]) if texts else None
            if kind in ("ConditioningCombine", "ConditioningConcat"):
                return None
            name = side if side in behind and outputs.count("CONDITIONING") < 2 else behind[0]
            if outputs.count("CONDITIONING") > 1:
                name = "positive" if at.slot == 0 else "negative"
                side = name
            at = self.passed(inputs.get(name))
        return None

    def text(self, value: Any) -> str | None:
        at = self.behind(value)
        if not isinstance(at, Source):
            return at if isinstance(at, str) else None
        inputs, kind = self.w.inputs[at.node], self.w.nodes[at.node]["type"]
        if kind.startswith("Primitive"):
            return self.text(inputs.get("value"))
        if kind == "StringConcatenate":
            parts = [self.text(inputs.get(name, "")) for name in ("string_a", "string_b", "delimiter")]
            return None if None in parts else f"{parts[0]}{parts[2]}{parts[1]}"
        if kind == "StringReplace":
            parts = [self.text(inputs.get(name, "")) for name in ("string", "find", "replace")]
            return None if None in parts else str(parts[0]).replace(str(parts[1]), str(parts[2]))
        if kind == "PreviewAny":
            return self.text(inputs.get("source"))
        return None


FIELDS = (
    "steps",
    "sampler_name",
    "scheduler",
    "cfg",
    "seed",
    "denoise",
    "model",
    "loras",
    "positive",
    "negative",
)


def judged(workflow: dict[str, Any]) -> tuple[dict[str, tuple[Any, Any]], dict[str, Any]] | None:
    """Return the fields that differ as (expected, found), and all that was expected; None for no sampler."""
    flat = Workflow(workflow)
    judge = Judge(flat)
    samplers = judge.samplers()
    if not samplers:
        return None
    read = generation.read(flat.prompt())
    found = {
        **{name: read.values.get(name) for name in FIELDS},
        "model": read.model or None,
        "loras": [(lora.name, lora.strength) for lora in read.loras],
    }
    best: tuple[dict[str, tuple[Any, Any]], dict[str, Any]] | None = None
    for key in dict.fromkeys(judge.began(key) for key in samplers):
        expected = judge.expected(key)
        wrong = {
            name: (expected[name], found[name]) for name in FIELDS if not same(expected[name], found[name])
        }
        if best is None or len(wrong) < len(best[0]):
            best = wrong, {**expected, "node": key}
    return best


def same(expected: Any, found: Any) -> bool:
    if isinstance(expected, str) and not expected.strip():
        expected = None
    if isinstance(expected, list):
        return bool([(n, float(s)) for n, s in expected] == found)
    return bool(expected == found) or (expected is None and isinstance(found, str) and not found.strip())


def main() -> int:
    """Judge and print."""
    parser = argparse.ArgumentParser(description="Judge the parameters read from prompts.")
    parser.add_argument("templates", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--list", action="store_true", help="show every field that is wrong")
    given = parser.parse_args()
    index = json.loads(given.index.read_text("utf-8"))
    names = [t["name"] for group in index if group.get("type") == "image" for t in group["templates"]]
    wrong: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    right = total = 0
    for name in names:
        path = given.templates / f"{name}.json"
        answer = judged(json.loads(path.read_text("utf-8"))) if path.exists() else None
        if answer is None:
            continue
        total += 1
        right += not answer[0]
        wrong.update(answer[0].keys())
        unknown.update(field for field in FIELDS if answer[1][field] is None)
        if answer[0]:
            print(f"{name} (sampler {answer[1]['node']}): {', '.join(answer[0])}")
            for field, (expected, found) in answer[0].items() if given.list else ():
                print(f"    {field}: expected {str(expected)[:300]!r}")
                print(f"    {' ' * len(field)}     found {str(found)[:300]!r}")
    print(
        f"image templates with a sampler: {total}; "
        f"right in all {len(FIELDS)} fields: {right} ({right / total:.1%})"
    )
    print("; ".join(f"{field} wrong in {count}" for field, count in wrong.most_common()))
    print(
        "not said by the workflow: "
        + "; ".join(f"{field} in {count}" for field, count in unknown.most_common())
    )
    return 0 if right >= 0.95 * total else 1
