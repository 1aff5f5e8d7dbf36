"""How large the arena is and where it lies: as asked, or the best this machine has; and the way back to it.

The names of the segments are noted in the state folder before they are made, so that no crash at any moment
leaves memory behind that no process knows of. Only the supervisor, which holds the lock of that folder, calls
this module. It must never touch the pixels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from luna_farm import system
from luna_farm.errors import ArenaError
from luna_farm.storage import arena, files
from luna_farm.storage.arena import Arena

MEMORY_SHARE = 1 / 8
"""Share of the memory of this machine (or container) that the arena takes by default."""
MOST_SHARE = 1 / 2
"""Share of that memory that the arena never exceeds, whatever is asked for: the system ends a process that
takes more than there is."""
MAX_DEFAULT_BYTES = 1 << 30
"""What the default never exceeds: room for 340 images of 1024x1024."""
FIRST_BYTES = 4 << 20
"""What is reserved at the start, and stays reserved while nothing happens: one image of 1024x1024. An idle
farm takes less than 80 MiB in all; the second image waits 1.3 ms for the next step, once."""
FREE_SHARE = 0.8
"""The arena takes no more than this of what is free on its file system: others need some too."""
MIN_BYTES = 16 << 20
"""Less in shared memory is not worth having (one 2048x2048 RGBA image); a file of a useful size is better
then."""

NOTE = "arena"
"""Name of the file in the state folder that holds the names of the segments, one a line."""


def establish(
    size: int, folder: str | os.PathLike[str], keep: Collection[str] = ()
) -> tuple[Arena, list[str]]:
    """Make an arena of `size` bytes (0: a share of the memory) in shared memory. Where that fails, try half
    as much, and so on down to MIN_BYTES; then a file segment in `folder`, as large as asked for or halved
    likewise.

    Returns it with one sentence for each compromise, for the log. What was noted in `folder` before is
    removed, except the segments in `keep`, which hold pixels of unfinished jobs. Raises ArenaError when
    not even MIN_BYTES fit into a file.
    """
    for name in set(noted(folder)) - set(keep):
        with suppress(ArenaError):  # Windows, where a mapped file stays: an old file is better than no farm
            arena.remove(name)
    wanted = size or _share_of_memory()
    warnings: list[str] = []
    shared, file = fresh_names(folder)
    note(folder, shared, file, *keep)
    if sys.platform != "win32":  # there it would go away with a killed supervisor
        room = min(_shm_room(), max(MIN_BYTES, int(system.memory_bytes() * MOST_SHARE)))
        made = _halving(shared, wanted, min(wanted, room), "Shared memory", warnings)
        if made is not None:
            return made, warnings
    room = int(system.disk_bytes(folder)[0] * FREE_SHARE)
    made = _halving(file, wanted, min(wanted, room), f"The disk of {folder}", warnings)
    if made is None:
        raise ArenaError(
            " ".join(warnings) + " The farm needs that much in one of them; make room or set [arena] bytes."
        )
    if sys.platform != "win32":
        warnings.append(
            f"Pixels wait in the file {made.name[5:]} instead: as safe, somewhat slower, and it"
            " writes to that disk. `luna-farm doctor` says what to do."
        )
    return made, warnings


def fresh_names(folder: str | os.PathLike[str]) -> tuple[str, str]:
    """Return unused names for a segment in shared memory and for one in a file of `folder`.

    Never the same twice: a client that still holds an arena of before must not take the new one for it.
    """
    unique = uuid4().hex[:16]
    return f"shm:luna-{unique}", f"file:{Path(folder).absolute() / f'arena-{unique}'}"


def noted(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of all segments that the farm of this state folder noted. A line that `fresh_names`
    cannot have made is damage, no name of ours."""
    try:
        names = Path(folder, NOTE).read_text("utf-8", "surrogateescape").split("\n")
    except OSError:
        return []
    ours = ("shm:luna-", f"file:{Path(folder).absolute() / 'arena-'}")
    return [name for name in names if name.startswith(ours) and name.rpartition("-")[2].isalnum()]


def note(folder: str | os.PathLike[str], *names: str) -> None:
    """Write down the names of all segments that this farm has. Raises DiskError."""
    files.replace(str(Path(folder, NOTE)), ["\n".join(names).encode("utf-8", "surrogateescape")])


def _share_of_memory() -> int:
    return max(MIN_BYTES, min(int(system.memory_bytes() * MEMORY_SHARE), MAX_DEFAULT_BYTES))


def _shm_room() -> int:
    """Bytes that the arena may take of the file system of shared memory; no bound where there is no such
    thing."""
    room = system.shm_bytes()
    return sys.maxsize if room is None else int(room[0] * FREE_SHARE)


def _halving(name: str, wanted: int, size: int, place: str, warnings: list[str]) -> Arena | None:
    """Try `size` bytes, then half, and so on down to MIN_BYTES (or `wanted`, if that is less)."""
    least = min(wanted, MIN_BYTES)
    reason = f"it can give {arena.mib(size)}."
    while size >= least:
        try:
            made = Arena.create(name, size, min(size, FIRST_BYTES))
        except ArenaError as error:
            reason = str(error)
            size //= 2
            continue
        if size < wanted:
            warnings.append(
                f"{place} has no room for {arena.mib(wanted)}, the arena has {arena.mib(size)}: {reason}"
            )
        return made
    warnings.append(f"{place} has no room for an arena of {arena.mib(least)}: {reason}")
    return None
