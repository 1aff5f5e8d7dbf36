"""One image, from its pixels to its file: view -> gate -> encode -> write -> result.

The farm's workers and the blocking `save_here` take the same road. Pixels are never copied here: the encoder
reads the slot. This module must never know of pipes or jobs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.errors import FarmError
from luna_farm.imaging import metadata, quality, thumbnail
from luna_farm.imaging.encoders import Encoded, encode, png
from luna_farm.storage import writer
from luna_farm.storage.arena import Segments
from luna_farm.testing.faults import crash_point

Pixels = NDArray[np.uint8]


def encoders() -> dict[str, str]:
    """Which implementation encodes what here."""
    return {"png": png.backend()}


def view(segments: Segments, task: ImageTask) -> Pixels:
    """Return the pixels of a task, [H,W,C] uint8, as a view on the slot; raises ArenaError if they are gone.

    `np.frombuffer` pins the mapping, `np.ndarray(buffer=...)` would not (a segmentation fault once it is
    closed).
    """
    if task.segment.startswith("npy:"):
        dead: Pixels = np.load(task.segment[4:], mmap_mode="r", allow_pickle=False)
        return dead
    flat = np.frombuffer(segments.view(task.segment, task.offset, task.nbytes), dtype=np.uint8)
    return flat.reshape(task.height, task.width, task.channels)


@dataclass(frozen=True, slots=True)
class Made:
    """A file that is encoded and not written yet. Its pixels are not needed any more."""

    task: ImageTask
    options: SaveOptions
    state: str
    verdict: quality.Verdict
    encoded: Encoded
    warnings: list[str]
    ms: dict[str, float]
    thumbnail: bytes


def make(pixels: Pixels, task: ImageTask, options: SaveOptions, *, fsync: bool = True) -> ImageResult:
    """Gate, encode and write one image, [H,W,C] uint8. Raises DiskError, EncodeError and InvalidRequest."""
    made = encoded(pixels, task, options)
    return made if isinstance(made, ImageResult) else written(made, fsync=fsync)


def encoded(pixels: Pixels, task: ImageTask, options: SaveOptions) -> Made | ImageResult:
    """Gate and encode one image; of one that is dropped, return what came of it. Raises EncodeError and
    InvalidRequest."""
    ms: dict[str, float] = {}
    started = time.perf_counter()
    verdict = quality.judge(pixels, options.quality_gate, options.min_quality_threshold)
    ms["gate"] = _lap(started)
    state, warnings = "saved", []
    if not verdict.passed:
        if options.on_reject == "drop":
            return ImageResult("dropped", score=verdict.score, threshold=verdict.threshold, ms=ms)
        if options.on_reject == "discard":
            state = "discarded"
        else:
            warnings.append(
                f"The quality gate rejects it ({verdict.score:.3f} of {verdict.threshold:.3f}); it is kept."
            )
    started = time.perf_counter()
    file = encode(pixels, task.format, options, metadata.embed(options, task))
    ms["encode"] = _lap(started)
    crash_point("worker.encoded")
    small = thumbnail.thumbnail(pixels) if task.thumbnail else b""
    return Made(task, options, state, verdict, file, [*warnings, *file.warnings], ms, small)


def written(made: Made, *, fsync: bool = True) -> ImageResult:
    """Write an encoded image. Raises DiskError and InvalidRequest."""
    task, warnings = made.task, made.warnings
    path = task.discarded_path if made.state == "discarded" else task.path
    started = time.perf_counter()
    published = writer.publish(
        path,
        made.encoded.buffers,
        output_dir=task.root or made.options.output_dir,
        temp_name=writer.temp_name(task.job_id, task.index),
        fsync=fsync,
        recovered=task.recovered,
    )
    if made.encoded.sidecar is not None:
        warnings += _beside(published.path, made.encoded.sidecar, task, made.options, fsync)
    if published.path != path:
        warnings.append(
            f"{PurePath(path).name} was made by somebody else in the meantime; this is the next free name."
        )
    return ImageResult(
        made.state,
        path=published.path,
        bytes=published.bytes,
        temp=published.temp,
        score=made.verdict.score,
        threshold=made.verdict.threshold,
        warnings=tuple(warnings),
        ms={**made.ms, "write": _lap(started)},
        thumbnail=made.thumbnail,
    )


def _beside(path: str, sidecar: bytes, task: ImageTask, options: SaveOptions, fsync: bool) -> list[str]:
    """Write the metadata that does not fit into the file beside it; its failure costs a warning, not the
    image."""
    root = task.root or options.output_dir
    try:
        written = writer.publish(
            str(PurePath(path).with_suffix(".json")),
            [sidecar],
            output_dir=root,
            temp_name=writer.temp_name(task.job_id, task.index, "json"),
            fsync=fsync,
            recovered=task.recovered,
        )
        writer.settle(written.temp, root)
    except FarmError as error:
        return [f"The metadata beside it could not be written: {error}"]
    return []


def _lap(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
