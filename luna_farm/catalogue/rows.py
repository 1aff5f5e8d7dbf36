"""One row of the catalogue: what is known of one saved image. This module must stay free of SQLite, so that
clients and workers load it for little."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from luna_farm.core.messages import Message

NAME = "catalogue.sqlite"
"""Of the file in the state folder."""
STATES = ("saved", "discarded", "failed")
FIELDS: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": ""},
    "negative": {"negative": ""},
    "model": {"model": ""},
    "loras": {"loras": ()},
    "sampler": {"sampler": "", "scheduler": "", "steps": None, "cfg": None},
    "seed": {"seed": None},
    "custom": {"custom": ""},
    "warnings": {"warnings": (), "error": ""},
    "scores": {
        "variance": None,
        "edge_density": None,
        "clipped": None,
        "blank": None,
        "nan_count": None,
        "phash": "",
    },
}
"""What the setting `catalogue_fields` names -> the fields of a row that it keeps, each with what stands there
otherwise."""
SEED_RANGE = range(-(2**63), 2**64)
"""ComfyUI's seeds have 64 bits without a sign; what is outside travels in no message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueRow(Message):
    """One saved image, or one that failed. None and "" stand for what is not known.

    `id`: milliseconds since 1970 at which it was saved, or the next free number: newer images have larger
    ones. `path`: an absolute path or a URL. `state`: of STATES. Times are seconds since 1970, `ms` is what
    gate, encoder and disk took. `model` and `loras` ("name:strength") are without folders and ending.
    `custom`: JSON text.
    """

    path: str
    id: int = 0
    state: str = "saved"
    job_id: str = ""
    index: int = 0
    format: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    crc32: int | None = None
    """Of the whole file, as zlib has it."""
    submitted_at: float | None = None
    saved_at: float = 0.0
    ms: float | None = None
    affix: str = ""
    model: str = ""
    prompt: str = ""
    negative: str = ""
    loras: tuple[str, ...] = ()
    sampler: str = ""
    scheduler: str = ""
    steps: int | None = None
    cfg: float | None = None
    seed: int | None = None
    custom: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """Why it failed."""
    gate_score: float | None = None
    gate_threshold: float | None = None
    variance: float | None = None
    """Contrast 0..1, on the scale of the quality gate."""
    edge_density: float | None = None
    """0..1, on the scale of the quality gate."""
    clipped: float | None = None
    """Share 0..1 of pixels that are black or full in a channel."""
    blank: bool | None = None
    """Every pixel has the same colour."""
    nan_count: int | None = None
    """Values that were NaN or infinite."""
    phash: str = ""
    """Perceptual hash of 64 bits, 16 hexadecimal digits."""
    real_folder: str = ""
    """Folder of the file when it was saved, without links; "" if `path` has none."""


def kept(row: CatalogueRow, names: Iterable[str]) -> CatalogueRow:
    """Return a row without the fields that the setting `catalogue_fields` does not name."""
    empty = left_out(tuple(names))
    return replace(row, **empty) if empty else row


@lru_cache(maxsize=4)
def left_out(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that the setting `catalogue_fields` does not name, each with what stands there."""
    return {
        name: empty
        for group, fields in FIELDS.items()
        if group not in names
        for name, empty in fields.items()
    }


def from_map(given: dict[str, Any]) -> CatalogueRow:
    """Build a row from a map that travelled: lists become tuples again."""
    row = CatalogueRow.from_map(given)
    return replace(row, loras=tuple(row.loras), warnings=tuple(row.warnings))
