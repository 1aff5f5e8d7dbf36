"""A row of the catalogue as the columns of its tables, and back."""

from __future__ import annotations

import json
from typing import Any

from luna_farm.catalogue.rows import SEED_RANGE, STATES, CatalogueRow
from luna_farm.catalogue.words import indexed

_PLAIN = (
    *("format", "width", "height", "bytes", "crc32", "submitted_at", "ms", "affix", "sampler", "scheduler"),
    *("steps", "cfg", "gate_score", "gate_threshold", "variance", "edge_density", "clipped", "nan_count"),
)
"""Fields of a row that stand in a column as they are; "" becomes NULL."""
IMAGES = (
    *("id", "state", "folder", "real_folder", "name", "job_id", "number", "model", "seed", "blank", "phash"),
    *_PLAIN,
)
TEXTS = ("prompt", "negative", "loras", "custom", "warnings", "error")
SELECTED = ", ".join(
    [
        *(
            f"i.{name}"
            for name in ("id", "state", "name", "job_id", "number", "seed", "blank", "phash", *_PLAIN)
        ),
        *(f"t.{name}" for name in TEXTS if name != "negative"),
        "n.text AS negative",
        "f.path AS folder_path",
        "r.path AS real_path",
        "m.name AS model_name",
    ]
)
JOINED = (
    "JOIN folders f ON f.id = i.folder LEFT JOIN folders r ON r.id = i.real_folder"
    " LEFT JOIN models m ON m.id = i.model LEFT JOIN texts t ON t.id = i.id"
    " LEFT JOIN negatives n ON n.id = t.negative"
)


def split(path: str) -> tuple[str, str]:
    """Return the folder of a path or URL, with the separator at its end, and the name."""
    at = max(path.rfind("/"), path.rfind("\\")) + 1
    return path[:at], path[at:]


def of_images(
    row: CatalogueRow,
    id: int,  # noqa: A002
    folder: int,
    real_folder: int | None,
    model: int | None,
) -> tuple[Any, ...]:
    """Return the values of IMAGES; folders and model by their numbers."""
    plain = (getattr(row, name) for name in _PLAIN)
    return (
        id,
        STATES.index(row.state),
        folder,
        real_folder,
        split(row.path)[1],
        row.job_id or None,
        row.index if row.job_id else None,
        model,
        seed_column(row.seed),
        row.blank,
        phash_column(row.phash),
        *(None if value == "" else value for value in plain),
    )


def of_texts(row: CatalogueRow, negative: int | None) -> tuple[str | int | None, ...]:
    """Return the values of TEXTS, with the number of the negative prompt; all None where there is nothing."""
    lists = (json.dumps(value, ensure_ascii=False) if value else None for value in (row.loras, row.warnings))
    loras, warnings = lists
    return (row.prompt or None, negative, loras, row.custom or None, warnings, row.error or None)


def of_words(row: CatalogueRow) -> tuple[str, str]:
    """Return what the index takes of a row: the prompt, and the words about the image."""
    about = (split(row.path)[1], row.affix, row.model, *row.loras, row.custom)
    return indexed(row.prompt), indexed(" ".join(filter(None, about)))


def row_of(found: Any) -> CatalogueRow:
    """Build a row from a `sqlite3.Row` of SELECTED. Raises ValueError for what no writer of ours wrote."""
    values = {name: found[name] for name in (*_PLAIN, "prompt", "negative", "custom", "error")}
    texts = ("format", "affix", "sampler", "scheduler", "prompt", "negative", "custom", "error")
    numbers = ("width", "height", "bytes")
    values |= {name: values[name] or "" for name in texts} | {name: values[name] or 0 for name in numbers}
    return CatalogueRow(
        id=found["id"],
        saved_at=found["id"] / 1000,
        state=STATES[found["state"]],
        path=found["folder_path"] + found["name"],
        real_folder=found["real_path"] or "",
        job_id=found["job_id"] or "",
        index=found["number"] or 0,
        model=found["model_name"] or "",
        seed=None if found["seed"] is None else int(found["seed"]),
        blank=None if found["blank"] is None else bool(found["blank"]),
        phash="" if found["phash"] is None else f"{found['phash'] & (2**64 - 1):016x}",
        loras=tuple(json.loads(found["loras"] or "[]")),
        warnings=tuple(json.loads(found["warnings"] or "[]")),
        **values,
    )


def seed_column(seed: int | None) -> int | str | None:
    """Return a seed as the column holds it: a number of SQLite's 64 bits with sign, beyond them its
    digits."""
    if seed is None or seed not in SEED_RANGE:
        return None
    return seed if seed < 2**63 else str(seed)


def phash_column(phash: str) -> int | None:
    """Return 16 hexadecimal digits as SQLite's 64 bits with sign."""
    if not phash:
        return None
    value = int(phash, 16)
    return value - 2**64 if value >= 2**63 else value
