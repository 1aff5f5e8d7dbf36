"""No two modules need one another, not even for a type, or inside a function."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"luna_farm": "luna_farm", "luna_farm_client": "client", "luna_farm_nodes": "comfy_nodes"}


def modules() -> dict[str, Path]:
    """Every module of the product by its name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the product that a module imports, anywhere in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (above, node.module)))
            inner = {f"{source}.{alias.name}" for alias in node.names}
            found |= (inner & known.keys()) or {source}
    return (found & known.keys()) - {name}


def test_no_imports_run_in_a_circle() -> None:
    known = modules()
    assert len(known) > 250, "the product is found"
    # The face of a package hands names on.
    inner = {name: path for name, path in known.items() if path.name != "__init__.py"}
    graph = {name: imported(name, path, known) & inner.keys() for name, path in inner.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"these import one another: {' <- '.join(error.args[1])}") from None
