"""What images cost: moving averages of measured times, and whether encoding one takes longer than moving it.

Pure policy over numbers that workers report; no clock, no processes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from luna_farm.core.messages import ImageTask, SaveOptions

WEIGHT = 0.2
"""Of a new measurement in its moving average."""
EFFORTS: dict[str, tuple[str, ...]] = {
    "png": ("png_compression",),
    "webp": ("lossless_webp", "webp_method"),
    "avif": ("lossless_webp", "avif_speed"),
    "jxl": ("lossless_webp", "jxl_effort"),
    "exr": ("exr_compression",),
}
"""The options that decide how long a format takes."""
MOVED = ("put", "call", "result")
"""The steps of a worker elsewhere that move an image: pixels there, the call, the encoded file back."""

Key = tuple[Hashable, ...]


@dataclass(slots=True)
class Average:
    """A moving average in milliseconds."""

    ms: float = 0.0
    count: int = 0

    def add(self, ms: float) -> None:
        """Take a measurement. The first ones count equally: an outlier at the start does not last."""
        self.count += 1
        self.ms += (ms - self.ms) * max(WEIGHT, 1.0 / self.count)


def size_class(task: ImageTask) -> int:
    """Return the class of an image's bytes: one for each power of two."""
    return task.nbytes.bit_length()


def kind_of(task: ImageTask, options: SaveOptions) -> Key:
    """Return what decides how long an image takes, but for its size: format, effort, depth, moving or not."""
    effort = tuple(getattr(options, name) for name in EFFORTS.get(task.format, ()))
    return (task.format, effort, task.dtype, options.bit_depth, task.frames > 1)


@dataclass(slots=True)
class Costs:
    """Measured times of encoding by kind and size class, and of moving by size class."""

    encode: dict[Key, dict[int, Average]] = field(default_factory=dict)
    move: dict[int, Average] = field(default_factory=dict)

    def add(self, task: ImageTask, options: SaveOptions, ms: Mapping[str, float]) -> None:
        """Take the times of a finished image."""
        if "encode" in ms:
            sizes = self.encode.setdefault(kind_of(task, options), {})
            sizes.setdefault(size_class(task), Average()).add(ms["encode"])
        if all(step in ms for step in MOVED):
            self.move.setdefault(size_class(task), Average()).add(moved_ms(ms))

    def encode_ms(self, task: ImageTask, options: SaveOptions) -> float | None:
        """Return how long an image is expected to take; None for a kind that was never measured."""
        return _nearest(self.encode.get(kind_of(task, options), {}), size_class(task))

    def move_ms(self, task: ImageTask) -> float | None:
        """Return how long moving an image is expected to take; None while none was moved."""
        return _nearest(self.move, size_class(task))

    def pays(self, task: ImageTask, options: SaveOptions) -> bool:
        """Whether an image is expected to take longer to encode than to move. What was never measured does:
        one image finds out."""
        encode, move = self.encode_ms(task, options), self.move_ms(task)
        return encode is None or move is None or encode > move


def moved_ms(ms: Mapping[str, float]) -> float:
    """Return the time that moving an image took, of the times of its steps."""
    return sum(ms.get(step, 0.0) for step in MOVED)


def _nearest(known: Mapping[int, Average], size: int) -> float | None:
    """Return the average of a size class, or that of the nearest one in proportion to its size."""
    if not known:
        return None
    near = min(known, key=lambda each: (abs(each - size), each))
    return float(known[near].ms * 2.0 ** (size - near))
