"""One image, from its pixels to its file: view -> gate -> encode -> sign -> scores -> write -> result.

The farm's workers and the blocking `save_here` take the same road. Pixels are never copied here: the encoder
reads the slot. This module must never know of pipes or jobs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, cast

import numpy as np

from luna_farm.config_provenance import UNSIGNED, Signing
from luna_farm.core.filenames import clean_part
from luna_farm.core.messages import FORMATS, ImageResult, ImageTask, SaveOptions
from luna_farm.core.outputs import Output
from luna_farm.imaging import metadata, quality, scores, thumbnail, watermark
from luna_farm.imaging.depth import Pixels
from luna_farm.imaging.encoders import Encoded, encode, png
from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.storage.arena import Segments
from luna_farm.testing.faults import crash_point
from luna_farm.worker import writing
from luna_farm.worker.made import File, Made


def encoders() -> dict[str, str]:
    """Which implementation encodes what here."""
    return {"png": png.backend()}


def view(segments: Segments, task: ImageTask) -> Pixels:
    """Return the pixels of a task, [H,W,C], as a view on the slot; raises ArenaError if they are gone.

    Several frames are [N,H,W,C].

    `np.frombuffer` pins the mapping, `np.ndarray(buffer=...)` would not (a segmentation fault once it is
    closed).
    """
    if task.segment.startswith("npy:"):
        dead: Pixels = np.load(task.segment[4:], mmap_mode="r", allow_pickle=False)
        return dead
    flat = np.frombuffer(segments.view(task.segment, task.offset, task.nbytes), dtype=task.dtype)
    frames = () if task.frames == 1 else (task.frames,)
    return flat.reshape(*frames, task.height, task.width, task.channels)


def make(
    pixels: Pixels,
    task: ImageTask,
    options: SaveOptions,
    *,
    fsync: bool = True,
    signing: Signing = UNSIGNED,
    allowed: Allowed = ANYWHERE,
) -> ImageResult:
    """Gate, encode and write one image, [H,W,C]. Raises DiskError, EncodeError and InvalidRequest."""
    made = encoded(pixels, task, options, signing)
    if isinstance(made, ImageResult):
        return made
    return writing.written(made, None, fsync=fsync, allowed=allowed)


def encoded(
    pixels: Pixels,
    task: ImageTask,
    options: SaveOptions,
    signing: Signing = UNSIGNED,
    embedded: metadata.Embedded | None = None,
    *,
    sampled: bool = False,
    sign_here: bool = True,
) -> Made | ImageResult:
    """Gate, mark, encode and sign one image; of one that is dropped, return what came of it. `sampled`: with
    a sample for its thumbnail. Raises EncodeError and InvalidRequest, and DiskError where it cannot be signed
    now.

    On a machine without the models and the keys `embedded` was collected before, and `signed` follows where
    the keys are: `sign_here` is False.
    """
    ms: dict[str, float] = {}
    started = time.perf_counter()
    frames = cast(Sequence[Pixels], pixels if task.frames > 1 else pixels[None])
    verdict = _judged(frames, options)
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
    if task.flaws:
        warnings.append(
            f"{task.flaws} values were NaN or infinite and were replaced (NaN by 0). A decoder that "
            "overflows in 16 bits makes them; run it in float32 (ComfyUI: --fp32-vae)."
        )
    first = frames[0]
    started = time.perf_counter()
    if signing.watermark:
        frames = Marked(frames, signing.watermark)
    if task.outputs:
        frames = [frames[0]]  # marked once, however many files are made of it
    embedded = embedded or metadata.embed(options, task)
    keys = signing if sign_here else None
    smaller: dict[tuple[int, bool], Pixels] = {}
    files = tuple(
        _file(number, output, frames, task, options, embedded, keys, state, smaller)
        for number, output in enumerate(task.outputs or ({"format": task.format, "path": task.path},))
    )
    warnings += dict.fromkeys(warning for file in files for warning in file.encoded.warnings)
    ms["encode"] = _lap(started)
    crash_point("worker.encoded")
    # After the encoder, which has read every pixel: reading here and there costs a third of it then.
    started = time.perf_counter()
    looks = {**scores.measure(first).to_map(), "nan_count": task.flaws}
    ms["scores"] = _lap(started)
    sample = thumbnail.sample(first) if sampled or task.thumbnail else None
    small = thumbnail.encode(sample, thumbnail.LIVE_SIDE) if task.thumbnail and sample else b""
    beside = _member_metadata(task, embedded, verdict) if task.archive else b""
    return Made(task, options, state, verdict, files, warnings, ms, small, sample, embedded, looks, beside)


def _file(
    number: int,
    given: Mapping[str, Any],
    frames: Sequence[Pixels],
    task: ImageTask,
    options: SaveOptions,
    embedded: metadata.Embedded,
    signing: Signing | None,
    state: str,
    smaller: dict[tuple[int, bool], Pixels],
) -> File:
    """Encode and sign one of the files of an image. `smaller`: its pixels at sizes that several files have,
    by longest side and `linear`."""
    output = Output.from_map(given)
    options = options.of_output(output)
    pixels = frames[0]
    if task.frames > 1:
        fps, loop, ms = options.animation_fps, options.animation_loop, options.animation_ms
        from luna_farm.imaging.encoders import animated  # loads Pillow, which a worker of PNG needs not

        file = animated.encode_animation(
            frames, output.format, options, embedded, fps=fps, loop=loop, ms=[*map(int, ms.split())]
        )
    else:
        if output.max_side and max(pixels.shape[:2]) > output.max_side:
            from luna_farm.imaging import resize  # loads Pillow as well

            size = output.max_side, output.linear
            small = smaller.get(size)
            if small is None:
                small = resize.within(pixels, output.max_side, linear=output.linear)
                sizes = [(at.max_side, at.linear) for at in map(Output.from_map, task.outputs)]
                if sizes.count(size) > 1:
                    smaller[size] = small
            pixels = small
            embedded = replace(embedded, width=pixels.shape[1], height=pixels.shape[0])
        file = encode(pixels, output.format, options, embedded)
    if signing is not None and options.provenance == "c2pa":
        sign(file, output.format, given["path"], options, signing)
    path = given["path"]
    if state == "discarded" and not task.archive:
        path = task.discarded(path)
    height, width = pixels.shape[:2]
    return File(number, path, output.format, file, _ending(output), (width, height))


def _ending(output: Output) -> str:
    """Return the extension of an output in an archive, where all files of an image have one stem."""
    extension = FORMATS[output.format]
    return f"{clean_part(output.suffix)}.{extension}" if output.suffix.strip(" .") else extension


def _member_metadata(task: ImageTask, embedded: metadata.Embedded, verdict: quality.Verdict) -> bytes:
    """Return the JSON beside an image in an archive: what the image is, and all that is known of it."""
    from luna_farm.imaging import metadata_exif

    facts = {"width": task.width, "height": task.height, "format": task.format, "score": verdict.score}
    known = json.loads(metadata_exif.sidecar(embedded))
    return json.dumps({**{k: v for k, v in facts.items() if v is not None}, **known}).encode("ascii")


def signed(made: Made, signing: Signing) -> Made:
    """Sign what was encoded on a machine without the keys, if it is to be signed. Raises as `sign` does."""
    if made.options.provenance == "c2pa":
        for file in made.files:
            known = len(file.encoded.warnings)
            sign(file.encoded, file.format, file.path, made.options, signing)
            made.warnings.extend(w for w in file.encoded.warnings[known:] if w not in made.warnings)
    return made


def _judged(frames: Sequence[Pixels], options: SaveOptions) -> quality.Verdict:
    """Judge one image, or a moving one by its best frame."""
    if options.quality_gate == "disabled":
        return quality.NOT_JUDGED
    verdicts = (quality.judge(frame, options.quality_gate, options.min_quality_threshold) for frame in frames)
    return max(verdicts, key=lambda verdict: (verdict.passed, verdict.score or 0.0))


class Marked(Sequence[Pixels]):
    """Frames with a watermark, each marked when it is asked for."""

    def __init__(self, frames: Sequence[Pixels], name: str) -> None:
        self._frames, self._name = frames, name

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        return watermark.marked(self._frames[index], self._name)


def sign(file: Encoded, image_format: str, path: str, options: SaveOptions, signing: Signing) -> None:
    """Put a C2PA manifest into an encoded file, last, while it is in memory. Raises DiskError where it cannot
    be signed now."""
    from luna_farm.imaging import c2pa  # loads a library of 40 MB, which few farms need

    if image_format not in c2pa.MIME_TYPES:
        allowed = ", ".join(c2pa.MIME_TYPES)
        file.warnings.append(f"{image_format} holds no C2PA manifest; allowed: {allowed}; saved without it.")
        return
    ingredient = options.ingredient
    if ingredient:
        left_out = c2pa.ingredient_warning(ingredient, signing)
        if left_out:
            file.warnings.append(left_out)
            ingredient = ""
    signed = c2pa.sign(
        b"".join(file.buffers),
        image_format,
        signing,
        source_type=options.source_type,
        title=PurePath(path).name,
        ingredient=ingredient,
    )
    file.buffers = [signed]


def _lap(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
