"""What a caller asks for and what it is told: requests, receipts and reports as plain dataclasses.

`Outgoing` turns a request into the fields of the wire, and says at the caller what is wrong with it. No
sockets here.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from luna_farm.core import fields as checks
from luna_farm.core import presets, schema
from luna_farm.core.fields import DOCUMENTS_LIMIT, NAME_LIMIT, TYPED_LIMIT, Base64, JsonText
from luna_farm.core.formats import ANIMATED, BIT_DEPTHS
from luna_farm.core.options import MOST_FPS, MOST_LOOPS, OPTIONS, Option, SaveSettings
from luna_farm.errors import InvalidRequest, ProtocolError
from luna_farm.locations import is_url, parse
from luna_farm_client import oversize
from luna_farm_client.pixels import PixelInfo, describe, with_alpha

PIECE_BYTES = 2**20
"""Images of a batch that are smaller share a slot up to this size."""
Json = Mapping[str, Any] | str | None


@dataclass(slots=True)
class SaveImage:
    """One image, or a batch of the same size.

    `pixels`: numpy array or torch tensor, [H,W], [H,W,C] or [B,H,W,C], uint8, uint16, bool or float 0..1, on
    CPU or CUDA, C = 1, 3, 4.
    `affix` ends the name and, with `subdir`, names the folder. `format`: a name of `core.formats.FORMATS`.
    `mask`: [H,W] or [B,H,W], 1 where the image is transparent, as ComfyUI's masks are; it becomes alpha.
    `metadata`: generation parameters of this image; they come before those of the request.
    """

    pixels: Any
    affix: str = ""
    format: str = "png"
    subdir: bool = False
    metadata: Json = None
    mask: Any = None


@dataclass(slots=True)
class SaveRequest(SaveSettings):
    """Images that are saved together, and how: every option of `luna_farm.core.options` by its name.

    `images`: at least one. `output_dir`: None for the folder that the farm is configured with; a relative one
    starts from the caller's folder, a URL such as s3://bucket/prefix names a destination. `mirrors`: folders
    and URLs that the same files go to as well. `timestamp`: a datetime or ISO 8601, None for now; the tokens
    of names show it. `metadata`, `prompt`, `extra_pnginfo`, `custom_metadata` and `aigc` are maps, or JSON
    text; `model_dirs` is a list of folders. None stands for what the farm is configured with. `icc_profile`:
    bytes. `animation`: {"fps": 24, "loop": 0}, a batch becomes one moving image.
    """

    images: Sequence[SaveImage]
    output_dir: str | os.PathLike[str] | None = None
    timestamp: datetime | str | None = None
    animation: Mapping[str, Any] | None = None
    mirrors: Sequence[str | os.PathLike[str]] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the farm answers: the job is accepted, and these names are reserved for it, in order."""

    job_id: str
    paths: tuple[str, ...]
    num_images: int
    message: str
    warnings: tuple[str, ...] = ()

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
            )
        except KeyError as error:
            raise ProtocolError(f"The farm's receipt has no {error}.") from None


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What came of one image.

    `state`: waiting, running, held (its folder cannot be written now), saved, discarded (by the gate, to
    `_discarded`), dropped, failed, cancelled or lost. `ms`: milliseconds of gate, encode and write.
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
    outputs: tuple[Mapping[str, Any], ...] = ()
    """Every place that the file goes to: `path` (or URL), `state`, `bytes`, `error`."""


@dataclass(frozen=True, slots=True)
class JobReport:
    """What came of a job: `state` is queued, running, done, failed, cancelled or lost."""

    job_id: str
    state: str
    images: tuple[ImageReport, ...]
    warnings: tuple[str, ...] = ()
    output_dir: str = ""
    timestamp: str = ""

    @property
    def finished(self) -> bool:
        """Nothing more will happen to it by itself."""
        return self.state not in ("queued", "running")

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
        )


_read_options = attrgetter(*OPTIONS)
_DOCUMENTS = tuple(name for name, option in OPTIONS.items() if option.is_document)
_DEFAULTS = {name: option.default for name, option in OPTIONS.items()}


@dataclass(frozen=True, slots=True)
class Piece:
    """What goes into one slot: `images` images of one batch, `nbytes` bytes of `dtype`."""

    pixels: Any
    images: int
    nbytes: int
    dtype: str = "uint8"


