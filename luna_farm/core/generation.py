"""What made an image, read from the prompt graph: sampler, seed, steps, model, LoRAs and prompts.

The way back starts at the saver, takes the first sampler that it meets, and of a chain (a second pass, a
refiner) the sampler that began from noise: its seed, steps and prompts are what reproduces the image. A node
is known by its inputs rather than by its class, so that samplers and loaders of other packs are read as well.
What a graph does not say is left out, never guessed.

Pure. This module must never raise for what a foreign prompt holds.
"""

from __future__ import annotations

import re
from typing import Any

from luna_farm.core import generation_sampling
from luna_farm.core.generation_models import LORA_TEXT, Generation, add_lora, read_model, to_float
from luna_farm.core.generation_sampling import SEEDS
from luna_farm.core.graph import MAX_STEPS, PIPES, Graph, Link

_SAVED = ("images", "image", *(f"image_{number}" for number in range(1, 6)))
# Inputs by which the way to a sampler goes back, the nearest first.
_BACK = (
    *("samples", "latent_image", "latent", "latents", "image", "images", "pixels", "image1", "samples1"),
    *("input_image", "destination", "video", "av_latent", "output", "denoised_output"),
)
_TEXTS = (
    "populated_text",  # what was made of wildcards
    "text",
    "prompt",
    "t5xxl",
    "text_g",
    "clip_g",
    "clip_l",
    "text_l",
    "caption",
    "llama",
    "positive_prompt",
    "user_prompt",
)
_NEGATIVE_TEXTS = ("negative_prompt", "negative_text", "text_negative")
_POSITIVE = (
    "positive",
    "conditioning",
    "cond1",
    "cond",
    "conditioning_1",
    "conditioning_to",
    "base_positive",
    *("text_embeds", "prompt_embeds"),  # both sides in one
)
_NEGATIVE = ("negative", "uncond", "base_negative", "text_embeds", "prompt_embeds")
_NUMBERED = re.compile(r"conditioning_\d{1,2}")
_EMBEDDING = re.compile(r"\bembedding:([\w./\\-]{1,200})")


