"""What a submit may hold: the one place where the fields of a message are validated.

What comes out is not changed once it is made; it is not frozen, which takes three times as long to make.
Pure: a decoded map goes in, typed values or one InvalidRequest come out. It must never repair a value
silently.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

from luna_farm.config_provenance import aigc_fields
from luna_farm.core import presets
from luna_farm.core.batches import KEPT_SETTINGS, Batch, batch_of_images, with_outputs
from luna_farm.core.fields import (
    DOCUMENTS_LIMIT,
    absolute,
    boolean,
    moment,
    text,
)
from luna_farm.core.messages import SaveOptions
from luna_farm.core.options import OPTIONS
from luna_farm.errors import InvalidRequest, ProtocolError, TooLarge
from luna_farm.locations import is_url, parse

COMMAND_LIMIT = 64
MOST_TOGETHER = 1024
"""Requests in one message."""
ALIGNMENT = 64
"""Bytes: the images of several requests begin at multiples of it."""
REQUEST_ID = re.compile(r"[0-9a-zA-Z_-]{8,64}")
_DOCUMENTS = tuple(name for name, option in OPTIONS.items() if option.is_document)
MAX_MIRRORS = 8
_SETTINGS = {"output_dir", "mirrors", "embed_workflow"} | OPTIONS.keys() - set(_DOCUMENTS)


@dataclass(slots=True, unsafe_hash=True)
class Part:
    """One element of `parts` in a seal: the next `images` images lie behind one another in the slot
    `lease`."""

    lease: int
    images: int
    flaws: tuple[int, ...] = ()
    """How many values of each image were NaN or infinite; empty where none was."""


@dataclass(slots=True, unsafe_hash=True)
class Submit:
    """A submit. `want` are the sizes of the leases that the receipt shall bring for the next one. `told` are
    sentences of the client for the report."""

    request_id: str
    options: SaveOptions
    batches: tuple[Batch, ...]
    want: tuple[int, ...] = ()
    told: tuple[str, ...] = ()
    into: tuple[int, ...] = ()
    """Leases that the images are being copied into, one each: the receipt may come before the seal."""
    num_images: int = field(init=False, compare=False)
    """Images of all batches."""
    _ends: tuple[int, ...] = field(init=False, compare=False)
    """How many images the batches hold up to and including each."""

    def __post_init__(self) -> None:
        self._ends = tuple(accumulate([batch.batch for batch in self.batches]))
        self.num_images = self._ends[-1] if self._ends else 0

    def batch_of(self, index: int) -> tuple[Batch, int]:
        """Return the batch that image `index` belongs to, and its place in it."""
        at = bisect_right(self._ends, index)
        return self.batches[at], index - (self._ends[at] - self.batches[at].batch)


def mirrors(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the list of further places: absolute paths and URLs."""
    value = given.get("mirrors") or ()
    if not isinstance(value, list | tuple) or len(value) > MAX_MIRRORS:
        raise InvalidRequest.of("mirrors", value, f"a list of at most {MAX_MIRRORS} folders and URLs")
    return tuple(place({"mirrors": mirror}, "mirrors") for mirror in value)


def place(given: Mapping[str, Any], field: str) -> str:
    """Return an absolute path, or the URL of a destination, without a slash at its end."""
    value = given.get(field)
    if isinstance(value, str) and is_url(value):
        return parse(field, text(given, field)).url
    return absolute(given, field)


def options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> SaveOptions:
    """Validate the fields that all images share. `defaults` come from the configuration (output_dir, and the
    options that are `of_farm`).

    The documents are validated as texts here and as JSON where they are used: one that does not parse costs
    its metadata, not the image.
    """
    shared = {name: value for name, value in given.items() if name in _SETTINGS and value is not None}
    if not shared.get("output_dir"):
        shared["output_dir"] = defaults.get("output_dir")
    texts = {name: given[name] for name in _DOCUMENTS if given.get(name)}
    return SaveOptions(
        **settings({**defaults, **shared}),
        **documents(texts) if texts else {},
        timestamp=moment(given, "timestamp"),
    )


