"""The readers of ComfyUI's own frontend, taken out of its bundle to run in node: no port of them.

A frontend is the folder `static` of an unpacked wheel of comfyui-frontend-package.
"""

from __future__ import annotations

import re
from pathlib import Path

READERS = ("getFromPngBuffer", "getWebpMetadata", "getFromAvifFile")
SHIM = """
globalThis.window = {comfyAPI: {}}; const __name = f => f;
globalThis.FileReader = class {
  readAsArrayBuffer(file) {
    this.result = file;
    for (const done of [this.onload, this.onloadend]) done?.({target: this});
  }
};
console.warn = console.error = () => {};
"""
"""What a reader needs of a browser; a "file" is an ArrayBuffer."""


def source(static: Path) -> str:
    """Return JavaScript with READERS and all that they call. Raises ValueError if no bundle has them."""
    for path in sorted(static.glob("assets/*.js")):
        bundle = path.read_text("utf-8", "replace")
        if all(f"function {name}(" in bundle for name in READERS):
            return SHIM + _with_what_they_call(bundle)
    raise ValueError(f"no bundle in {static} reads PNG, WebP and AVIF")


def _with_what_they_call(bundle: str) -> str:
    found: dict[str, str] = {}
    waiting = list(READERS)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = _definition(bundle, name)
        waiting += re.findall(r"(?<![.\w$])([A-Za-z_$][\w$]{3,})\(", found[name])
    parts = [text for text in found.values() if text]
    keys = sorted(set(re.findall(r"\b([A-Za-z_$][\w$]*)\.(?:PROMPT|WORKFLOW)\b", "".join(parts))))
    enums = [f"const {name} = {{PROMPT: 'prompt', WORKFLOW: 'workflow'}};" for name in keys]
    return "\n".join([*enums, *parts])


def _definition(bundle: str, name: str) -> str:
    """Return the source of a function or of an arrow function, "" for what the bundle does not define."""
    escaped = re.escape(name)
    start = re.search(rf"(?:async )?function {escaped}\(", bundle)
    if start is not None:
        return bundle[start.start() : _end(bundle, start.end())]
    start = re.search(
        rf"(?<![.\w$]){escaped} ?= ?(?:/\*.*?\*/ ?)?(?:__name\()?((?:async ?)?(?:\([^)]*\)|\w+) ?=> ?)\{{",
        bundle,
    )
    if start is None:
        return ""
    return f"const {name}={bundle[start.start(1) : _end(bundle, start.end(1))]};"


def _end(bundle: str, at: int) -> int:
    """Return where the block ends that begins at the next brace."""
    depth = 0
    for end in range(bundle.index("{", at), len(bundle)):
        depth += {"{": 1, "}": -1}.get(bundle[end], 0)
        if depth == 0:
            return end + 1
    raise ValueError("a block has no end")
