"""What is installed here, and the command that brings what is missing.

Only the file system is asked: ComfyUI loads this while it starts, so nothing may be imported for an answer.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

FORMATS = ("png", "webp", "jpeg", "avif", "jxl", "tiff", "exr", "heic")
"""In the order of the widgets."""
_WRITERS = {
    "webp": ("PIL", "_webp"),
    "avif": ("PIL", "_avif"),
    "jxl": ("imagecodecs", "_jpegxl"),
    "exr": ("OpenEXR", ""),
    "heic": ("pillow_heif", ""),
}
"""Format -> what writes it: a compiled module in a package, or (module "") the package itself. The other
formats are always there."""
CLONE = Path(__file__).resolve().parent.parent
"""The folder above this one: the checkout, where this is one."""
PIP = f'"{sys.executable}" -m pip install'
START = "luna-farm start --detach"


@cache
def writable_formats() -> tuple[str, ...]:
    """Return the formats that this installation can write, PNG first."""
    return tuple(name for name in FORMATS if name not in _WRITERS or _has(*_WRITERS[name]))


def _has(package: str, module: str) -> bool:
    """Return whether a package is there, and a compiled module in it."""
    if not module:
        return _spec(package) is not None
    return any(
        file.name.split(".")[0] == module and file.suffix in (".so", ".pyd")
        for folder in _folders(package)
        for file in folder.glob(f"{module}.*")
    )


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: a stand-in without a spec
        return None


def _folders(package: str) -> list[Path]:
    found = _spec(package)
    return [Path(folder) for folder in (found.submodule_search_locations if found else None) or ()]


def kernel_advice() -> str:
    """Return a sentence with the command that brings the compiled PNG kernel, "" where it is there."""
    folders = [folder / "imaging" for folder in _folders("luna_farm")]
    if not folders or any(file.suffix in (".so", ".pyd") for one in folders for file in one.glob("_png.*")):
        return ""
    # Without --no-cache-dir pip takes the wheel without kernel that it may have built before.
    what = "--force-reinstall --no-cache-dir --no-deps luna-farm" if _is_installed() else "luna-farm"
    return f"PNG files are written several times slower: the compiled kernel is missing. Run: {PIP} {what}"


def requirements_command() -> str:
    """Return what installs the packages that the nodes need."""
    requirements = CLONE / "requirements.txt"
    return f'{PIP} -r "{requirements}"' if requirements.is_file() else f"{PIP} luna-farm"


def start_command() -> str:
    """Return what starts a farm here. A clone has no command of its own: it is run as a module."""
    if _is_installed() or not (CLONE / "luna_farm").is_dir():
        return START
    return f'{START} (from this clone: cd "{CLONE}" && "{sys.executable}" -m {START.replace("-", "_", 1)})'


def _is_installed() -> bool:
    """Return whether a luna-farm is installed that comes before what lies beside this folder."""
    from importlib import metadata

    try:
        metadata.version("luna-farm")
    except metadata.PackageNotFoundError:
        return False
    return True
