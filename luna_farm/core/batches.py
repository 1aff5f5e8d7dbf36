"""One element of `images` in a submit: images of one size, and what becomes of each.

Pure, as `schema.py`, which validates the rest of a submit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from luna_farm.core import fields, outputs
from luna_farm.core.fields import DOCUMENTS_LIMIT, boolean, choice, integer, text
from luna_farm.core.formats import ANIMATED, DTYPES
from luna_farm.core.messages import FORMAT_NAMES, FORMATS, ImageTask, SaveOptions
from luna_farm.core.outputs import Output
from luna_farm.errors import InvalidRequest, TooLarge

CHANNELS = (1, 3, 4)
MOST_FRAMES = 10_000
_FOUR_NUMBERS = [int] * 4
KEPT_SETTINGS = 128
"""Sets of settings that are known to be valid."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One element of `images` in a submit: `batch` images of the same size, each `frames` times [height,
    width, channels] of `dtype`; several frames become one moving image."""

    affix: str
    format: str
    subdir: bool
    batch: int
    height: int
    width: int
    channels: int
    metadata: str = ""
    dtype: str = "uint8"
    frames: int = 1
    outputs: tuple[Output, ...] = ()
    """The files of each image, `format` that of the first; () for one plain file."""
    files: int = field(init=False)
    """Files of each image."""
    image_bytes: int = field(init=False)
    """Bytes of one image, with all its frames."""

    def __post_init__(self) -> None:
        # Once: equal batches are one object, and these are asked for several times an image.
        object.__setattr__(self, "files", max(1, len(self.outputs)))
        size = math.prod((self.frames, self.height, self.width, self.channels)) * DTYPES[self.dtype]
        object.__setattr__(self, "image_bytes", size)

    def task(
        self,
        job_id: str,
        index: int,
        batch_index: int,
        paths: Sequence[str],
        *,
        root: str,
        mounts: Sequence[str] = (),
        mirror_mounts: Mapping[str, str] | None = None,
        archive: str = "",
        member: str = "",
    ) -> ImageTask:
        """Return the task for image `batch_index` of this batch, the `index`-th of its job; its pixels are
        nowhere yet. paths: of its files, below `root`; mounts: the mount points of their disks. The rest: see
        `ImageTask`."""
        return ImageTask(
            job_id=job_id,
            index=index,
            affix=self.affix,
            format=self.format,
            batch_index=batch_index,
            batch_size=self.batch,
            path=paths[0],
            segment="",
            offset=0,
            height=self.height,
            width=self.width,
            channels=self.channels,
            dtype=self.dtype,
            frames=self.frames,
            metadata=self.metadata,
            in_affix_folder=self.subdir and bool(self.affix.strip(" .")),
            root=root,
            outputs=outputs.placed(self.outputs, paths, mounts),
            archive=archive,
            member=member,
            mount=mounts[0] if mounts else "",
            mirror_mounts=mirror_mounts,
        )


def image_format(given: Mapping[str, Any]) -> str:
    """Return the key of FORMATS that `format` names, in any case and by any of its usual names."""
    value = given.get("format", "png")
    name = FORMAT_NAMES.get(value.lower()) if isinstance(value, str) else None
    if name is None:
        raise InvalidRequest.of("format", value, " | ".join(FORMATS))
    return name


def check_pixels(shape: list[int], max_pixels: int) -> None:
    """Raise TooLarge for images of more pixels than a farm takes. shape: [batch, height, width, channels]."""
    if shape[1] * shape[2] > max_pixels:
        allowed = (
            f"at most {max_pixels:,} pixels an image (setting max_pixels), or save_here, without the farm"
        )
        raise TooLarge.of("shape", shape, allowed)


def batch_of_images(given: Any, max_pixels: int) -> Batch:
    """Judge one element of `images`."""
    if not isinstance(given, dict):
        raise InvalidRequest.of("images", given, "a list of maps")
    shape = given.get("shape")
    if not isinstance(shape, list) or list(map(type, shape)) != _FOUR_NUMBERS or min(shape) < 1:
        raise InvalidRequest.of("shape", shape, "[batch, height, width, channels], each above 0")
    batch, height, width, channels = shape
    if channels not in CHANNELS:
        raise InvalidRequest.of("channels", channels, "1, 3 or 4")
    check_pixels(shape, max_pixels)
    form, affix = given.get("format", "png"), given.get("affix")
    rest = given.get("subdir", True), given.get("dtype", "uint8"), given.get("frames", 1)
    try:
        made = _batch(batch, height, width, channels, form, affix, *rest)
    except TypeError:  # a list or map where a plain value belongs: its kind refuses it
        made = _batch.__wrapped__(batch, height, width, channels, form, affix, *rest)
    if given.get("metadata"):
        made = replace(made, metadata=text(given, "metadata", limit=DOCUMENTS_LIMIT))
    if given.get("outputs"):
        made = replace(made, outputs=outputs.checked(given["outputs"]))
    return made


def with_outputs(batch: Batch, shared: SaveOptions) -> Batch:
    """Return a batch with all files of its images, its own or those of the request."""
    count = len(shared.animation_ms.split())
    if count not in (0, batch.frames):
        raise InvalidRequest.of("animation_ms", f"{count} durations", f"{batch.frames}, one for each frame")
    if not (batch.outputs or shared.outputs or shared.thumbnail):
        return batch
    given = batch.outputs or outputs.checked(shared.outputs)
    files = outputs.with_thumbnail(given, shared.thumbnail, batch.format)
    if batch.frames > 1:
        raise InvalidRequest.of("outputs", outputs.text_of(files), "none, for a moving image")
    return replace(batch, outputs=files, format=files[0].format)


@lru_cache(maxsize=KEPT_SETTINGS, typed=True)
def _batch(batch: int, height: int, width: int, channels: int, *of_image: Any) -> Batch:
    """A program mostly sends images like those it sent before: they are judged once."""
    given = dict(zip(("format", "affix", "subdir", "dtype", "frames"), of_image, strict=True))
    form = image_format(given)
    if given["frames"] != 1 and form not in ANIMATED:
        raise InvalidRequest.of("animation", form, f"a format of {', '.join(ANIMATED)}")
    return Batch(
        affix=fields.affix(given["affix"]),
        format=form,
        subdir=boolean(given, "subdir", True),
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        dtype=choice(given, "dtype", tuple(DTYPES), "uint8"),
        frames=integer(given, "frames", 1, MOST_FRAMES, 1),
    )
