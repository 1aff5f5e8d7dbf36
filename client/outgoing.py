"""`Outgoing`: a request on its way. Turns it into the fields of the wire, and says what is wrong with it
before anything is sent. No sockets here.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from luna_farm.core import batches, outputs, schema
from luna_farm.core import fields as checks
from luna_farm.core.fields import DOCUMENTS_LIMIT, Base64, Durations, JsonText, Text
from luna_farm.core.formats import ANIMATED
from luna_farm.core.options import MOST_FPS, MOST_LOOPS, OPTIONS, Option
from luna_farm.core.outputs import Outputs
from luna_farm.errors import InvalidRequest
from luna_farm.locations import is_url
from luna_farm_client import oversize
from luna_farm_client.json_text import json_text
from luna_farm_client.pixels import PixelInfo, describe, spread, with_alpha
from luna_farm_client.places import places
from luna_farm_client.requests import SaveImage, SaveRequest

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

T = TypeVar("T")
PIECE_BYTES = 2**20
"""Images of a batch that are smaller share a slot up to this size."""
_PATHS = ("model_dirs", "ingredient")
_DOCUMENTS = tuple(name for name, option in OPTIONS.items() if option.is_document)
_SETTINGS = tuple(name for name in OPTIONS if name not in (*_PATHS, *_DOCUMENTS, *schema.OF_ONE_REQUEST))
_read_settings = attrgetter(*_SETTINGS)
_read_documents = attrgetter(*_DOCUMENTS)


@dataclass(slots=True)
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
    forms: list[dict[str, Any]] = field(default_factory=list)
    """Affix, format and subdir of each image."""
    fields: dict[str, Any] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    nbytes: int = 0
    """Bytes of all images."""
    left: dict[str, str] = field(default_factory=dict)
    """JSON texts that are more than a request holds, by name."""
    told: list[str] = field(default_factory=list)
    """What else the report has to say about the metadata."""
    of_images: list[str] = field(default_factory=list)
    """The metadata of each image, JSON texts."""
    outputs: list[str] = field(default_factory=list)
    """The files of each image, texts; "" for those of the request."""
    pixels: list[Any] = field(default_factory=list)
    """Of each image, with its mask as alpha."""

    def __post_init__(self) -> None:
        request = self.request
        images = request.images
        if (
            not isinstance(images, Sequence)
            or not images
            or not all(isinstance(i, SaveImage) for i in images)
        ):
            raise InvalidRequest.of("images", images, "a list of at least one SaveImage")
        self.fields = {
            "request_id": schema.request_id(request.request_id) if request.request_id else _new_id(),
            "timestamp": _moment(request.timestamp),
            **_settings(request),
            **places(request),
            **_animation(request.animation),
        }
        self._describe_images(images)
        texts = [("save_path", request.save_path), ("filename", request.filename)]
        texts += [("affix", image.affix) for image in images]
        for name in dict.fromkeys(name for name, text in texts if text and "\0" in text):
            self.told.append(f"{name}: NUL was left out, because no name holds it.")
        documents = {
            name: self._text(name, value)
            for name, value in zip(_DOCUMENTS, _read_documents(request), strict=True)
            if value is not None and not (isinstance(value, str) and not value)
        }
        self.of_images = [
            self._text("metadata of an image", image.metadata) if image.metadata else "" for image in images
        ]
        if documents or any(self.of_images):
            self._add(documents)

    def _describe_images(self, images: Sequence[SaveImage]) -> None:
        moving = "animation_fps" in self.fields
        depth = self.fields.get("bit_depth", "auto")
        shared = outputs.checked(self.fields.get("outputs", ""))
        for image in images:
            judged = _once(_judged, image.affix, image.format, image.subdir)
            form = judged["format"]
            self.forms.append(judged)
            pixels = spread(image.pixels)
            pixels = pixels if image.mask is None else with_alpha(pixels, image.mask)
            files = outputs.checked(image.outputs) if image.outputs else shared
            self.outputs.append(outputs.text_of(files) if image.outputs else "")
            forms = tuple(file.format for file in files) or (form,)
            info = describe(pixels, bit_depth=depth, formats=forms)
            if moving and info.batch > 1 and form not in ANIMATED:
                raise InvalidRequest.of("animation", form, f"a format of {', '.join(ANIMATED)}")
            self.pixels.append(pixels)
            self.infos.append(info)
            self.nbytes += info.nbytes
            if moving or info.batch == 1:
                self.pieces.append(Piece(pixels, 1, info.nbytes, info.dtype))
            else:
                self.pieces += _pieces(pixels, info)

    def _text(self, name: str, value: Any) -> str:
        """Return the text of a document. One that JSON cannot hold costs itself, not the images."""
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        try:
            text = json_text(name, value)
            held = text if text.isascii() else text.encode(errors="replace").decode()  # lone surrogates
            return held.replace("\0", "")
        except InvalidRequest as error:
            self.told.append(f"metadata: {error} It was left out.")
            return ""

    def _add(self, documents: dict[str, str]) -> None:
        if self.request.embed == "none":
            documents.pop("extra_pnginfo", None)  # the other documents are read by tokens of names
        texts = (*documents.values(), *self.of_images)
        if sum(map(oversize.size, texts)) > DOCUMENTS_LIMIT:
            documents, self.of_images, self.left = oversize.cut(documents, self.of_images)
        schema.documents(documents)
        self.fields.update(documents)

    @property
    def moving(self) -> bool:
        """Whether the images of a batch become one moving image."""
        return "animation_fps" in self.fields

    def check(self, limits: Mapping[str, int]) -> None:
        """Raise TooLarge for an image that a farm with these limits never takes: before its pixels are given
        memory, of which there may be too little as well."""
        for info in self.infos:
            batches.check_pixels([info.batch, info.height, info.width, info.channels], limits["max_pixels"])

    @property
    def may_be_early(self) -> bool:
        """Whether its receipt may come before its seal."""
        return not self.fields.get("durable") and self.fields.get("archive", "none") == "none"

    @property
    def text_bytes(self) -> int:
        """About how much of a message it takes."""
        texts = (*self.fields.values(), *self.of_images, *self.outputs)
        return 256 * len(self.infos) + sum(len(text) for text in texts if isinstance(text, str))

    @property
    def images(self) -> int:
        """Images that it becomes; a moving one is one."""
        return len(self.infos) if self.moving else sum(info.batch for info in self.infos)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each slot that is needed."""
        return [piece.nbytes for piece in self.pieces]

    def message(
        self, want: Sequence[int] = (), into: Sequence[int] = (), *, here: bool = True
    ) -> dict[str, Any]:
        """Return the submit. `want`: sizes of the leases that its receipt shall bring; the next submit of a
        node is mostly like this one. `into`: the leases of its images, for a receipt before the seal. `here`:
        the files will lie on this host."""
        images = [
            {
                **form,
                **_shape(info, "animation_fps" in self.fields),
                **({"metadata": metadata} if metadata else {}),
                **({"outputs": files} if files else {}),
            }
            for form, info, metadata, files in zip(
                self.forms, self.infos, self.of_images, self.outputs, strict=True
            )
        ]
        beside = here and not is_url(self.fields.get("output_dir", ""))
        said = [*([oversize.sentence(self.left, beside)] if self.left else []), *self.told]
        more: dict[str, Any] = {"told": said[: schema.MAX_SENTENCES]} if said else {}
        if into:
            more["into"] = list(into)
        return {**self.fields, **more, "cmd": "save_images_async", "images": images, "want": list(want)}