def read(nodes: dict[str, Any], affix: str = "") -> Generation:
    """Read a prompt. `affix`: that of the image, by which a saver of several images says which one it is."""
    return _Reader(Graph(nodes)).read(affix)


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._seen = 0

    def read(self, affix: str) -> Generation:
        sampler = self._sampler(affix)
        found = Generation()
        if sampler is None:
            return found
        guider = self._guider(sampler)
        found.values.update(generation_sampling.settings(self._graph, sampler, guider))
        positive = self._prompt(self._conditioning(guider, _POSITIVE), True)
        negative = self._prompt(self._conditioning(guider, _NEGATIVE), False)
        if positive:
            found.values["positive"] = positive
        if negative:
            found.values["negative"] = negative
        read_model(self._graph, guider, found)
        self._skip(guider, found)
        self._guidance(guider, found)
        self._vae(affix, found)
        for text in (positive or "", negative or ""):
            for name, strength in LORA_TEXT.findall(text):
                add_lora(found.loras, name, to_float(strength, 1.0))
            found.embeddings += _EMBEDDING.findall(text)
        found.embeddings = list(dict.fromkeys(found.embeddings))
        return found

    # ---- the sampler

    def _starts(self, affix: str) -> list[Link]:
        """Return where the images of savers come from: those of `affix` first, then those of other savers."""
        graph = self._graph
        mine: list[Link] = []
        others: list[Link] = []
        for key in graph.nodes:
            kind = graph.kind(key).lower()
            if not ("save" in kind or "preview" in kind or "output" in kind):
                continue
            inputs = graph.inputs(key)
            for name in _SAVED:
                link = graph.link(key, name)
                if link is None:
                    continue
                own = inputs.get(name.replace("image_", "affix_")) if name.startswith("image_") else None
                if own is not None and own == affix:
                    mine.insert(0, link)
                else:
                    (mine if "save" in kind and own is None else others).append(link)
        return mine + others

    def _sampler(self, affix: str) -> str | None:
        graph = self._graph
        for start in self._starts(affix):
            found = self._back(start)
            if found:
                return self._first_pass(found)
        samplers = [key for key in graph.nodes if self._is_sampler(key)]
        used = {self._back(self._behind(key)) for key in samplers}
        last = next((key for key in samplers if key not in used), None)
        return self._first_pass(last) if last else next(iter(samplers), None)

    def _is_sampler(self, key: str) -> bool:
        inputs = self._graph.inputs(key)
        custom = "sigmas" in inputs and ("sampler" in inputs or "guider" in inputs)
        plain = "steps" in inputs and any(name in inputs for name in SEEDS) and "model" in inputs
        seeded = any(name in inputs for name in SEEDS)
        piped = "steps" in inputs and seeded and any(name in inputs for name in PIPES)
        return custom or plain or piped

    def _back(self, link: Link | None) -> str | None:
        """Return the nearest sampler behind a link, the nearest way first."""
        waiting, seen = [link], set[str]()
        while waiting and len(seen) < MAX_STEPS:
            at = waiting.pop(0)
            if at is None or at.node in seen:
                continue
            seen.add(at.node)
            if self._is_sampler(at.node):
                return at.node
            inputs = self._graph.inputs(at.node)
            names = sorted(inputs, key=lambda name: _BACK.index(name) if name in _BACK else len(_BACK))
            waiting += [self._graph.resolve(inputs[name]) for name in names]
        return None

    def _behind(self, key: str) -> Link | None:
        return self._graph.link(key, "latent_image", "latent", "samples", "image", "pixels")

    def _first_pass(self, key: str) -> str:
        """Return the sampler that began from noise, where this one goes on with the image of another."""
        for _ in range(8):
            before = self._back(self._behind(key)) if self._continues(key) else self._of_stage_c(key)
            if before is None or before == key:
                return key
            key = before
        return key

    def _of_stage_c(self, key: str) -> str | None:
        """Return the sampler of Stable Cascade's stage C for one of stage B, which only decodes it."""
        link = self._graph.link(key, "positive")
        return self._back(self._graph.link(link.node, "stage_c")) if link else None

    def _continues(self, key: str) -> bool:
        graph, inputs = self._graph, self._graph.inputs(key)
        sigmas = graph.link(key, "sigmas")
        denoise = graph.number(key, "denoise")
        if denoise is None and sigmas:
            denoise = generation_sampling.of_sigmas(graph, sigmas, "denoise")
            if graph.kind(sigmas.node).startswith("SplitSigmas") and sigmas.output == 1:
                return True
        noise = graph.link(key, "noise")
        return (
            (denoise is not None and denoise < 1)
            or (graph.number(key, "start_at_step") or 0) > 0
            or inputs.get("add_noise") in ("disable", False)
            or (noise is not None and graph.kind(noise.node) == "DisableNoise")
        )

    def _guider(self, key: str) -> str:
        """Return the node that holds model, prompts and cfg: the guider of a custom sampler, else itself."""
        link = self._graph.link(key, "guider", *PIPES)
        return link.node if link else key

    # ---- prompts

    def _conditioning(self, key: str, names: tuple[str, ...]) -> Any:
        inputs = self._graph.inputs(key)
        return next((inputs[name] for name in names if name in inputs), None)

    def _prompt(self, value: Any, positive: bool, depth: int = 0) -> str | None:
        """Return the text behind a conditioning, "" where it is made empty, None where it is not known."""
        graph = self._graph
        if isinstance(value, str):
            return value
        link = graph.resolve(value)
        self._seen += 1
        if link is None or depth > 64 or self._seen > MAX_STEPS:
            return None
        inputs, kind = graph.inputs(link.node), graph.kind(link.node)
        if kind == "ConditioningZeroOut":
            return ""
        parts = [inputs[name] for name in inputs if _NUMBERED.fullmatch(name)]
        parts = parts or [inputs[name] for name in ("conditioning_to", "conditioning_from") if name in inputs]
        if len(parts) > 1:
            texts = [text for part in parts if (text := self._prompt(part, positive, depth + 1))]
            return (" BREAK " if "Concat" in kind else " AND ").join(texts)
        if "positive" in inputs and "negative" in inputs:
            side = positive
            output = link.output - ("model" in inputs)  # ApplyInstantID hands its model on first
            if graph.resolve(inputs["positive"]) and graph.resolve(inputs["negative"]) and output in (0, 1):
                side = output == 0  # as ControlNetApplyAdvanced and its like have them
            if self._is_conditioning(inputs["positive" if side else "negative"]):
                return self._prompt(inputs["positive" if side else "negative"], side, depth + 1)
            return graph.text(inputs["positive" if side else "negative"])
        for name in (*_POSITIVE, *_NEGATIVE):
            if graph.resolve(inputs.get(name)):
                return self._prompt(inputs[name], positive, depth + 1)
        pipe = next((inputs[name] for name in PIPES if name in inputs), None)
        if pipe is not None:
            held = graph.in_pipe(pipe, *(_POSITIVE if positive else _NEGATIVE))
            return self._prompt(held, positive, depth + 1)
        names = [] if positive else [name for name in _NEGATIVE_TEXTS if name in inputs]
        names = names or [name for name in _TEXTS if name in inputs]
        for name in names:
            text = graph.text(inputs[name])
            if text is None or text.strip() or name == names[-1]:
                return text
        return None

    def _guidance(self, key: str, found: Generation) -> None:
        """Find what Flux and its like take in place of cfg, in the nodes between the text and the sampler."""
        link = self._graph.resolve(self._conditioning(key, _POSITIVE))
        for _ in range(64):
            if link is None:
                return
            guidance = self._graph.number(link.node, "guidance")
            if guidance is not None:
                found.values["guidance"] = guidance
                return
            link = self._graph.link(link.node, *_POSITIVE)

    def _is_conditioning(self, value: Any) -> bool:
        """Whether a link leads to a node that works on models or conditionings, not to a text."""
        link = self._graph.resolve(value)
        names = ("clip", "conditioning", "positive", "conditioning_1", "conditioning_to", "model", "pipe")
        return link is not None and any(name in self._graph.inputs(link.node) for name in names)

    def _skip(self, key: str, found: Generation) -> None:
        """Find the clip skip: in the nodes between the text of the prompt and the loader."""
        graph = self._graph
        link = graph.resolve(self._conditioning(key, _POSITIVE))
        for _ in range(64):
            if link is None:
                return
            skip = graph.number(link.node, "stop_at_clip_layer", "clip_skip")
            if isinstance(skip, int):
                if abs(skip) > 1:
                    found.values["clip_skip"] = skip
                return
            link = graph.link(link.node, "clip", *_POSITIVE, "model")

    # ---- the decoder

    def _vae(self, affix: str, found: Generation) -> None:
        """Find the VAE that decoded the image, where it is one of its own."""
        graph = self._graph
        for start in self._starts(affix):
            link: Link | None = start
            for _ in range(16):
                if link is None:
                    break
                vae = graph.link(link.node, "vae", "optional_vae")
                name = graph.word(vae.node, "vae_name") if vae else ""
                if name:
                    if not name.lower().startswith("baked"):  # that of the checkpoint
                        found.values["vae"] = name
                    return
                link = graph.link(link.node, *_BACK)
