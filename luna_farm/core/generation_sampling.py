"""How a prompt graph samples: steps, sampler, scheduler, cfg, seed and denoise, of one sampler or of the
parts of a custom one (noise, guider, sampler, sigmas).

Pure, as `generation.py` has it.
"""

from __future__ import annotations

import re
from typing import Any

from luna_farm.core.graph import Graph, Link

SEEDS = ("noise_seed", "seed")
_CFG = ("cfg", "cfg_conds", "cfg_scale")
_SIGMAS = ("sigmas", "sigmas1", "sigmas_1")
_FURTHEST = 8
"""Nodes behind one another that change sigmas or wrap a sampler."""
_SAMPLERS = {
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
_SCHEDULERS = {
    "KarrasScheduler": "karras",
    "ExponentialScheduler": "exponential",
    "PolyexponentialScheduler": "polyexponential",
    "BetaSamplingScheduler": "beta",
    "AlignYourStepsScheduler": "align_your_steps",
    "GITSScheduler": "gits",
}


def settings(graph: Graph, key: str, guider: str) -> dict[str, Any]:
    """Return what is known of the sampler `key`; `guider`: the node that holds its cfg, or itself."""
    sigmas, noise = graph.link(key, "sigmas"), graph.link(key, "noise")
    cfg = graph.number(guider, *_CFG)
    found: dict[str, Any] = {
        "steps": graph.number(key, "steps"),
        "sampler_name": graph.word(key, "sampler_name"),
        "scheduler": graph.word(key, "scheduler"),
        "cfg": graph.number(key, *_CFG) if cfg is None else cfg,
        "seed": graph.number(key, *SEEDS),
        "denoise": graph.number(key, "denoise"),
    }
    if sigmas:
        found["steps"] = of_sigmas(graph, sigmas, "steps") or _listed(graph, sigmas)
        found["denoise"] = of_sigmas(graph, sigmas, "denoise")
        found["scheduler"] = _scheduler(graph, sigmas)
    found["sampler_name"] = found["sampler_name"] or _sampler(graph, key)
    if noise and found["seed"] is None:
        found["seed"] = graph.number(noise.node, *SEEDS)
    if guider != key and graph.kind(guider) == "BasicGuider":
        found["cfg"] = 1  # it has no negative side
    return {name: value for name, value in found.items() if value not in (None, "")}


def of_sigmas(graph: Graph, link: Link | None, name: str) -> int | float | None:
    """Return a number of the node that made sigmas, past those that change them."""
    for _ in range(_FURTHEST):
        if link is None:
            return None
        number = graph.number(link.node, name)
        if number is not None:
            return number
        link = graph.link(link.node, *_SIGMAS)
    return None


def _listed(graph: Graph, link: Link) -> int | None:
    """Return the steps of sigmas that are written out: "1, 0.5, 0" are two."""
    text = graph.word(link.node, "sigmas")
    return len(re.findall(r"[\d.]+", text)) - 1 if re.fullmatch(r"[\d.eE+,;\s-]+", text) else None


def _scheduler(graph: Graph, link: Link | None) -> str:
    for _ in range(_FURTHEST):
        if link is None:
            return ""
        name = graph.word(link.node, "scheduler") or _SCHEDULERS.get(graph.kind(link.node), "")
        if name:
            return name
        link = graph.link(link.node, *_SIGMAS)
    return ""


def _sampler(graph: Graph, key: str) -> str:
    """Return the name behind an input `sampler`: itself, or that of a node, past those that wrap another."""
    for _ in range(_FURTHEST):
        given = graph.inputs(key).get("sampler")
        if isinstance(given, str):
            return given.strip()
        link = graph.resolve(given)
        if link is None:
            return ""
        key = link.node
        name = graph.word(key, "sampler_name") or _SAMPLERS.get(graph.kind(key), "")
        if name:
            return name
    return ""
