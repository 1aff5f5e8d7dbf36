#!/usr/bin/env python3
"""Whether the workflow of every ComfyUI template is loaded from every format, by the newest frontend.

    python3 scripts/bench template_files TEMPLATES STATIC [--every N] [--write]

TEMPLATES: the folder `templates` of comfyui-workflow-templates-json. STATIC: the folder `static` of
comfyui-frontend-package. Each template is embedded as the workflow of a small image in each format and read
back in node: PNG, WebP and AVIF by the frontend's own functions, taken out of its bundle, the others by the
script that comes with the nodes (comfy_nodes/web/luna_drop.js). A workflow counts as loaded if it is equal
to the template, value by value. `--write` puts the table into docs/formats.md. Exits with 1 if one is not
loaded.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "imaging"))
import frontend

from luna_farm.core.formats import ANIMATED, FORMATS
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.imaging.encoders import Encoded, encode
from luna_farm.imaging.encoders.animated import encode_animation
from luna_farm.imaging.metadata import embed

NEEDS = ("imagecodecs", "openexr", "pillow-heif")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "formats.md"
CHUNK = 40
"""Templates whose files lie on the disk at a time."""
OWN = {"png": "getFromPngBuffer", "webp": "getWebpMetadata", "avif": "getFromAvifFile"}
# Without values that follow one another, a lossless format could not be told from one that guesses.
PIXELS = (np.arange(16 * 17 * 3) % 251).astype(np.uint8).reshape(16, 17, 3)

_RUN = """
const fs = require('fs'), path = require('path');
const [folder, list] = process.argv.slice(1);
const buffer = file => { const b = fs.readFileSync(path.join(folder, file));
  return b.buffer.slice(b.byteOffset, b.byteOffset + b.length); };
const dropped = file => ({name: file, type: '', arrayBuffer: async () => buffer(file),
  text: async () => fs.readFileSync(path.join(folder, file), 'utf8')});
const own = {OWN};
const reads = async (kind, file) => {
  if (!own[kind]) return (await readGraph(dropped(file))).workflow;
  const found = await own[kind](buffer(file));
  return found.workflow && JSON.parse(found.workflow);
};
const same = (a, b) => require('util').isDeepStrictEqual(a, b);
(async () => {
  const results = [];
  for (const {kind, file, beside, template} of JSON.parse(fs.readFileSync(list, 'utf8'))) {
    const expected = JSON.parse(fs.readFileSync(template, 'utf8'));
    const ok = same(await reads(kind, file), expected);
    const other = !ok && beside ? same(await reads('json', beside), expected) : false;
    results.push([kind, template, ok ? 'file' : other ? 'beside' : 'lost']);
  }
  console.log(JSON.stringify(results));
})();
"""


@dataclass(frozen=True)
class Kind:
    """One row of the table: a format, still or moving."""

    name: str
    moving: bool

    @property
    def title(self) -> str:
        """What the table calls it."""
        return FORMATS[self.name].title + (", moving" if self.moving else "")

    @property
    def reader(self) -> str:
        """Key of the function that reads it: the frontend knows moving AVIF no better than a video."""
        return self.name if not (self.moving and self.name == "avif") else "avis"

    def encode(self, options: SaveOptions) -> Encoded:
        """Return a small file of this kind."""
        task = ImageTask("job", 0, "", self.name, 0, 1, "/a", "", 0, 16, 17, 3)
        embedded = embed(options, task)
        if self.moving:
            frames = np.stack([PIXELS, PIXELS[::-1]])
            return encode_animation(list(frames), self.name, options, embedded, fps=10)
        return encode(PIXELS, self.name, options, embedded)


KINDS = [Kind(name, False) for name in FORMATS] + [Kind(name, True) for name in ANIMATED]


def main() -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description="Load every template from every format.")
    parser.add_argument("templates", type=Path)
    parser.add_argument("static", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take one template of so many")
    parser.add_argument("--write", action="store_true", help="put the table into docs/formats.md")
    given = parser.parse_args()
    templates = [path for path in sorted(given.templates.glob("*.json")) if _is_workflow(path)][
        :: given.every
    ]
    script = _script(given.static)
    results: list[list[str]] = []
    for first in range(0, len(templates), CHUNK):
        results += _read(templates[first : first + CHUNK], script)
    table = _table(results, len(templates))
    print(table)
    for kind, template, place in results:
        if place == "lost":
            print(f"Lost: {Path(template).name} in {kind}", file=sys.stderr)
    if given.write:
        page = PAGE.read_text()
        marked = re.compile(r"(<!-- templates: [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)
        PAGE.write_text(marked.sub(lambda found: found[1] + table + found[2], page))
    return int(any(place == "lost" for _, _, place in results))


def _is_workflow(path: Path) -> bool:
    found = json.loads(path.read_text("utf-8"))
    return isinstance(found, dict) and "nodes" in found  # the others are lists of templates


def _script(static: Path) -> str:
    drop = (ROOT / "comfy_nodes" / "web" / "luna_drop.js").read_text("utf-8")
    drop = drop.replace("export ", "").replace('import { app } from "../../scripts/app.js";', "")
    own = ", ".join(f"{name}: {function}" for name, function in OWN.items())
    shim = "const app = {registerExtension() {}};\n"
    readers: str = frontend.source(static)
    return readers + shim + drop + _RUN.replace("{OWN}", f"{{{own}}}")


def _read(templates: list[Path], script: str) -> list[list[str]]:
    """Write the files of some templates and return [kind, template, where its workflow was found]."""
    with tempfile.TemporaryDirectory() as folder:
        asked: list[dict[str, Any]] = []
        for number, template in enumerate(templates):
            extra = json.dumps({"workflow": json.loads(template.read_text("utf-8"))})
            options = SaveOptions(output_dir="/", extra_pnginfo=extra, timestamp="2026-01-02T03:04:05")
            for kind in KINDS:
                made = kind.encode(options)
                name = f"{number}-{int(kind.moving)}.{FORMATS[kind.name].extension}"
                Path(folder, name).write_bytes(b"".join(made.buffers))
                beside = f"{name}.json" if made.sidecar is not None else ""
                if made.sidecar is not None:
                    Path(folder, beside).write_bytes(made.sidecar)
                row = {"kind": kind.reader, "file": name, "beside": beside, "template": str(template)}
                asked.append(row | {"title": kind.title})
        Path(folder, "list").write_text(json.dumps(asked))
        command = ["node", "-e", script, folder, f"{folder}/list"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
    return [[row["title"], row["template"], place] for row, (_, _, place) in zip(asked, found, strict=True)]


def _table(results: list[list[str]], count: int) -> str:
    lines = [f"| format | in the file, of {count} | in the .json beside it | lost |", "| --- " * 4 + "|"]
    for kind in KINDS:
        places = [place for title, _, place in results if title == kind.title]
        cells = (kind.title, *(str(places.count(place)) for place in ("file", "beside", "lost")))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
