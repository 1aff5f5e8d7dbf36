"""What a submit may hold: the one place where the fields of a stranger's message are judged.

Pure: a decoded map goes in, typed values or one InvalidRequest come out. It must never repair a value
silently.
"""

from __future__ import annotations

import binascii
import json
import math
import ntpath
import posixpath
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import accumulate
from typing import Any

from luna_farm.config_provenance import PROVENANCES, SOURCE_TYPES, aigc_fields
from luna_farm.core.formats import ANIMATED, BIT_DEPTHS, DTYPES
from luna_farm.core.messages import (
    EMBED,
    FORMAT_NAMES,
    FORMATS,
    GATES,
    IF_EXISTS,
    NUMBERS,
    ON_REJECT,
    SIDECARS,
    SaveOptions,
)
from luna_farm.errors import InvalidRequest, ProtocolError, TooLarge
from luna_farm.locations import is_url, parse

TEXT_LIMIT = 4096
"""Characters of a path."""
NAME_LIMIT = 65_536
"""Characters of what names are made of; a name that is too long for a disk is cut, with a warning."""
COMMAND_LIMIT = 64
TYPED_LIMIT = 2**20
"""Characters of the JSON text that a person typed; it is parsed at once, so that he is told what is wrong."""
DOCUMENTS_LIMIT = 15 * 2**20
"""Characters of all JSON texts of a submit together, so that the frame of a submit holds them."""
REQUEST_ID = re.compile(r"[0-9a-zA-Z_-]{8,64}")
CHANNELS = (1, 3, 4)
COLORSPACES = ("srgb", "linear", "hlg", "pq")
EXR_COMPRESSIONS = ("zip", "dwaa", "none")
COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
PROFILE_LIMIT = -(-(2**20) // 3) * 4
"""Characters of an ICC profile of 1 MiB in base64."""
MOST_FPS, MOST_LOOPS, MOST_FRAMES = 240, 65_535, 10_000
KEPT_JUDGEMENTS = 128
"""Sets of settings that are known to be allowed."""
_SETTINGS = (
    *(
        "output_dir",
        "save_path",
        "filename",
        "model_name",
        "quality_gate",
        "min_quality_threshold",
        "on_reject",
    ),
    *("png_compression", "lossy_quality", "lossless_webp", "webp_method", "embed", "embed_workflow"),
    *("filename_index", "durable", "batch_digits", "numbers", "sidecar", "if_exists", "model_dirs"),
    *("mirrors",),
    *("bit_depth", "background", "colorspace", "icc_profile", "exr_compression", "exr_linear", "avif_speed"),
    *("jxl_effort", "provenance", "source_type", "aigc", "ingredient", "animation_fps", "animation_loop"),
)


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

    @property
    def image_bytes(self) -> int:
        """Bytes of one image, with all its frames."""
        return math.prod((self.frames, self.height, self.width, self.channels)) * DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class Part:
    """One element of `parts` in a seal: the next `images` images lie behind one another in the slot
    `lease`."""

    lease: int
    images: int
    flaws: tuple[int, ...] = ()
    """How many values of each image were NaN or infinite; empty where none was."""


@dataclass(frozen=True, slots=True)
class Submit:
    """A submit. `want` are the sizes of the leases that the receipt shall bring for the next one. `told` are
    sentences of the client for the report."""

    request_id: str
    options: SaveOptions
    batches: tuple[Batch, ...]
    want: tuple[int, ...] = ()
    told: tuple[str, ...] = ()
    _ends: tuple[int, ...] = field(init=False, compare=False)
    """How many images the batches hold up to and including each."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", tuple(accumulate(batch.batch for batch in self.batches)))

    @property
    def num_images(self) -> int:
        """Images of all batches."""
        return self._ends[-1]

    def batch_of(self, index: int) -> tuple[Batch, int]:
        """Return the batch that image `index` belongs to, and its place in it."""
        at = bisect_right(self._ends, index)
        return self.batches[at], index - (self._ends[at] - self.batches[at].batch)


def text(given: Mapping[str, Any], field: str, default: str = "", limit: int = TEXT_LIMIT) -> str:
    """Return a text field without NUL and without lone surrogates, at most `limit` characters."""
    value = given.get(field, default)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > limit or "\0" in value:
        raise InvalidRequest.of(field, value, f"a text of at most {limit} characters without NUL")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidRequest.of(field, value, "a text without lone surrogates") from None
    return value


def choice(given: Mapping[str, Any], field: str, allowed: tuple[str, ...], default: str) -> str:
    """Return one of `allowed`."""
    value = given.get(field, default)
    if value not in allowed:
        raise InvalidRequest.of(field, value, " | ".join(allowed))
    return str(value)


def image_format(given: Mapping[str, Any]) -> str:
    """Return the key of FORMATS that `format` names, in any case and by any of its usual names."""
    value = given.get("format", "png")
    name = FORMAT_NAMES.get(value.lower()) if isinstance(value, str) else None
    if name is None:
        raise InvalidRequest.of("format", value, " | ".join(FORMATS))
    return name


def integer(given: Mapping[str, Any], field: str, low: int, high: int, default: int | None = None) -> int:
    """Return a whole number from `low` to `high`; bool is not one."""
    value = given.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequest.of(field, value, f"a whole number from {low} to {high}")
    return value


def boolean(given: Mapping[str, Any], field: str, default: bool) -> bool:
    """Return true or false."""
    value = given.get(field, default)
    if not isinstance(value, bool):
        raise InvalidRequest.of(field, value, "true or false")
    return value


def number(given: Mapping[str, Any], field: str, low: float, high: float, default: float) -> float:
    """Return a number from `low` to `high`, not NaN."""
    value = given.get(field, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InvalidRequest.of(field, value, f"a number from {low} to {high}")
    return float(value)


def json_text(given: Mapping[str, Any], field: str, kind: type | None) -> str:
    """Return a text that holds JSON (of a map, when `kind` is dict), or ""."""
    value = text(given, field, limit=TYPED_LIMIT)
    if not value.strip():
        return ""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest.of(field, value, f"JSON text ({error})") from None
    if kind is not None and not isinstance(parsed, kind):
        raise InvalidRequest.of(field, value, "JSON text of a map")
    return value


MAX_MIRRORS = 8


def mirrors(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the list of further places: absolute paths and URLs."""
    value = given.get("mirrors") or ()
    if not isinstance(value, list | tuple) or len(value) > MAX_MIRRORS:
        raise InvalidRequest.of("mirrors", value, f"a list of at most {MAX_MIRRORS} folders and URLs")
    return tuple(absolute({"mirrors": place}, "mirrors") for place in value)


def absolute(given: Mapping[str, Any], field: str) -> str:
    """Return an absolute path, in the form of the platform or of the other one, or the URL of a place that
    files may be sent to, without a slash at its end."""
    value = text(given, field)
    if is_url(value):
        return parse(field, value).url
    if not (posixpath.isabs(value) or (ntpath.isabs(value) and ntpath.splitdrive(value)[0])):
        raise InvalidRequest.of(field, value, "an absolute path (the client makes it absolute)")
    return value


def options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> SaveOptions:
    """Judge the fields that all images share. `defaults` come from the configuration (output_dir, on_reject,
    durable).

    `prompt`, `extra_pnginfo` and `metadata` are judged as texts here and as JSON where they are used: a
    workflow that does not parse costs its metadata, not the image. `custom_metadata` was typed by a person,
    who is told.
    """
    shared = {name: given[name] for name in _SETTINGS if name in given}
    if not shared.get("output_dir"):
        shared["output_dir"] = defaults.get("output_dir")
    return SaveOptions(
        **settings({**defaults, **shared}), **documents(given), timestamp=moment(given, "timestamp")
    )


def moment(given: Mapping[str, Any], field: str) -> str:
    """Return an ISO 8601 date and time."""
    value = text(given, field, limit=64)
    try:
        datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise InvalidRequest.of(field, value, "an ISO 8601 date and time") from None
    return value


def documents(given: Mapping[str, Any]) -> dict[str, Any]:
    """Judge the JSON texts, which together must fit into a frame."""
    judged = {
        "custom_metadata": json_text(given, "custom_metadata", None),
        **{
            name: text(given, name, limit=DOCUMENTS_LIMIT) for name in ("metadata", "prompt", "extra_pnginfo")
        },
    }
    total = sum(map(len, judged.values()))
    if total > DOCUMENTS_LIMIT:
        allowed = f"at most {DOCUMENTS_LIMIT:,} characters with metadata and custom_metadata"
        raise TooLarge.of("prompt and extra_pnginfo", total, allowed)
    return judged


def settings(given: dict[str, Any]) -> dict[str, Any]:
    """Judge all but texts and time. A program mostly sends what it sent before: that is judged once."""
    values = tuple(tuple(value) if type(value) is list else value for value in given.values())
    try:
        return _judged(tuple(given), values, tuple(map(type, values)))
    except TypeError:  # a list or map where a plain value belongs: refused by its judge
        return _judged.__wrapped__(tuple(given), values, ())


@lru_cache(maxsize=KEPT_JUDGEMENTS)
def _judged(names: tuple[str, ...], values: tuple[Any, ...], _: tuple[type, ...]) -> dict[str, Any]:
    """The types are part of the key, because 1 == True."""
    given = dict(zip(names, values, strict=True))
    embed = choice(given, "embed", EMBED, "full")
    return {
        "output_dir": absolute(given, "output_dir"),
        "save_path": text(given, "save_path", limit=NAME_LIMIT),
        "filename": text(given, "filename", limit=NAME_LIMIT),
        "model_name": text(given, "model_name", limit=NAME_LIMIT),
        "quality_gate": choice(given, "quality_gate", GATES, "disabled"),
        "min_quality_threshold": number(given, "min_quality_threshold", 0.0, 1.0, 0.3),
        "on_reject": choice(given, "on_reject", ON_REJECT, "discard"),
        "png_compression": integer(given, "png_compression", 0, 9, 4),
        "lossy_quality": integer(given, "lossy_quality", 1, 100, 90),
        "lossless_webp": boolean(given, "lossless_webp", False),
        "webp_method": integer(given, "webp_method", 0, 6, 2),
        "embed": embed if boolean(given, "embed_workflow", True) else "none",
        "filename_index": integer(given, "filename_index", 0, 2**31 - 1, 0),
        "durable": boolean(given, "durable", False),
        "batch_digits": integer(given, "batch_digits", 0, 9, 0),
        "numbers": choice(given, "numbers", NUMBERS, "after_last"),
        "sidecar": choice(given, "sidecar", SIDECARS, "auto"),
        "if_exists": choice(given, "if_exists", IF_EXISTS, "number"),
        "model_dirs": text(given, "model_dirs", limit=NAME_LIMIT),
        "bit_depth": choice(given, "bit_depth", BIT_DEPTHS, "auto"),
        "background": colour(given, "background"),
        "colorspace": choice(given, "colorspace", COLORSPACES, "srgb"),
        "icc_profile": base64_text(given, "icc_profile"),
        "exr_compression": choice(given, "exr_compression", EXR_COMPRESSIONS, "zip"),
        "exr_linear": boolean(given, "exr_linear", False),
        "avif_speed": integer(given, "avif_speed", 0, 10, 8),
        "jxl_effort": integer(given, "jxl_effort", 1, 9, 3),
        "provenance": choice(given, "provenance", PROVENANCES, "off"),
        "source_type": choice(given, "source_type", tuple(SOURCE_TYPES), "generated"),
        "aigc": aigc(given),
        "ingredient": text(given, "ingredient"),
        "animation_fps": number(given, "animation_fps", 0, MOST_FPS, 0),
        "animation_loop": integer(given, "animation_loop", 0, MOST_LOOPS, 0),
        "mirrors": mirrors(given),
    }


def colour(given: Mapping[str, Any], field: str) -> str:
    """Return a colour written #rrggbb."""
    value = text(given, field, "#ffffff")
    if not COLOUR.fullmatch(value):
        raise InvalidRequest.of(field, value, "a colour as #rrggbb, such as #ffffff")
    return value


def base64_text(given: Mapping[str, Any], field: str) -> str:
    """Return a text that is base64 of at most 1 MiB, "" for none."""
    value = text(given, field, limit=PROFILE_LIMIT)
    try:
        binascii.a2b_base64(value, strict_mode=True) if value else None
    except ValueError:
        raise InvalidRequest.of(field, value, "an ICC profile in base64, at most 1 MiB") from None
    return value


def aigc(given: Mapping[str, Any]) -> str:
    """Return JSON text of China's label, checked."""
    value = text(given, "aigc")
    aigc_fields(value)
    return value


def batch_of_images(given: Any, max_pixels: int) -> Batch:
    """Judge one element of `images`."""
    if not isinstance(given, dict):
        raise InvalidRequest.of("images", given, "a list of maps")
    shape = given.get("shape")
    if not isinstance(shape, list) or len(shape) != 4 or not all(type(n) is int and n > 0 for n in shape):
        raise InvalidRequest.of("shape", shape, "[batch, height, width, channels], each above 0")
    batch, height, width, channels = shape
    if channels not in CHANNELS:
        raise InvalidRequest.of("channels", channels, "1, 3 or 4")
    if height * width > max_pixels:
        raise TooLarge.of("shape", shape, f"at most {max_pixels:,} pixels an image (setting max_pixels)")
    form = image_format(given)
    if given.get("frames", 1) != 1 and form not in ANIMATED:
        raise InvalidRequest.of("animation", form, f"a format of {', '.join(ANIMATED)}")
    return Batch(
        affix=text(given, "affix", limit=NAME_LIMIT),
        format=form,
        subdir=boolean(given, "subdir", True),
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        dtype=choice(given, "dtype", tuple(DTYPES), "uint8"),
        frames=integer(given, "frames", 1, MOST_FRAMES, 1),
        metadata=text(given, "metadata", limit=TYPED_LIMIT),
    )


def parts(given: Mapping[str, Any], most: int) -> tuple[Part, ...]:
    """Return the parts of a seal, at most `most`: a list of [lease, images]."""
    value = given.get("parts")
    if not isinstance(value, list) or not 0 < len(value) <= most or not all(_is_part(part) for part in value):
        allowed = f"a list of 1 to {most} times [lease, images] or [lease, images, [flaws of each]]"
        raise InvalidRequest.of("parts", value, allowed)
    return tuple(Part(part[0], part[1], tuple(*part[2:])) for part in value)


def _is_part(part: Any) -> bool:
    if not isinstance(part, list) or len(part) not in (2, 3):
        return False
    if not all(type(n) is int and 0 < n < 2**62 for n in part[:2]):
        return False
    if len(part) == 2:
        return True
    flaws = part[2]
    counted = isinstance(flaws, list) and all(type(n) is int and 0 <= n < 2**62 for n in flaws)
    return counted and len(flaws) == part[1]


def sizes(given: Mapping[str, Any], field: str, max_images: int, max_bytes: int) -> tuple[int, ...]:
    """Return a list of sizes in bytes, one a slot."""
    value = given.get(field, [])
    if (
        not isinstance(value, list)
        or len(value) > max_images
        or not all(type(n) is int and n > 0 for n in value)
    ):
        raise InvalidRequest.of(field, value, f"a list of at most {max_images} sizes in bytes, each above 0")
    if sum(value) > max_bytes:
        raise TooLarge.of(field, value, f"at most {max_bytes:,} bytes together (setting arena_bytes)")
    return tuple(value)


def sentences(given: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """Return a list of at most 8 texts for the report."""
    value = given.get(field, [])
    if not isinstance(value, list) or len(value) > 8:
        raise InvalidRequest.of(field, value, "a list of at most 8 texts")
    return tuple(text({field: one}, field) for one in value)


def submit(given: Mapping[str, Any], defaults: Mapping[str, Any], limits: Mapping[str, int]) -> Submit:
    """Judge a whole submit. `limits`: max_images, max_pixels, arena_bytes. Raises InvalidRequest."""
    request_id = given.get("request_id")
    if not isinstance(request_id, str) or not REQUEST_ID.fullmatch(request_id):
        raise InvalidRequest.of("request_id", request_id, "8 to 64 letters, digits, - and _")
    images = given.get("images")
    if not isinstance(images, list) or not images:
        raise InvalidRequest.of("images", images, "a list of at least one image")
    if len(images) > limits["max_images"]:
        raise TooLarge.of(
            "images", len(images), f"at most {limits['max_images']} images a job (setting max_images)"
        )
    batches = tuple(batch_of_images(image, limits["max_pixels"]) for image in images)
    if sum(batch.batch for batch in batches) > limits["max_images"]:
        total = sum(batch.batch for batch in batches)
        raise TooLarge.of(
            "images", total, f"at most {limits['max_images']} images a job (setting max_images)"
        )
    want = sizes(given, "want", limits["max_images"], limits["arena_bytes"])
    return Submit(request_id, options(given, defaults), batches, want, sentences(given, "told"))


def command(message: Mapping[str, Any]) -> str:
    """Return the `cmd` of a message."""
    name = message.get("cmd")
    if not isinstance(name, str) or len(name) > COMMAND_LIMIT:
        raise ProtocolError("A message must carry `cmd`, the name of a command.")
    return name