def documents(given: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the JSON texts, which together must fit into a frame."""
    judged = {name: OPTIONS[name].kind.check(name, value) for name, value in given.items()}
    total = sum(map(len, judged.values()))
    if total > DOCUMENTS_LIMIT:
        allowed = f"at most {DOCUMENTS_LIMIT:,} characters with metadata and custom_metadata"
        raise TooLarge.of("prompt and extra_pnginfo", total, allowed)
    return judged


def settings(given: dict[str, Any]) -> dict[str, Any]:
    """Validate the output_dir and the options that are given. A program mostly sends what it sent before, but
    for the name: that is validated once. `given` is used up."""
    own = {name: OPTIONS[name].kind.check(name, given.pop(name)) for name in OF_ONE_REQUEST if name in given}
    try:
        valid = _validated(tuple(given), *given.values())
    except TypeError:  # some value is a list
        values = [tuple(value) if type(value) is list else value for value in given.values()]
        try:
            valid = _validated(tuple(given), *values)
        except TypeError:  # a list or map where a plain value belongs: its kind refuses it
            valid = _validated.__wrapped__(tuple(given), *values)
    return {**valid, **own}


OF_ONE_REQUEST = ("filename", "filename_index")
"""Options that differ from one request to the next."""


# `typed`, here and below, because 1 == True.
@lru_cache(maxsize=KEPT_SETTINGS, typed=True)
def _validated(names: tuple[str, ...], *values: Any) -> dict[str, Any]:
    given = dict(zip(names, values, strict=True))
    given = presets.filled(given)
    valid = {name: OPTIONS[name].kind.check(name, value) for name, value in given.items() if name in OPTIONS}
    if not boolean(given, "embed_workflow", True):
        valid["embed"] = "none"
    aigc_fields(valid.get("aigc", ""))
    return {"output_dir": place(given, "output_dir"), "mirrors": mirrors(given), **valid}


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
    lease, images = part[:2]
    if type(lease) is not int or type(images) is not int or not (0 < lease < 2**62 and 0 < images < 2**62):
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


MAX_SENTENCES = 8


def sentences(given: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """Return a list of at most 8 texts for the report."""
    value = given.get(field, [])
    if not isinstance(value, list) or len(value) > MAX_SENTENCES:
        raise InvalidRequest.of(field, value, f"a list of at most {MAX_SENTENCES} texts")
    return tuple(text({field: one}, field) for one in value)


def request_id(value: object) -> str:
    """Return the id of a request."""
    if not isinstance(value, str) or not REQUEST_ID.fullmatch(value):
        raise InvalidRequest.of("request_id", value, "8 to 64 letters, digits, - and _")
    return value


def submit(given: Mapping[str, Any], defaults: Mapping[str, Any], limits: Mapping[str, int]) -> Submit:
    """Judge a whole submit. `limits`: max_images, max_pixels, arena_bytes. Raises InvalidRequest."""
    own_id = request_id(given.get("request_id"))
    images = given.get("images")
    if not isinstance(images, list) or not images:
        raise InvalidRequest.of("images", images, "a list of at least one image")
    if len(images) > limits["max_images"]:
        raise TooLarge.of(
            "images", len(images), f"at most {limits['max_images']} images a job (setting max_images)"
        )
    batches = [batch_of_images(image, limits["max_pixels"]) for image in images]
    total = sum([batch.batch for batch in batches])
    if total > limits["max_images"]:
        raise TooLarge.of(
            "images", total, f"at most {limits['max_images']} images a job (setting max_images)"
        )
    want = sizes(given, "want", limits["max_images"], limits["arena_bytes"])
    shared = options(given, defaults)
    batches = [with_outputs(batch, shared) for batch in batches]
    into = sizes(given, "into", limits["max_images"], 2**62) if "into" in given else ()
    return Submit(own_id, shared, tuple(batches), want, sentences(given, "told"), into)


def submit_many(
    given: Mapping[str, Any], defaults: Mapping[str, Any], limits: Mapping[str, int]
) -> tuple[tuple[Submit, ...], tuple[int, ...]]:
    """Judge several submits in one message; returns them, and the sizes of the leases that the answer shall
    bring. Raises InvalidRequest, which says which of them is wrong."""
    requests = given.get("requests")
    allowed = f"a list of 1 to {MOST_TOGETHER} submits"
    if not isinstance(requests, list) or not 0 < len(requests) <= MOST_TOGETHER:
        raise InvalidRequest.of("requests", requests, allowed)
    submits: list[Submit] = []
    for number, one in enumerate(requests):
        if not isinstance(one, dict):
            raise InvalidRequest.of(f"requests[{number}]", one, "a map")
        try:
            submits.append(submit(one, defaults, limits))
        except InvalidRequest as error:
            raise error.at(f"requests[{number}]") from None
    if len({one.request_id for one in submits}) < len(submits):
        raise InvalidRequest.of("request_id", "the same id twice", "an id of its own for each request")
    images = sum(one.num_images for one in submits)
    if images > limits["max_images"]:
        allowed = f"at most {limits['max_images']} images together (setting max_images)"
        raise TooLarge.of("requests", images, allowed)
    return tuple(submits), sizes(given, "want", limits["max_images"], limits["arena_bytes"])


def aligned(offset: int) -> int:
    """Return the first offset from `offset` on at which the pixels of an image may begin in a shared slot."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def command(message: Mapping[str, Any]) -> str:
    """Return the `cmd` of a message."""
    name = message.get("cmd")
    if not isinstance(name, str) or len(name) > COMMAND_LIMIT:
        raise ProtocolError("A message must carry `cmd`, the name of a command.")
    return name
