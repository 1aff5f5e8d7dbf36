#!/usr/bin/env python3
"""The archive for the ComfyUI Registry: python3 scripts/registry.py [FOLDER]

The Registry publishes a folder as it is and bans versions in which a scanner reaches `subprocess`. What is
published is therefore the nodes alone: `comfy_nodes/` becomes the top of the archive, and farm and client
come with the package `luna-farm`, its one requirement. The archive is scanned by bandit and for the calls
below; the exit code is 1 when anything is found. Publish the folder with `comfy node publish`.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bootstrap import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NODES = ROOT / "comfy_nodes"
SKIPPED = {"__pycache__", "py.typed"}
MODULES = {"subprocess", "pickle", "marshal", "shelve", "ctypes", "multiprocessing", "pty", "runpy", "code"}
CALLS = {"eval", "exec", "compile", "__import__", "import_module", "system", "popen", "fork", "startfile"}
STARTS = ("exec", "spawn", "posix_spawn")
"""Functions of `os` that begin like this start programs."""
SCRIPTS = ("eval(", "new Function", "innerHTML", "document.write", "http://", "https://")


def build(folder: Path) -> Path:
    """Write the folder that is published, and beside it the archive. Returns the archive."""
    for path in sorted(NODES.rglob("*")):
        if path.is_file() and not SKIPPED & set(path.parts):
            target = folder / path.relative_to(NODES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (folder / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
    (folder / "README.md").write_bytes((ROOT / "docs" / "comfyui.md").read_bytes())
    project, requirement = _project()
    (folder / "pyproject.toml").write_text(project, "utf-8")
    (folder / "requirements.txt").write_text(f"{requirement}\n", "utf-8")
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(folder))
    return archive


def _project() -> tuple[str, str]:
    """Return the archive's pyproject.toml and its requirement: what ours says, but for the dependencies."""
    read = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project, comfy = read["project"], read["tool"]["comfy"]
    requirement = f"luna-farm>={project['version']}"
    copied = ("name", "version", "description", "requires-python")
    lines = ["[project]", *(f"{key} = {json.dumps(project[key])}" for key in copied)]
    lines += ['license = { file = "LICENSE" }', f"dependencies = [{json.dumps(requirement)}]"]
    lines += ["", "[project.urls]"]
    lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in project["urls"].items()]
    lines += ["", "[tool.comfy]", *(f"{key} = {json.dumps(value)}" for key, value in comfy.items())]
    return "\n".join(lines) + "\n", requirement


def forbidden(folder: Path) -> Iterator[str]:
    """Yield "file:line: what" for everything in the folder that the Registry would not have."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for name in _names(node):
                yield f"{path.relative_to(folder)}:{getattr(node, 'lineno', 0)}: {name}"
    for path in sorted(folder.rglob("*.js")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            yield from (f"{path.relative_to(folder)}:{number}: {word}" for word in SCRIPTS if word in line)


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"import {one.name}" for one in node.names if one.name.split(".")[0] in MODULES)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        whole = {str(node.module), *(f"{node.module}.{one.name}" for one in node.names)}
        hits = {name for name in whole if name.split(".")[0] in MODULES or name.rpartition(".")[2] in CALLS}
        yield from (f"from {name}" for name in sorted(hits))
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield f"{node.func.id}()"
        if isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            starts = owner == "os" and node.func.attr.startswith(STARTS)
            if starts or (node.func.attr in CALLS and owner != "re"):
                yield f"{owner}.{node.func.attr}()"


def bandit(folder: Path) -> list[str]:
    """Return bandit's findings of any severity, one line each. Raises RuntimeError when it cannot run."""
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", "--format", "json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["results"]
    except (ValueError, KeyError):
        why = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise RuntimeError(
            f"bandit did not run ({why[0]}). Type: {sys.executable} -m pip install bandit"
        ) from None
    return [f"{one['filename']}:{one['line_number']}: {one['test_id']} {one['issue_text']}" for one in found]


def main() -> int:
    """Build and scan. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    where = ROOT / "build" / "registry"
    parser.add_argument("folder", nargs="?", type=Path, default=where, help=f"a new folder (default {where})")
    folder = parser.parse_args().folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        print(f"{folder} is not empty. Name a new folder, or remove it.", file=sys.stderr)
        return 2
    archive = build(folder)
    try:
        found = [*forbidden(folder), *bandit(folder)]
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(found) if found else f"{archive}: {archive.stat().st_size // 1024} KB, nothing found")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