def _shape(info: PixelInfo, moving: bool) -> dict[str, Any]:
    batch, frames = (1, info.batch) if moving else (info.batch, 1)
    shape: dict[str, Any] = {"shape": [batch, info.height, info.width, info.channels]}
    if frames > 1:
        shape["frames"] = frames
    if info.dtype != "uint8":
        shape["dtype"] = info.dtype
    return shape


def _new_id() -> str:
    return os.urandom(16).hex()


def _settings(request: SaveRequest) -> dict[str, Any]:
    """Return the settings that are not at their defaults, as they go over the wire. A program mostly gives
    what it gave before, but for the name: that is validated once."""
    given: dict[str, Any] = dict(_once(_validated, *_read_settings(request)))
    for name in schema.OF_ONE_REQUEST:
        value = getattr(request, name)
        if value is not None and not _is_default(OPTIONS[name], value):
            given[name] = OPTIONS[name].kind.check(name, value)
    return given


def _once(remembered: _lru_cache_wrapper[T], *values: Any) -> T:
    """Call a function that remembers what it returned; what cannot be a key is computed each time."""
    try:
        return remembered(*values)
    except TypeError:  # a map, or a list where a plain value belongs
        return remembered.__wrapped__(*values)


# `typed`, here and below, because 1 == True.
@lru_cache(maxsize=batches.KEPT_SETTINGS, typed=True)
def _validated(*values: Any) -> dict[str, Any]:
    settings = dict(zip(_SETTINGS, values, strict=True))
    given = {
        name: _on_the_wire(OPTIONS[name], value)
        for name, value in settings.items()
        if value is not None and not _is_default(OPTIONS[name], value)
    }
    schema.settings({"output_dir": os.sep, **given})
    return given


