"""What a caller asks for and what it is told: requests, receipts and reports as plain dataclasses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from luna_farm.core.messages import FORMAT_NAMES
from luna_farm.core.options import SaveSettings
from luna_farm.core.outputs import Output
from luna_farm.errors import DiskError, EncodeError, InvalidRequest, ProtocolError
from luna_farm.locations import Location, check_folder, is_url, parse

Json = Mapping[str, Any] | str | None


@dataclass(slots=True)
class SaveImage:
    """One image, or a batch of the same size.

    `pixels`: numpy array or torch tensor, [H,W], [H,W,C] or [B,H,W,C], uint8, uint16, bool or float 0..1, on
    CPU or CUDA, C = 1 (gray), 2 (gray and alpha, saved as RGBA), 3, 4.
    `affix` ends the name and, with `subdir`, names the folder. `format`: a name of `core.formats.FORMATS`.
    `mask`: [H,W] or [B,H,W], 1 where the image is transparent, as ComfyUI's masks are; it becomes alpha.
    `metadata`: generation parameters of this image; they come before those of the request.
    `outputs`: several files of this image instead of one, a list of `Output` or maps, or a text; instead of
    those of the request. The first one is the file that reports name.
    """

    pixels: Any
    affix: str = ""
    format: str = "png"
    subdir: bool = False
    metadata: Json = None
    mask: Any = None
    outputs: Sequence[Output | Mapping[str, Any]] | str = ()


@dataclass(slots=True)
class SaveRequest(SaveSettings):
    """Images that are saved together, and how: every option of `luna_farm.core.options` by its name.

    `images`: at least one. `output_dir`: None for the folder that the farm is configured with; a relative one
    starts from the caller's folder, a URL such as s3://bucket/prefix names a destination. `mirrors`: folders
    and URLs that the same files go to as well. `timestamp`: a datetime or ISO 8601, None for now; the tokens
    of names show it. `metadata`, `prompt`, `extra_pnginfo`, `custom_metadata` and `aigc` are maps, or JSON
    text; `model_dirs` is a list of folders. None stands for what the farm is configured with. `icc_profile`:
    bytes. `animation`: {"fps": 24, "loop": 0}, a batch becomes one moving image; "ms": [100, 400] in it says
    how long each frame lasts. `request_id`: 8 to 64 letters, digits, - and _; "" for a new one. What is
    submitted again under its id is one request: it gets the same receipt, or goes on with the images that are
    missing in it.
    """

    images: Sequence[SaveImage]
    output_dir: str | os.PathLike[str] | None = None
    timestamp: datetime | str | None = None
    animation: Mapping[str, Any] | None = None
    mirrors: Sequence[str | os.PathLike[str]] = ()
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the farm answers: the job is accepted, and these names are reserved for it, in order."""

    job_id: str
    paths: tuple[str, ...]
    num_images: int
    message: str
    warnings: tuple[str, ...] = ()
    outputs: tuple[tuple[str, ...], ...] = ()
    """The names of all files of each image, where images have several."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Receipt:
        """Read the answer to a submit."""
        try:
            return cls(
                answer["job_id"],
                tuple(answer["paths"]),
                answer["num_images"],
                answer["message"],
                tuple(answer["warnings"]),
                tuple(map(tuple, answer.get("outputs", ()))),
            )
        except KeyError as error:
            raise ProtocolError(f"The farm's receipt has no {error}.") from None


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What came of one image.

    `state`: queued, running, uploading, held (its folder cannot be written now), saved, discarded (by the
    gate, to `_discarded`), dropped, failed, cancelled, lost, or missing (never handed over). `ms`:
    milliseconds of gate, encode and write.
    """

    index: int
    affix: str
    format: str
    state: str
    path: str
    bytes: int
    score: float | None
    threshold: float | None
    error: str
    code: str
    warnings: tuple[str, ...]
    ms: Mapping[str, float]
    member: str = ""
    """Its name in the archive at `path`, "" if it is a file of its own."""
    outputs: tuple[Mapping[str, Any], ...] = ()
    """Every place that the file goes to: `path` (or URL), `state`, `bytes`, `error`."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """What it looks like: `variance`, `edge_density`, `clipped` (each 0..1), `blank`, `nan_count`,
    `phash`."""


@dataclass(frozen=True, slots=True)
class JobReport:
    """What came of a job: `state` is queued, running, done, failed, cancelled or lost."""

    job_id: str
    state: str
    images: tuple[ImageReport, ...]
    warnings: tuple[str, ...] = ()
    output_dir: str = ""
    timestamp: str = ""
    request_id: str = ""

    @property
    def finished(self) -> bool:
        """Nothing more will happen to it by itself."""
        return self.state not in ("queued", "running")

    @property
    def trouble(self) -> str:
        """Why an image cannot be written or sent now, "" if nothing is known to be wrong. The farm goes on
        trying."""
        for image in self.images:
            if image.code == DiskError.code and image.state in ("held", "queued", "running"):
                return image.error
            for place in image.outputs:
                if place["state"] == "waiting" and place["error"]:
                    return str(place["error"])
        return ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that are there now."""
        return tuple(image.path for image in self.images if image.state in ("saved", "discarded"))

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> JobReport:
        """Read the answer to `job` or `wait`; fields of a newer farm are left out."""
        images = []
        for image in answer["images"]:
            known = {name: image[name] for name in ImageReport.__slots__ if name in image}
            images.append(ImageReport(**{**known, "warnings": tuple(image["warnings"])}))
        return cls(
            answer["job_id"],
            answer["state"],
            tuple(images),
            tuple(answer["warnings"]),
            answer["output_dir"],
            answer["timestamp"],
            answer.get("request_id", ""),
        )


