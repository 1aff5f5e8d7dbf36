"""Segments of one image each, for images that are larger than the arena: files in a folder of the state
folder.

Sparse in time, not a second arena: each is created when an image needs it and removed when that image is
finished.
"""

from __future__ import annotations

import os
from collections.abc import Container
from uuid import uuid4

from luna_farm import system
from luna_farm.errors import ArenaError
from luna_farm.storage import files
from luna_farm.storage.arena import Arena


class LargeSegments:
    """The segments in `folder`, which is made if missing (mode 0700)."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.abspath(folder)
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise system.disk_error("make the folder", self.folder, error) from error

    def create(self, size: int) -> Arena:
        """Create a segment of `size` bytes, reserved on the disk. Raises ArenaError when there is no room."""
        free = system.disk_bytes(self.folder)[0]
        if size > free:
            raise ArenaError(f"{self.folder} has {free:,} bytes free; the image needs {size:,}.")
        return Arena.create(f"file:{os.path.join(self.folder, uuid4().hex)}", size)

    def holds(self, segment: str) -> bool:
        """Whether a segment is named like one of these."""
        return segment.startswith("file:") and os.path.dirname(segment[len("file:") :]) == self.folder

    def segments(self) -> list[str]:
        """Return all segments that are there, sorted."""
        return sorted(f"file:{os.path.join(self.folder, name)}" for name in os.listdir(self.folder))

    def sweep(self, keep: Container[str]) -> int:
        """Remove all segments that are not in `keep`. For the start, before any job is accepted. Returns how
        many."""
        unused = [segment for segment in self.segments() if segment not in keep]
        return sum(files.remove(segment[len("file:") :]) for segment in unused)
