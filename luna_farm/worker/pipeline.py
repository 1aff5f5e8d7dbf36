"""One image, from its pixels to its file: view -> gate -> encode -> sign -> write -> result.

The farm's workers and the blocking `save_here` take the same road. Pixels are never copied here: the encoder
reads the slot. This module must never know of pipes or jobs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath, PurePosixPath
from typing import Any, cast

import numpy as np

from luna_farm.config_provenance import UNSIGNED, Signing
from luna_farm.core.messages import FORMATS, ImageResult, ImageTask, Note, SaveOptions
from luna_farm.errors import FarmError, InvalidRequest
from luna_farm.imaging import metadata, quality, thumbnail, watermark
from luna_farm.imaging.depth import Pixels
from luna_farm.imaging.encoders import Encoded, encode, png
from luna_farm.locations import is_url
from luna_farm.storage import mounts, writer
from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.storage.arena import Segments
from luna_farm.storage.upload_spool import Target, UploadSpool
from luna_farm.testing.faults import crash_point

Publish = Callable[..., writer.Published]
"""`writer.publish` with what is the same for all files of an image."""


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
    metadata: bytes = b""
    """JSON beside it in an archive."""

    @property
    def path(self) -> str:
        """Where it goes: its archive, its own place, or that of images that the gate rejects."""
        if self.task.archive:
            return self.task.path
        return self.task.discarded_path if self.state == "discarded" else self.task.path


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
    return made if isinstance(made, ImageResult) else written(made, None, fsync=fsync, allowed=allowed)


def encoded(
    pixels: Pixels, task: ImageTask, options: SaveOptions, signing: Signing = UNSIGNED
) -> Made | ImageResult:
    """Gate, mark, encode and sign one image; of one that is dropped, return what came of it. Raises
    EncodeError and InvalidRequest, and DiskError where it cannot be signed now."""
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
    started = time.perf_counter()
    if signing.watermark:
        frames = Marked(frames, signing.watermark)
    embedded = metadata.embed(options, task)
    if task.frames > 1:
        fps, loop = options.animation_fps, options.animation_loop
        from luna_farm.imaging.encoders import animated  # loads Pillow, which a worker of PNG needs not

        file = animated.encode_animation(frames, task.format, options, embedded, fps=fps, loop=loop)
    else:
        file = encode(frames[0], task.format, options, embedded)
    if options.provenance == "c2pa":
        sign(file, task, options, signing)
    ms["encode"] = _lap(started)
    crash_point("worker.encoded")
    small = thumbnail.thumbnail(frames[0]) if task.thumbnail else b""
    beside = _member_metadata(task, embedded, verdict) if task.archive else b""
    return Made(task, options, state, verdict, file, [*warnings, *file.warnings], ms, small, beside)


def _member_metadata(task: ImageTask, embedded: metadata.Embedded, verdict: quality.Verdict) -> bytes:
    """Return the JSON beside an image in an archive: what the image is, and all that is known of it."""
    from luna_farm.imaging import metadata_exif

    facts = {"width": task.width, "height": task.height, "format": task.format, "score": verdict.score}
    known = json.loads(metadata_exif.sidecar(embedded))
    return json.dumps({**{k: v for k, v in facts.items() if v is not None}, **known}).encode("ascii")


def _judged(frames: Sequence[Pixels], options: SaveOptions) -> quality.Verdict:
    """Judge one image, or a moving one by its best frame."""
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


def sign(file: Encoded, task: ImageTask, options: SaveOptions, signing: Signing) -> None:
    """Put a C2PA manifest into an encoded file, last, while it is in memory. Raises DiskError where it cannot
    be signed now."""
    from luna_farm.imaging import c2pa  # loads a library of 40 MB, which few farms need

    if task.format not in c2pa.MIME_TYPES:
        allowed = ", ".join(c2pa.MIME_TYPES)
        file.warnings.append(f"{task.format} holds no C2PA manifest; allowed: {allowed}; saved without it.")
        return
    ingredient = options.ingredient
    if ingredient:
        left_out = c2pa.ingredient_warning(ingredient, signing)
        if left_out:
            file.warnings.append(left_out)
            ingredient = ""
    signed = c2pa.sign(
        b"".join(file.buffers),
        task.format,
        signing,
        source_type=options.source_type,
        title=PurePath(task.path).name,
        ingredient=ingredient,
    )
    file.buffers = [signed]


def written(
    made: Made,
    uploads: UploadSpool | None,
    *,
    fsync: bool = True,
    note: Callable[[Note], None] | None = None,
    allowed: Allowed = ANYWHERE,
) -> ImageResult:
    """Write an encoded image: into its folder, into the spool `uploads` if it goes further, or both.

    `note` is called before a file gets its name, `allowed` says which links may be followed. Raises
    DiskError and InvalidRequest.
    """
    root = made.task.root or made.options.output_dir
    started = time.perf_counter()
    if made.task.archive:
        result = _for_archive(made, root, uploads)
        return replace(result, ms={**made.ms, "write": _lap(started)})
    if made.options.if_exists == "skip" and not made.task.recovered and os.path.lexists(made.path):
        told = f"{PurePath(made.path).name} exists already and was left as it is (if_exists = skip)."
        return ImageResult("dropped", path=made.path, warnings=(*made.warnings, told), ms=made.ms)
    if is_url(root):
        result = _result(
            made, path=made.path, bytes=sum(memoryview(buffer).nbytes for buffer in made.encoded.buffers)
        )
    else:
        mounts.require(made.task.mount, made.path)
        publish = partial(
            writer.publish,
            output_dir=root,
            fsync=fsync,
            note=note,
            allowed=allowed,
            replace=made.options.if_exists == "overwrite",
            time_ns=made.task.file_time_ns,
        )
        result = _published(made, publish)
    if is_url(root) or made.options.mirrors:
        if uploads is None:
            needed = "a folder: only a running farm sends files to destinations and mirrors"
            raise InvalidRequest.of("output_dir", root, needed)
        result = _spooled(made, root, result, uploads)
    return replace(result, ms={**made.ms, "write": _lap(started)})


def _for_archive(made: Made, root: str, uploads: UploadSpool | None) -> ImageResult:
    """Put the file into the spool, from where it is added to its archive. It is not synced: until then it is
    accepted, not saved."""
    if uploads is None:
        allowed = "none: only a running farm writes archives"
        raise InvalidRequest.of("archive", made.options.archive, allowed)
    task = made.task
    size = sum(memoryview(buffer).nbytes for buffer in made.encoded.buffers)
    spooled = uploads.write(
        task.job_id,
        task.index,
        made.encoded.buffers,
        [Target(root, task.member)],
        content_type=f"image/{task.format}",
        files_in_it=[(FORMATS[task.format], size)],
        metadata=made.metadata,
        state=made.state,
        sync=made.options.durable,
    )
    target = {"spool": spooled.path, "root": root, "name": task.member}
    return _result(made, path=task.path, bytes=size, uploads=(target,), spool_bytes=size)


def _result(made: Made, **given: Any) -> ImageResult:
    return ImageResult(
        made.state,
        score=made.verdict.score,
        threshold=made.verdict.threshold,
        thumbnail=made.thumbnail,
        **{"warnings": tuple(made.warnings), **given},
    )


def _published(made: Made, publish: Publish) -> ImageResult:
    """Publish the file in its folder."""
    task, path, warnings = made.task, made.path, made.warnings
    temp = writer.temp_name(task.job_id, task.index)
    published = publish(path, made.encoded.buffers, temp_name=temp, noted=Note.of(task))
    if made.encoded.sidecar is not None:
        warnings += _beside(published.path, made, publish)
    if published.path != path:
        warnings.append(
            f"{PurePath(path).name} was made by another program in the meantime; this is the next free name."
        )
    return _result(made, path=published.path, bytes=published.bytes, warnings=tuple(warnings))


def _spooled(made: Made, root: str, result: ImageResult, uploads: UploadSpool) -> ImageResult:
    """Put the file into the spool with every place that it goes to, and so the metadata beside it."""
    task = made.task
    name = result.path[len(root) :].lstrip("/\\").replace(os.sep, "/")
    roots = (*((root,) if is_url(root) else ()), *made.options.mirrors)
    files = [("", name, made.encoded.buffers, f"image/{task.format}")]
    if made.encoded.sidecar is not None:
        beside = str(PurePosixPath(name).with_suffix(".json"))
        files.append(("json", beside, [made.encoded.sidecar], "application/json"))
    targets: list[dict[str, str]] = []
    size = 0
    for part, file_name, buffers, content_type in files:
        spooled = uploads.write(
            task.job_id,
            task.index,
            buffers,
            [Target(place, file_name) for place in roots],
            content_type=content_type,
            part=part,
            state=made.state,
        )
        targets += [{"spool": spooled.path, "root": at.root, "name": at.name} for at in spooled.targets]
        size += spooled.upload.bytes
    return replace(result, uploads=tuple(targets), spool_bytes=size)


def _beside(path: str, made: Made, publish: Publish) -> list[str]:
    """Write the metadata that does not fit into the file beside it; its failure costs a warning, not the
    image."""
    task, sidecar = made.task, made.encoded.sidecar
    assert sidecar is not None, "called for an image that has one"
    beside = str(PurePath(path).with_suffix(".json"))
    temp = writer.temp_name(task.job_id, task.index, "json")
    try:
        publish(beside, [sidecar], temp_name=temp, noted=Note.of(task, "json"))
    except FarmError as error:
        return [f"The metadata beside it could not be written: {error}"]
    return []


def _lap(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
