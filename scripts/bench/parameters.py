"""The reader of prompts: are the parameters right that it finds in workflows of people?

    python3 scripts/bench parameters TEMPLATES INDEX [--list]

TEMPLATES: the folder `templates/` of the package comfyui-workflow-templates-json (pip). INDEX: its
`index.json`, which says what each template makes. Every image template with a sampler is turned into the
prompt that ComfyUI's frontend would send (subgraphs expanded, bypassed and muted nodes taken out); what
`luna_farm.core.generation` reads in that prompt is compared, field by field, with what the workflow itself
says (`parameter_judge.py`).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from bench.parameter_judge import Judge
from bench.workflow_graph import Workflow

from luna_farm.core import generation

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
