"""How much memory the control groups of Linux leave to this process: those of containers, and of services
with MemoryMax= or MemoryHigh=.

A part of `system.py`, with the same rule. Every group on the way up limits the ones below it, so the smallest
limit counts. macOS and Windows have no such thing. This module must never import anything of the project.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

LIMITS = {"cgroup2": ("memory.max", "memory.high"), "cgroup": ("memory.limit_in_bytes",)}
"""Kind of file system -> the files of a group that limit its memory (cgroups(7), version 2 and 1)."""


def memory_limit(process: Path = Path("/proc/self")) -> tuple[int, str] | None:
    """Return the smallest limit in bytes, and the file that sets it; None where nothing limits memory."""
    return min(_limits(process), default=None)


def _limits(process: Path) -> Iterator[tuple[int, str]]:
    try:
        mounts = (process / "mountinfo").read_text("utf-8", "surrogateescape").splitlines()
        groups = _groups((process / "cgroup").read_text("utf-8", "surrogateescape"))
    except OSError:  # not Linux, or /proc is not mounted
        return
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = after.partition(" ")
        controller = "" if kind == "cgroup2" else "memory"
        if kind not in LIMITS or controller not in groups or (controller and "memory" not in options):
            continue
        root, place = (_unescaped(field) for field in before.split()[3:5])
        for folder in _upwards(Path(place), root, groups[controller]):
            for name in LIMITS[kind]:
                try:
                    yield int((folder / name).read_text("ascii")), str(folder / name)
                except (OSError, ValueError):  # the root has no such file; "max": no limit here
                    continue


def _groups(text: str) -> dict[str, str]:
    """Return the path of the group by controller, "" for version 2. Lines: "4:memory:/path", "0::/path"."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _upwards(mount: Path, root: str, group: str) -> Iterator[Path]:
    """Yield the folder of a group and all above it, as far as they are mounted here. `root`: the group that
    the mount begins with; one that lies beside it is not to be seen, only the mount itself."""
    try:
        below = PurePosixPath(group).relative_to(root)
    except ValueError:
        below = PurePosixPath()
    folder = mount / below if ".." not in below.parts else mount
    yield folder
    for above in folder.parents:
        if not above.is_relative_to(mount):
            return
        yield above


def _unescaped(field: str) -> str:
    r"""Undo how mountinfo writes blanks and backslashes: \040, \011, \012, \134."""
    for code in ("040", "011", "012", "134"):
        field = field.replace(f"\\{code}", chr(int(code, 8)))
    return field
