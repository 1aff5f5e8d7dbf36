"""The search for secrets: what it must remove and what it must keep.

    python3 scripts/bench secret_shapes TEMPLATES... [--seeds 100]

TEMPLATES: folders with workflows, such as `templates/` of the package comfyui-workflow-templates-json (pip).
The credentials are made up with seeds that no test uses. Prints what was changed or missed; exit code 1 if
anything was.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "core"))
from credentials import ALNUM, FIELDS, HEX, INNOCENT, INNOCENT_FIELDS, credentials

from luna_farm.core.scrubber import Scrubber
from luna_farm.core.secret_shapes import mask
from luna_farm.core.secrets import is_secret

FIRST_SEED = 1_000_000


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the search for secrets on what must stay and go.")
    parser.add_argument("templates", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=100)
    given = parser.parse_args()
    changed = templates(given.templates) + innocent()
    return 1 if changed + credentials_missed(given.seeds) else 0


def templates(folders: list[Path]) -> int:
    """Look for secrets in workflows that hold none; return how many were changed."""
    files = sorted(path for folder in folders for path in folder.rglob("*.json"))
    changed, slowest, texts = 0, 0.0, 0
    for path in files:
        text = path.read_text("utf-8")
        workflow = json.loads(text)
        scrubber, started = Scrubber(), time.process_time()
        cleaned = scrubber.all({"workflow": workflow}, text)["workflow"]
        slowest = max(slowest, time.process_time() - started)
        texts += len(text)
        if cleaned != workflow:
            changed += 1
            print(f"changed: {path.name}: {', '.join(scrubber.places)}")
    print(
        f"workflows: {changed} of {len(files)} changed; {texts:,} characters, slowest {slowest * 1e3:.0f} ms"
    )
    return changed


def innocent() -> int:
    """Look for secrets in texts and fields that only look like some; return how many were changed."""
    texts = [text for text in INNOCENT if mask(text) != (text, 0)]
    fields = [field for field, value in INNOCENT_FIELDS.items() if is_secret(field, value)]
    for found in (*texts, *fields):
        print(f"changed: {found}")
    total = len(INNOCENT) + len(INNOCENT_FIELDS)
    print(f"names, prompts and fields that are no secret: {len(texts) + len(fields)} of {total} changed")
    return len(texts) + len(fields)


def credentials_missed(seeds: int) -> int:
    """Make credentials up and look for them; return how many were missed."""
    missed: Counter[str] = Counter()
    total = 0
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        rng = random.Random(seed)  # noqa: S311  nothing here is secret
        for kind, text, secret in credentials(rng):
            total += 1
            missed[kind] += secret in mask(text)[0]
        for field in FIELDS:
            for alphabet, length in ((HEX, 32), (ALNUM, 40)):
                total += 1
                missed[field] += not is_secret(field, "".join(rng.choices(alphabet, k=length)))
    for kind, count in missed.most_common():
        if count:
            print(f"missed: {kind}: {count} of {seeds}")
    print(f"credentials: {missed.total()} of {total:,} missed")
    return missed.total()