@lru_cache(maxsize=batches.KEPT_SETTINGS, typed=True)
def _judged(affix: Any, form: Any, subdir: Any) -> dict[str, Any]:
    """Validate the fields of a SaveImage and return them as they go over the wire."""
    return {
        "affix": checks.affix(affix),
        "subdir": checks.boolean({"subdir": subdir}, "subdir", False),
        "format": batches.image_format({"format": form}),
    }


def _is_default(option: Option, value: Any) -> bool:
    return type(value) is type(option.default) and bool(value == option.default)


def _on_the_wire(option: Option, value: Any) -> Any:
    if isinstance(option.kind, JsonText):
        return json_text(option.name, value)
    if isinstance(option.kind, Base64) and isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(option.kind, Durations | Outputs | Text):
        return option.kind.check(option.name, value)
    return value


def _animation(given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {}
    allowed = f'{{"fps": above 0 to {MOST_FPS}, "loop": 0 (for ever) to {MOST_LOOPS}, "ms": of each frame}}'
    if not isinstance(given, Mapping) or not {*given} <= {"fps", "loop", "ms"}:
        raise InvalidRequest.of("animation", given, allowed)
    fps = checks.number(given, "fps", 0, MOST_FPS, 24)
    if fps <= 0:
        raise InvalidRequest.of("animation", given, allowed)
    lasts = OPTIONS["animation_ms"].kind.check("animation_ms", given.get("ms") or "")
    of_each = {"animation_ms": lasts} if lasts else {}
    return {
        "animation_fps": fps,
        **of_each,
        "animation_loop": checks.integer(given, "loop", 0, MOST_LOOPS, 0),
    }


def _now() -> str:
    """The local time with its offset, as `datetime.now().astimezone().isoformat` writes it, in a third of the
    time."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    local = time.localtime(seconds)
    sign, offset = ("-", -local.tm_gmtoff) if local.tm_gmtoff < 0 else ("+", local.tm_gmtoff)
    day = f"{local.tm_year:04}-{local.tm_mon:02}-{local.tm_mday:02}"
    clock = f"{local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02}.{nanoseconds // 10**6:03}"
    return f"{day}T{clock}{sign}{offset // 3600:02}:{offset // 60 % 60:02}"


def _moment(given: datetime | str | None) -> str:
    if given is None:
        return _now()
    if isinstance(given, datetime):
        return given.isoformat(timespec="milliseconds")
    return checks.moment({"timestamp": given}, "timestamp")
