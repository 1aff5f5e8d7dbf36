"""Rows of the farm's own images: of those that a worker has written, and of those that failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import msgpack

from luna_farm.catalogue import facts
from luna_farm.catalogue.rows import CatalogueRow, from_map, kept, left_out
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.imaging import metadata
from luna_farm.imaging.metadata import Embedded

_DEFAULTS = {row.name: row.default for row in fields(CatalogueRow)}


def saved(
    task: ImageTask,
    options: SaveOptions,
    embedded: Embedded,
    result: ImageResult,
    *,
    size: tuple[int, int],
    crc32: int | None,
    saved_at: float,
    ms: Mapping[str, float],
    real_folder: str,
    names: Iterable[str],
) -> dict[str, Any]:
    """Return the fields of the `CatalogueRow` of an image that was written.

    embedded: what is in the file. size: width and height of the file in pixels. ms: of each step.
    real_folder: see `CatalogueRow`. names: of the setting `catalogue_fields`.
    """
    row: dict[str, Any] = {
        **facts.of_embedded(embedded),
        **(result.scores or {}),
        "path": result.path,
        "state": result.state,
        "bytes": result.bytes,
        "crc32": crc32,
        "saved_at": saved_at,
        "submitted_at": facts.moment(options.timestamp),
        "real_folder": real_folder,
        "warnings": tuple(result.warnings),
        **_of_task(task),
        "width": size[0],
        "height": size[1],
        "gate_score": result.score,
        "gate_threshold": result.threshold,
        "ms": round(sum(ms.values()), 3),
    }
    for name in left_out(tuple(names)):
        row.pop(name, None)
    return row


def failed(
    task: ImageTask, options: SaveOptions, error: str, *, at: float, names: Iterable[str]
) -> CatalogueRow:
    """Return the row of an image that could not be saved."""
    known: Mapping[str, Any] = {
        **facts.of_embedded(metadata.embed(options, task)),
        "submitted_at": facts.moment(options.timestamp),
    }
    row = CatalogueRow(
        path=task.path,
        state="failed",
        saved_at=at,
        error=error,
        nan_count=task.flaws,
        **_of_task(task),
        **known,
    )
    return kept(row, names)


def _of_task(task: ImageTask) -> dict[str, Any]:
    return {
        "job_id": task.job_id,
        "index": task.index,
        "format": task.format,
        "width": task.width,
        "height": task.height,
    }


def pack(row: Mapping[str, Any]) -> bytes:
    """Return the fields of a row as they travel: a msgpack map of what is not as it is by default."""
    packed: bytes = msgpack.packb({name: value for name, value in row.items() if value != _DEFAULTS[name]})
    return packed


def unpack(packed: bytes) -> CatalogueRow:
    """Read what `pack` made. Raises ValueError, TypeError."""
    return from_map(msgpack.unpackb(packed))
