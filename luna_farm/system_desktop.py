"""The desktop of the user: opens a file, a folder or an address with the program that the user chose for it.

It must never open anything where there is no desktop to show it: over SSH and in services.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

from luna_farm.errors import NotPossible

OPENER_S = 20.0
"""What the opener of the platform may take; it only starts another program."""


def missing() -> str:
    """Return why nothing can be opened here, "" if it can."""
    if sys.platform in ("win32", "darwin"):
        return ""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no desktop here (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    return "" if shutil.which("xdg-open") else "there is no xdg-open here (Debian: apt-get install xdg-utils)"


def open_path(path: Path) -> None:
    """Open a file or a folder. Raises NotPossible where that cannot be done, with the path in its text."""
    why = missing() or ("" if path.exists() else "it is not there")
    if why:
        raise NotPossible(f"{path} cannot be opened: {why}.")
    if sys.platform == "win32":
        os.startfile(path)  # noqa: S606  a file of the user's own, shown as a double click would
        return
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    command = [opener, os.fspath(path)]
    try:
        # The desktop's own opener, and a path that exists.
        done = subprocess.run(command, check=False, capture_output=True, timeout=OPENER_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotPossible(f"{path} cannot be opened: {opener} failed ({error}).") from error
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        raise NotPossible(f"{path} cannot be opened: {opener}: {told[:200]}.")


def open_address(address: str) -> bool:
    """Open an address in the browser; False where there is none that a person would see."""
    return not missing() and webbrowser.open(address)
