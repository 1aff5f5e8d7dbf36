"""What a workflow itself says of its parameters: the judge of the reader of prompts.

The workflow knows the type of each link (MODEL, CONDITIONING, ...), which a prompt does not: the judge
follows types and knows nothing of the reader's lists of names.
"""

from __future__ import annotations

from typing import Any

from bench.workflow_graph import Source, Workflow

CLASSES = {"SamplerER_SDE": "er_sde", "BetaSamplingScheduler": "beta", "KarrasScheduler": "karras"}


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
