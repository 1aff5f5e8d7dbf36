"""The benchmarks of the project behind one command: python3 scripts/bench NAME [OPTION ...]

It runs in the `.venv` of the checkout, which it makes if there is none; `--here` before NAME takes the Python
that runs it instead, for one that has torch with CUDA. Figures of two runs must never be compared: each
benchmark measures both sides in turns.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]


def benchmarks() -> dict[str, str]:
    """Return each benchmark with the first line of its docstring. What starts with `_` or defines no `main`
    is not one."""
    found = {}
    for file in sorted(FOLDER.glob("[a-z]*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            found[file.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found


def main() -> int:
    """Run one benchmark. Returns its exit code."""
    found = benchmarks()
    listed = "\n".join(f"  {name:<14} {line}" for name, line in found.items())
    parser = argparse.ArgumentParser(
        prog="python3 scripts/bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run one benchmark of the project; NAME --help shows its options.",
        epilog=f"benchmarks:\n{listed}",
    )
    parser.add_argument("--here", action="store_true", help="use this Python instead of .venv")
    parser.add_argument("name", metavar="NAME", choices=found, help="one of the benchmarks below")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="...", help="its options")
    given = parser.parse_args()
    if given.here:
        return run(given.name, given.options)

    import bootstrap

    bootstrap.check_python()
    if Path(sys.prefix).resolve() == bootstrap.VENV.resolve():
        return run(given.name, given.options)
    try:
        bootstrap.prepare("demo", [])
    except bootstrap.StepFailed as error:
        print(f"{error.output}\n{error}", file=sys.stderr)
        return 1
    wanted = needs(given.name)
    if wanted and subprocess.run([bootstrap.PYTHON, "-m", "pip", "install", "-q", *wanted]).returncode:
        print(f"{given.name} needs {', '.join(wanted)}: they could not be installed.", file=sys.stderr)
        return 1
    return subprocess.run([bootstrap.PYTHON, FOLDER, given.name, *given.options]).returncode


def needs(name: str) -> list[str]:
    """Return the packages that a benchmark needs beyond those of the demo: the NEEDS of its module, read
    without running it."""
    for node in ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["NEEDS"]:
            return list(ast.literal_eval(node.value))
    return []


def run(name: str, options: list[str]) -> int:
    """Run a benchmark in this process, with the packages of this checkout if none are installed."""
    if importlib.util.find_spec("luna_farm_client") is None:
        find_packages()
    sys.argv = [f"python3 scripts/bench {name}", *options]
    try:
        result = importlib.import_module(f"bench.{name}").main()
    except ModuleNotFoundError as error:
        wanted = " ".join(needs(name)) or error.name
        sys.exit(
            f"There is no module {error.name} here. To have it: {sys.executable} -m pip install {wanted}"
        )
    return result if isinstance(result, int) else 0


def find_packages() -> None:
    """Make luna_farm and luna_farm_client importable here and in processes that are started, as ComfyUI does
    with a clone."""
    spec = importlib.util.spec_from_file_location("luna_farm_clone", ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
