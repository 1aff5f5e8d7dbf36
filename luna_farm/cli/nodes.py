"""`luna-farm nodes install COMFYUI_DIR`: put the nodes into a ComfyUI.

A link where the system allows one, so that an update of luna-farm updates the nodes; a copy on Windows. It
must never overwrite a folder that is not ours, and never install anything into ComfyUI's Python: it says what
to type.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from luna_farm.cli import options
from luna_farm.config import Config
from luna_farm.errors import NotPossible

FOLDER = "luna-farm"
_EXAMPLES = """
luna-farm nodes install ~/ComfyUI           link (on Windows: copy) the nodes into custom_nodes/luna-farm
luna-farm nodes install ~/ComfyUI --copy    copy them: for a ComfyUI in a container
"""
# Where people keep the Python that runs ComfyUI, seen from its folder.
PYTHONS = (
    "venv/bin/python",
    ".venv/bin/python",
    "venv/Scripts/python.exe",
    ".venv/Scripts/python.exe",
    "../python_embeded/python.exe",  # so spelled by the portable ComfyUI
)


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "nodes", "put the nodes into a ComfyUI", _EXAMPLES)
    parser.add_argument("action", choices=["install"], help="what to do")
    parser.add_argument("comfyui", metavar="COMFYUI_DIR", type=Path, help="the folder with ComfyUI's main.py")
    parser.add_argument("--copy", action="store_true", help="copy instead of linking")


def run(args: argparse.Namespace, config: Config) -> int:
    """Run the command."""
    comfyui: Path = args.comfyui.expanduser().absolute()
    custom = custom_nodes(comfyui)
    target, source = custom / FOLDER, nodes_folder()
    make_room(target, only_look=True)
    how = "copied" if args.copy or os.name == "nt" else "linked"
    if how == "linked":
        make_room(target)
        how = link(source, target)
    if how == "copied":
        copy(source, target)
    print(f"The nodes are in {target} ({how} from {source}).")
    print(python_advice(comfyui))
    print("Restart ComfyUI and reload its page. Start the farm with: luna-farm start --detach")
    return 0


def custom_nodes(comfyui: Path) -> Path:
    """Return the folder for custom nodes of a ComfyUI, or of a base directory. Raises NotPossible."""
    found = comfyui / "custom_nodes"
    if comfyui.name == "custom_nodes" and comfyui.is_dir():
        return comfyui
    if not found.is_dir():
        raise NotPossible(
            f"{comfyui} has no folder custom_nodes, so it is no ComfyUI. "
            "Give the folder that ComfyUI's main.py is in."
        )
    return found


def nodes_folder() -> Path:
    """Return the folder of the package luna_farm_nodes. Raises NotPossible when it is not installed."""
    spec = importlib.util.find_spec("luna_farm_nodes")
    if spec is None or not spec.submodule_search_locations:
        raise NotPossible("The package luna_farm_nodes is not installed. Reinstall luna-farm with pip.")
    return Path(spec.submodule_search_locations[0]).resolve()


def make_room(target: Path, *, only_look: bool = False) -> None:
    """Remove what an earlier installation put there. Raises NotPossible if it is something else."""
    if target.is_symlink():
        if not only_look:
            target.unlink()
    elif target.exists():
        if (target / ".git").exists() or not (target / "handover.py").is_file():
            raise NotPossible(f"{target} is there and was not put there by this command. Remove it first.")
        if not only_look:
            shutil.rmtree(target)


def copy(source: Path, target: Path) -> None:
    """Copy a folder, and only then replace what an earlier installation put there: a copy that fails leaves
    that as it is. Raises OSError."""
    beside = target.with_name(f"{target.name}.new.disabled")  # which ComfyUI does not load
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shutil.copytree(source, beside, ignore=shutil.ignore_patterns("__pycache__"))
        make_room(target)
        beside.rename(target)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, shutil.Error) and error.args:  # a list of (source, target, reason)
            _, path, why = error.args[0][0]
            reason = re.sub(r"^\[Errno \d+\] ", "", why)
            raise NotPossible(
                f"Cannot write {path}: {reason}. What was there before is as it was."
            ) from error
        raise


def link(source: Path, target: Path) -> str:
    """Link `target` to `source`; where links are not allowed, say that it is to be copied."""
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:
        return "copied"
    return "linked"


def python_advice(comfyui: Path) -> str:
    """Return what to do about the Python that runs ComfyUI: it needs this package too."""
    python = next((found for name in PYTHONS if (found := comfyui / name).exists()), None)
    checkout = Path(__file__).resolve().parents[2]
    what = f'"{checkout}"' if (checkout / "setup.cfg").is_file() else "luna-farm"
    if python is None:
        return f"The Python that runs ComfyUI needs luna-farm too: PYTHON -m pip install {what}"
    if Path(sys.prefix) == python.parent.parent or _knows_farm(python):
        return f"ComfyUI's Python ({python}) has luna-farm."
    return f'ComfyUI\'s Python does not have luna-farm yet. Type: "{python}" -m pip install {what}'


def _knows_farm(python: Path) -> bool:
    # ComfyUI's own Python, found below the folder that the user named.
    command = [str(python), "-c", "import luna_farm_client; luna_farm_client.FarmClient"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
