#!/usr/bin/env python3
"""Writes what follows from the nodes: python3 scripts/node_texts.py

`comfy_nodes/locales/en/nodeDefs.json` repeats the nodes' own texts, for translators to begin with. The
folders `locales/` and `example_workflows/` at the top are copies of those in `comfy_nodes/`: ComfyUI looks
for them in `custom_nodes/*/`, and in a clone that is the top. A test compares all of it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NODES = ROOT / "comfy_nodes"
COPIED = ("locales", "example_workflows")


def english() -> dict[str, Any]:
    """Return the texts of all nodes in the form of ComfyUI's nodeDefs.json."""
    from luna_farm_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    texts = {}
    for name, node in NODE_CLASS_MAPPINGS.items():
        groups = node.INPUT_TYPES()
        inputs = {
            one: {"name": one, "tooltip": options["tooltip"]}
            for group in ("required", "optional")
            for one, (_, options) in groups[group].items()
        }
        outputs = {
            str(at): {"name": label, "tooltip": tip}
            for at, (label, tip) in enumerate(zip(node.RETURN_NAMES, node.OUTPUT_TOOLTIPS, strict=True))
        }
        texts[name] = {
            "display_name": NODE_DISPLAY_NAME_MAPPINGS[name],
            "description": node.DESCRIPTION,
            "inputs": inputs,
            "outputs": outputs,
        }
    return texts


def main() -> int:
    """Write the files. Returns the exit code."""
    text = json.dumps(english(), ensure_ascii=False, indent=2)
    (NODES / "locales" / "en" / "nodeDefs.json").write_text(f"{text}\n", "utf-8")
    for folder in COPIED:
        shutil.rmtree(ROOT / folder)
        shutil.copytree(NODES / folder, ROOT / folder)
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    sys.exit(main())
