"""Whole files in the state folder: written beside their name, synced, then renamed over it.

For what belongs to the farm alone (spool, dead letters, notes). Images never come this way: here an old
file of the same name is replaced, which `storage/writer.py` must never do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from luna_farm import system
from luna_farm.errors import InvalidRequest

PRIVATE = 0o600
"""Mode of every file of the state folder: pixels and prompts are private."""
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_SAFE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def replace(
    path: str,
    buffers: Iterable[bytes | memoryview],
    before_rename: Callable[[], None] | None = None,
    *,
    sync: bool = True,
) -> None:
    """Make `path` hold exactly `buffers`, one after the other; with `sync` it is on the disk under its name
    when this returns, without it survives the death of processes only.

    After a crash at any moment there is the old file or the new one. Raises DiskError and leaves nothing
    behind.
    """
    beside = f"{path}.new"
    try:
        fd = os.open(beside, _FLAGS | _SAFE, PRIVATE)
        try:
            for buffer in buffers:
                write_all(fd, buffer)
            if sync:
                system.sync_data(fd)
        finally:
            os.close(fd)
        if before_rename is not None:
            before_rename()
        os.replace(beside, path)
        if sync:
            system.sync_folder(os.path.dirname(path) or ".")
    except OSError as error:
        remove(beside)
        raise system.disk_error("write", path, error) from error


def write_all(fd: int, buffer: bytes | memoryview) -> None:
    """Write a buffer to the last byte: one `os.write` takes at most 2 GiB, and may take less."""
    rest = memoryview(buffer).cast("B")
    while rest:
        rest = rest[os.write(fd, rest) :]


def remove(path: str) -> bool:
    """Remove a file. False: it was gone already, or the disk refuses; a later sweep tries again."""
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def set_aside(path: str, folder: str | os.PathLike[str]) -> str:
    """Move a file to `folder`, which is made, under its own name; return its path there. Raises DiskError."""
    target = os.path.join(folder, os.path.basename(path))
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.replace(path, target)
    except OSError as error:
        raise system.disk_error("move pixels to", target, error) from error
    return target


def image_id(job_id: str, index: int) -> str:
    """Return "JOB-INDEX", which names the files of one image. Raises InvalidRequest for an id that could
    leave the folder: ids come from clients."""
    if not (
        0 < len(job_id) <= 64 and job_id.isascii() and job_id.replace("-", "").replace("_", "").isalnum()
    ):
        raise InvalidRequest.of("job_id", job_id, "1 to 64 ASCII letters, digits, - and _")
    return f"{job_id}-{index}"
