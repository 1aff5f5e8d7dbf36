"""An image between its encoder and its disk: the bytes of its files and what was found out on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.imaging import quality
from luna_farm.imaging.encoders import Encoded
from luna_farm.imaging.metadata import Embedded
from luna_farm.imaging.thumbnail import Sample


@dataclass(slots=True)  # not frozen, as in core/messages.py: made for every image
class File:
    """One encoded file of an image: where it goes, in which format, and its bytes."""

    number: int
    path: str
    format: str
    encoded: Encoded
    ending: str
    """Its extension in an archive: `web.webp`."""
    size: tuple[int, int]
    """Width and height in pixels."""

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return sum(memoryview(buffer).nbytes for buffer in self.encoded.buffers)


@dataclass(slots=True)
class Made:
    """An image that is encoded and not written yet. Its pixels are not needed any more."""

    task: ImageTask
    options: SaveOptions
    state: str
    verdict: quality.Verdict
    files: tuple[File, ...]
    """The file of the image, and any others, in the order of the request."""
    warnings: list[str]
    ms: dict[str, float]
    thumbnail: bytes
    """For the feed; empty unless the task asks for one."""
    sample: Sample | None
    """What the thumbnail that is kept is made of."""
    embedded: Embedded
    """What is written into the files."""
    scores: Mapping[str, Any]
    """What it looks like, as in `ImageResult`."""
    metadata: bytes = b""
    """JSON beside it in an archive."""
    stored: tuple[Mapping[str, Any], ...] = ()
    """Its files that a worker elsewhere has sent, the first one first: `root`, `name`, `bytes` and `crc32` of
    each (None if an earlier attempt had stored other bytes)."""

    @property
    def encoded(self) -> Encoded:
        """The file of the image itself, the first one."""
        return self.files[0].encoded

    @property
    def path(self) -> str:
        """Where that goes: into its archive, to its own place, or to that of images that the gate rejects."""
        return self.files[0].path
