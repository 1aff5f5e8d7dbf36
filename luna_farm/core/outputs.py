"""Several files of one image: what each of them is. Written as a list of maps, or as a short text.

The text is one output after the other, separated by commas: `png, webp 1600 web q85, thumbnail 256`. A number
is the longest side, `q` and a number the quality, `l` and a number the level of PNG, `linear` averages light,
another word is the suffix. `thumbnail` is a small JPEG.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from luna_farm.core.fields import NAME_LIMIT, Flag, Kind, Text, Whole
from luna_farm.core.formats import TABLE
from luna_farm.errors import InvalidRequest

MOST = 8
"""Outputs of one image."""
LONGEST_SIDE = 65_535
THUMBNAIL_SIDE, THUMBNAIL_QUALITY, THUMBNAIL = 256, 80, "thumb"
EXTENSIONS = {row.name: row.extension for row in TABLE}
_NAMES = {name: name for name in EXTENSIONS} | {"jpg": "jpeg", "tif": "tiff"}
_ALLOWED = (
    f"a list of at most {MOST} outputs, or a text such as 'png, webp 1600 web q85, thumbnail 256'; formats: "
    + " | ".join(EXTENSIONS)
)
_PRESETS = {"master": "png", "web": "webp 1600 web", "thumbnail": f"jpeg {THUMBNAIL_SIDE} {THUMBNAIL}"}
"""Words that stand for a whole output."""


@dataclass(frozen=True, slots=True)
class Output:
    """One file of an image.

    `max_side`: the longest side in pixels, 0 for the size of the image; images are never enlarged. `suffix`:
    added to the name behind "_". `quality` (1..100) and `level` (0..9, of PNG): None for the request's own.
    `save_path`: folders below the output folder, with tokens; None for those of the image. `linear`: average
    light, not sRGB values, where it is made smaller.
    """

    format: str = "png"
    max_side: int = 0
    suffix: str = ""
    quality: int | None = None
    level: int | None = None
    save_path: str | None = None
    linear: bool = False

    @classmethod
    def thumbnail(cls, max_side: int = THUMBNAIL_SIDE) -> Output:
        """A small JPEG with the suffix "thumb"."""
        return cls("jpeg", max_side, THUMBNAIL, THUMBNAIL_QUALITY)

    @classmethod
    def from_map(cls, given: Mapping[str, Any]) -> Output:
        """Return an output of a map made by `to_map`, by this version or another."""
        return cls(**{name: given[name] for name in _BLANK if name in given})

    @property
    def ending(self) -> str:
        """What it adds to a name: `_web.webp`."""
        return (f"_{self.suffix}" if self.suffix else "") + f".{EXTENSIONS[self.format]}"

    def to_map(self) -> dict[str, Any]:
        """Return what is not at its default."""
        values = {row.name: getattr(self, row.name) for row in fields(self)}
        return {name: value for name, value in values.items() if name == "format" or value != _BLANK[name]}


_BLANK = {row.name: row.default for row in fields(Output)}
_KINDS: dict[str, Kind] = {
    "max_side": Whole(0, LONGEST_SIDE),
    "suffix": Text(64),
    "quality": Whole(1, 100),
    "level": Whole(0, 9),
    "save_path": Text(NAME_LIMIT, mended=True),
    "linear": Flag(),
}


class Outputs(Kind):
    """The outputs of an image, as a list of `Output` or maps, or as text. Kept as JSON text."""

    @property
    def allowed(self) -> str:
        return _ALLOWED

    def check(self, field: str, value: Any) -> str:
        return text_of(checked(value, field))


def checked(value: Any, field: str = "outputs") -> tuple[Output, ...]:
    """Return the outputs that a list, or a text, names. Raises InvalidRequest."""
    if isinstance(value, str):
        return _parsed(value, field)
    if not isinstance(value, Sequence) or len(value) > MOST:
        raise InvalidRequest.of(field, value, _ALLOWED)
    made = tuple(one if isinstance(one, Output) else _of_map(one, field) for one in value)
    for one in made:
        _check(one, field)
    names = [(one.save_path, one.ending) for one in made]
    if len(set(names)) < len(names):
        allowed = "outputs that differ in suffix, format or save_path, because each is a file of its own"
        raise InvalidRequest.of(field, value, allowed)
    return made


@lru_cache(maxsize=128)
def _parsed(text: str, field: str) -> tuple[Output, ...]:
    if not text.strip():
        return ()
    if not text.lstrip().startswith("["):
        return checked([_of_words(part, text, field) for part in text.split(",")], field)
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest.of(field, text, _ALLOWED) from None
    return checked(given, field)


def _of_words(part: str, text: str, field: str) -> Output:
    words = part.split()
    if words and words[0].lower() in _PRESETS:
        preset = words[0].lower()
        sizes = [word for word in words[1:] if word.isdigit()]
        given = [word for word in _PRESETS[preset].split() if not (sizes and word.isdigit())]
        words = [*given, *words[1:], *([f"q{THUMBNAIL_QUALITY}"] if preset == "thumbnail" else [])]
    found: dict[str, Any] = {}
    for word in words:
        name = _NAMES.get(word.lower())
        setting = re.fullmatch(r"([ql])(\d{1,3})", word)
        key: str
        value: Any
        if not found:
            key, value = "format", name or word
        elif word.isdigit():
            key, value = "max_side", int(word[:9])
        elif setting:
            key, value = {"q": "quality", "l": "level"}[setting[1]], int(setting[2])
        elif word == "linear":
            key, value = "linear", True
        else:
            key, value = "suffix", word
        if key in found and key != "quality":
            raise InvalidRequest.of(field, text, _ALLOWED)
        found.setdefault(key, value)
    return _of_map(found, field)


def _of_map(given: Any, field: str) -> Output:
    if not isinstance(given, Mapping) or not given.keys() <= _BLANK.keys():
        raise InvalidRequest.of(field, given, f"maps with {', '.join(_BLANK)}")
    return Output(**given)


def _check(output: Output, field: str) -> None:
    if not isinstance(output.format, str) or output.format.lower() not in _NAMES:
        raise InvalidRequest.of(field, output.format, _ALLOWED)
    object.__setattr__(output, "format", _NAMES[output.format.lower()])
    for name, kind in _KINDS.items():
        value = getattr(output, name)
        if value is not None or name in ("max_side", "suffix", "linear"):
            kind.check(f"{field}.{name}", value)


def text_of(outputs: Sequence[Output]) -> str:
    """Return outputs as the text that goes over the wire; "" for none."""
    return json.dumps([output.to_map() for output in outputs], separators=(",", ":")) if outputs else ""


def placed(
    outputs: Sequence[Output], paths: Sequence[str], mounts: Sequence[str] = ()
) -> tuple[dict[str, Any], ...]:
    """Return the maps of outputs, each with the path of its file and the mount point of its disk, for an
    `ImageTask`."""
    if not outputs:
        return ()
    disks = mounts or ("",) * len(outputs)
    return tuple(
        {**output.to_map(), "path": path, **({"mount": mount} if mount else {})}
        for output, path, mount in zip(outputs, paths, disks, strict=False)
    )


def with_thumbnail(outputs: tuple[Output, ...], thumbnail: bool, image_format: str) -> tuple[Output, ...]:
    """Return the outputs of an image, with `thumbnail` a small one too. () for one plain file."""
    small = Output.thumbnail()
    if not thumbnail or any(output.ending == small.ending for output in outputs):
        return outputs
    return (*(outputs or (Output(image_format),)), small)