def _pieces(pixels: Any, info: PixelInfo) -> Iterator[Piece]:
    """Split a batch into images; small ones stay together, since a slot and a message of their own cost
    more."""
    if info.batch == 1:
        yield Piece(pixels, 1, info.nbytes, info.dtype)
        return
    size = info.nbytes // info.batch
    count = max(1, PIECE_BYTES // size)
    for first in range(0, info.batch, count):
        part = pixels[first : first + count]
        yield Piece(part, len(part), len(part) * size, info.dtype)


@dataclass(slots=True)
class Outgoing:
    """A request on its way: validated, with the fields for the wire. Raises InvalidRequest when made."""

    request: SaveRequest
    infos: list[PixelInfo] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    nbytes: int = 0
    """Bytes of all images."""
    left: dict[str, str] = field(default_factory=dict)
    """JSON texts that are more than a request holds, by name."""
    pixels: list[Any] = field(default_factory=list)
    """Of each image, with its mask as alpha."""

    def __post_init__(self) -> None:
        images = self.request.images
        if (
            not isinstance(images, Sequence)
            or not images
            or not all(isinstance(i, SaveImage) for i in images)
        ):
            raise InvalidRequest.of("images", images, "a list of at least one SaveImage")
        self.pixels = [
            image.pixels if image.mask is None else with_alpha(image.pixels, image.mask) for image in images
        ]
        given = _options(self.request)
        moving = "animation_fps" in given
        depth = checks.choice(given, "bit_depth", BIT_DEPTHS, "auto")
        forms = [schema.image_format({"format": image.format}) for image in images]
        self.infos = [
            describe(pixels, bit_depth=depth, formats=(form,))
            for pixels, form in zip(self.pixels, forms, strict=True)
        ]
        self.nbytes = sum(info.nbytes for info in self.infos)
        self.pieces = [
            piece
            for pixels, info in zip(self.pixels, self.infos, strict=True)
            for piece in ([Piece(pixels, 1, info.nbytes, info.dtype)] if moving else _pieces(pixels, info))
        ]
        documents = {name: given[name] for name in _DOCUMENTS if name in given}
        custom = len(documents.get("custom_metadata", ""))
        if custom > TYPED_LIMIT or sum(map(len, documents.values())) > DOCUMENTS_LIMIT:
            documents, self.left = oversize.cut(documents)
        self.fields = {
            "request_id": os.urandom(16).hex(),
            "timestamp": _moment(self.request.timestamp),
            **given,
            **documents,
        }
        schema.options(self.fields, {"output_dir": os.sep})
        for image, form, info in zip(images, forms, self.infos, strict=True):
            if moving and info.batch > 1 and form not in ANIMATED:
                raise InvalidRequest.of("animation", form, f"a format of {', '.join(ANIMATED)}")
            checks.text({"affix": image.affix}, "affix", limit=NAME_LIMIT)
            checks.boolean({"subdir": image.subdir}, "subdir", False)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each slot that is needed."""
        return [piece.nbytes for piece in self.pieces]

    def message(self, want: Sequence[int] = (), *, here: bool = True) -> dict[str, Any]:
        """Return the submit. `want`: sizes of the leases that its receipt shall bring; the next submit of a
        node is mostly like this one. `here`: the files will lie on this host."""
        images = [
            {
                "affix": image.affix,
                "format": image.format,
                "subdir": image.subdir,
                **_shape(info, "animation_fps" in self.fields),
                **({"metadata": json_text("metadata", image.metadata)} if image.metadata else {}),
            }
            for image, info in zip(self.request.images, self.infos, strict=True)
        ]
        beside = here and not is_url(self.fields.get("output_dir", ""))
        told = {"told": [oversize.sentence(self.left, beside)]} if self.left else {}
        return {**self.fields, **told, "cmd": "save_images_async", "images": images, "want": list(want)}


def _shape(info: PixelInfo, moving: bool) -> dict[str, Any]:
    batch, frames = (1, info.batch) if moving else (info.batch, 1)
    shape: dict[str, Any] = {"shape": [batch, info.height, info.width, info.channels]}
    if frames > 1:
        shape["frames"] = frames
    if info.dtype != "uint8":
        shape["dtype"] = info.dtype
    return shape


def _options(request: SaveRequest) -> dict[str, Any]:
    """The options that are not at their defaults, and the folder, as they go over the wire."""
    values = dict(zip(OPTIONS, _read_options(request), strict=True))
    checks.choice(values, "preset", presets.NAMES, "balanced")
    given = {
        name: _on_the_wire(OPTIONS[name], value)
        for name, value in presets.filled(values, request.preset, _DEFAULTS).items()
        if value is not None and not _is_default(OPTIONS[name], value)
    }
    if request.embed == "none":
        given.pop("extra_pnginfo", None)  # the other documents are read by tokens of names
    if request.animation is not None:
        given |= _animation(request.animation)
    if request.output_dir is not None:
        given["output_dir"] = _place("output_dir", request.output_dir)
    if request.mirrors:
        given["mirrors"] = _mirrors(request.mirrors)
    return given


def _is_default(option: Option, value: Any) -> bool:
    return type(value) is type(option.default) and bool(value == option.default)


def _on_the_wire(option: Option, value: Any) -> Any:
    if option.is_document or isinstance(option.kind, JsonText):
        return json_text(option.name, value)
    if option.name == "model_dirs" and not isinstance(value, str):
        return "\n".join(_path(option.name, folder) for folder in value)
    if option.name == "ingredient":
        return _path(option.name, value)
    if isinstance(option.kind, Base64) and isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def _path(field: str, given: Any) -> str:
    if not isinstance(given, str | os.PathLike):
        raise InvalidRequest.of(field, given, "a path as text or os.PathLike")
    path = checks.text({field: os.fspath(given)}, field)
    return os.path.abspath(os.path.expanduser(path))


def _place(field: str, given: Any) -> str:
    """Return a place as the farm takes it: a URL as it is, a folder absolute."""
    if isinstance(given, str) and is_url(given):
        return parse(field, given).url
    return _path(field, given)


def _mirrors(given: Any) -> list[str]:
    if isinstance(given, str | os.PathLike) or not isinstance(given, Sequence):
        raise InvalidRequest.of("mirrors", given, "a list of folders and URLs")
    return [_place("mirrors", place) for place in given]


def _animation(given: Mapping[str, Any]) -> dict[str, Any]:
    allowed = f'{{"fps": above 0 to {MOST_FPS}, "loop": 0 (for ever) to {MOST_LOOPS}}}'
    if not isinstance(given, Mapping) or not {*given} <= {"fps", "loop"}:
        raise InvalidRequest.of("animation", given, allowed)
    fps = checks.number(given, "fps", 0, MOST_FPS, 24)
    if fps <= 0:
        raise InvalidRequest.of("animation", given, allowed)
    return {"animation_fps": fps, "animation_loop": checks.integer(given, "loop", 0, MOST_LOOPS, 0)}


def _moment(given: datetime | str | None) -> str:
    if given is None:
        given = datetime.now().astimezone()
    if isinstance(given, datetime):
        return given.isoformat(timespec="milliseconds")
    return checks.moment({"timestamp": given}, "timestamp")


def json_text(name: str, value: Json) -> str:
    """Return a map as JSON text: ASCII, and never NaN, which no reader of the files takes (it becomes
    null). Objects with fields, such as the METADATA of ComfyUI-Image-Saver, count as maps."""
    if value is None or isinstance(value, str):
        return value or ""
    value = _fields(value)
    try:
        try:
            return json.dumps(value, allow_nan=False, default=str)
        except ValueError:
            return json.dumps(_finite(value), allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest.of(name, value, f"a map that JSON can hold ({error})") from None


def _fields(value: Any) -> Any:
    """Return the fields of an object as a map: of a dataclass, a named tuple, a pydantic model, any other."""
    if isinstance(value, Mapping) or (isinstance(value, list | tuple) and not hasattr(value, "_asdict")):
        return value
    for read in ("_asdict", "model_dump"):
        if callable(getattr(value, read, None)):
            return getattr(value, read)()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if hasattr(value, "__dict__"):
        return {name: part for name, part in vars(value).items() if not name.startswith("_")}
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
