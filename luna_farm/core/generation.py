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

from luna_farm.core.generation_models import Generation, add_lora, read_model, to_float
from luna_farm.core.graph import MAX_STEPS, Graph, Link

_SAVED = ("images", "image", *(f"image_{number}" for number in range(1, 6)))
# Inputs by which the way to a sampler goes back, the nearest first.
_BACK = (
    *("samples", "latent_image", "latent", "latents", "image", "images", "pixels", "image1", "samples1"),
    *("input_image", "destination", "video", "av_latent", "output", "denoised_output"),
)
_SEEDS = ("noise_seed", "seed")
_NAMED_SAMPLERS = {
    "SamplerEulerAncestral": "euler_ancestral",
    "SamplerEulerAncestralCFGPP": "euler_ancestral_cfg_pp",
    "SamplerEulerCFGpp": "euler_cfg_pp",
    "SamplerLMS": "lms",
    "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
    "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
    "SamplerDPMPP_SDE": "dpmpp_sde",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
    "SamplerDPMAdaptative": "dpm_adaptive",
    "SamplerER_SDE": "er_sde",
    "SamplerSASolver": "sa_solver",
    "SamplerSEEDS2": "seeds_2",
    "SamplerLCMUpscale": "lcm",
}
_NAMED_SCHEDULERS = {
    "KarrasScheduler": "karras",
    "ExponentialScheduler": "exponential",
    "PolyexponentialScheduler": "polyexponential",
    "BetaSamplingScheduler": "beta",
    "AlignYourStepsScheduler": "align_your_steps",
    "GITSScheduler": "gits",
}
_TEXTS = (
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
)
_NEGATIVE = ("negative", "uncond", "base_negative")
_LORA_TEXT = re.compile(r"<(?:lora|lyco):([^:<>]{1,200}):?(-?[\d.]{0,8})[^<>]{0,40}>")
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
        self._settings(sampler, found.values)
        guider = self._guider(sampler)
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
            for name, strength in _LORA_TEXT.findall(text):
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
        plain = "steps" in inputs and any(name in inputs for name in _SEEDS) and "model" in inputs
        piped = "steps" in inputs and "seed" in inputs and ("pipe" in inputs or "basic_pipe" in inputs)
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
            before = self._back(self._behind(key)) if self._continues(key) else None
            if before is None or before == key:
                return key
            key = before
        return key

    def _continues(self, key: str) -> bool:
        graph, inputs = self._graph, self._graph.inputs(key)
        sigmas = graph.link(key, "sigmas")
        denoise = graph.number(key, "denoise")
        if denoise is None and sigmas:
            denoise = self._of_sigmas(sigmas, "denoise")
            if graph.kind(sigmas.node).startswith("SplitSigmas") and sigmas.output == 1:
                return True
        noise = graph.link(key, "noise")
        return (
            (denoise is not None and denoise < 1)
            or (graph.number(key, "start_at_step") or 0) > 0
            or inputs.get("add_noise") in ("disable", False)
            or (noise is not None and graph.kind(noise.node) == "DisableNoise")
        )

    def _settings(self, key: str, values: dict[str, Any]) -> None:
        graph = self._graph
        sigmas, chosen = graph.link(key, "sigmas"), graph.link(key, "sampler")
        noise, guider = graph.link(key, "noise"), self._guider(key)
        found: dict[str, Any] = {
            "steps": graph.number(key, "steps"),
            "sampler_name": graph.word(key, "sampler_name"),
            "scheduler": graph.word(key, "scheduler"),
            "cfg": graph.number(guider, "cfg", "cfg_conds", "cfg_scale"),
            "seed": graph.number(key, *_SEEDS),
            "denoise": graph.number(key, "denoise"),
        }
        if sigmas:
            found["steps"] = self._of_sigmas(sigmas, "steps") or self._listed(sigmas)
            found["denoise"] = self._of_sigmas(sigmas, "denoise")
            found["scheduler"] = self._scheduler(sigmas)
        if chosen and not found["sampler_name"]:
            kind = graph.kind(chosen.node)
            found["sampler_name"] = graph.word(chosen.node, "sampler_name") or _NAMED_SAMPLERS.get(kind, "")
        if noise and found["seed"] is None:
            found["seed"] = graph.number(noise.node, *_SEEDS)
        if guider != key and graph.kind(guider) == "BasicGuider":
            found["cfg"] = 1  # it has no negative side
        values.update({name: value for name, value in found.items() if value not in (None, "")})

    def _of_sigmas(self, link: Link | None, name: str) -> int | float | None:
        for _ in range(8):
            if link is None:
                return None
            number = self._graph.number(link.node, name)
            if number is not None:
                return number
            link = self._graph.link(link.node, "sigmas", "sigmas1", "sigmas_1")
        return None

    def _listed(self, link: Link) -> int | None:
        """Return the steps of sigmas that are written out: "1, 0.5, 0" are two."""
        text = self._graph.word(link.node, "sigmas")
        return len(re.findall(r"[\d.]+", text)) - 1 if re.fullmatch(r"[\d.eE+,;\s-]+", text) else None

    def _scheduler(self, link: Link | None) -> str:
        for _ in range(8):
            if link is None:
                return ""
            name = self._graph.word(link.node, "scheduler")
            name = name or _NAMED_SCHEDULERS.get(self._graph.kind(link.node), "")
            if name:
                return name
            link = self._graph.link(link.node, "sigmas", "sigmas1", "sigmas_1")
        return ""

    def _guider(self, key: str) -> str:
        """Return the node that holds model, prompts and cfg: the guider of a custom sampler, else itself."""
        link = self._graph.link(key, "guider", "basic_pipe", "pipe")
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
        parts = [inputs[name] for name in ("conditioning_1", "conditioning_2") if name in inputs]
        parts = parts or [inputs[name] for name in ("conditioning_to", "conditioning_from") if name in inputs]
        if len(parts) > 1:
            texts = [text for part in parts if (text := self._prompt(part, positive, depth + 1))]
            return (" BREAK " if "Concat" in kind else " AND ").join(texts)
        if "positive" in inputs and "negative" in inputs:
            side = positive
            if graph.resolve(inputs["positive"]) and graph.resolve(inputs["negative"]) and link.output < 2:
                side = link.output == 0  # as ControlNetApplyAdvanced and its like have them
            if self._is_conditioning(inputs["positive" if side else "negative"]):
                return self._prompt(inputs["positive" if side else "negative"], side, depth + 1)
            return graph.text(inputs["positive" if side else "negative"])
        for name in (*_POSITIVE, *_NEGATIVE):
            if graph.resolve(inputs.get(name)):
                return self._prompt(inputs[name], positive, depth + 1)
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
                vae = graph.link(link.node, "vae")
                if vae and graph.word(vae.node, "vae_name"):
                    found.values["vae"] = graph.word(vae.node, "vae_name")
                    return
                link = graph.link(link.node, *_BACK)