@dataclass(frozen=True, slots=True)
class PauseReport:
    """Whether the pool is paused, how many images wait for it, and how many are being saved even so."""

    paused: bool
    waiting: int
    running: int


def request_for(pixels: Any, path: str | os.PathLike[str], options: dict[str, Any]) -> SaveRequest:
    """Return the request that saves `pixels` as `path`; its ending names the format. Raises
    InvalidRequest."""
    if not isinstance(path, str | os.PathLike):
        raise InvalidRequest.of("path", path, "a path as text or os.PathLike")
    folder, name = _split(os.fspath(path))
    stem, _, ending = name.rpartition(".")
    image_format = FORMAT_NAMES.get(ending.lower())
    if not stem or image_format is None:
        raise InvalidRequest.of("path", os.fspath(path), f"a name that ends in .{', .'.join(FORMAT_NAMES)}")
    for option, value in options.items():
        if option in ("images", "output_dir", "filename", "save_path"):
            raise InvalidRequest.of(option, value, "nothing: the path says it")
        if option not in SaveRequest.__dataclass_fields__:
            import difflib  # only here: a caller without mistakes does without it

            near = difflib.get_close_matches(option, SaveRequest.__dataclass_fields__, 1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise InvalidRequest.of("options", option, f"the options of SaveRequest{meant}")
    shape: Any = getattr(pixels, "shape", ())
    if len(shape) == 4 and shape[0] != 1 and not options.get("animation"):
        allowed = "one image, [H, W] or [H, W, C]; FarmClient.submit saves a batch"
        raise InvalidRequest.of("pixels.shape", list(shape), allowed)
    return SaveRequest([SaveImage(pixels, format=image_format)], output_dir=folder, filename=stem, **options)


def _split(path: str) -> tuple[str, str]:
    """Return folder and name, of a URL as well."""
    if is_url(path):
        place = parse("path", path)
        folder, _, name = place.prefix.rpartition("/")
        return Location(place.scheme, place.host, folder).url, name
    check_folder("path", path)
    folder, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
    return folder, name


def path_of(report: JobReport) -> str:
    """Return the path of the one file of a report. Raises EncodeError or DiskError when there is none."""
    (image,) = report.images
    exists = image.state == "dropped" and image.score is None  # and was left as it is, as `if_exists` says
    if image.state in ("saved", "discarded") or exists:
        return image.path
    if image.state == "dropped":
        why = f"the quality gate rejected it ({image.score:.2f} is below {image.threshold:.2f})"
        raise EncodeError(f"{image.path} was not saved: {why}, and on_reject is drop.")
    if image.code in (DiskError.code, "destination"):
        raise DiskError(image.error, image.path)
    raise EncodeError(f"{image.path} was not saved: {image.error or image.state}")
