"""Makes the rows of the image files below folders again.

Rows of other folders stay. What a row knows and its file does not say (its job, its scores) stays as long
as the file has the same size. A row is removed if neither its file nor the archive that it is in is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from luna_farm.catalogue import files
from luna_farm.catalogue.rows import CatalogueRow, kept
from luna_farm.catalogue.store import Store

BATCH = 256
"""Rows of one transaction: what a farm that runs may have to wait for."""
NAMED = 10
"""Files that could not be read and are listed by name."""


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild has done so far."""

    images: int = 0
    unreadable: int = 0
    """Files with the ending of an image that are none."""
    unreadable_paths: list[str] = field(default_factory=list)
    """The first NAMED of them."""
    unlisted: list[str] = field(default_factory=list)
    """Folders that could not be looked into."""
    unscored: int = 0
    """Images whose scores and perceptual hash are not known: files do not hold them, and no row did."""
    removed: int = 0
    """Rows whose file is gone."""


def rebuild(
    store: Store,
    folders: Iterable[str],
    names: Iterable[str],
    *,
    pixels: bool = False,
    progress: Callable[[Rebuilt], Any] = lambda done: None,
) -> Rebuilt:
    """Read every image below `folders` (absolute paths) into the catalogue. `names`: of the setting
    `catalogue_fields`. `pixels`: decode the images as well, for what only their pixels say. Raises
    sqlite3.Error, OSError."""
    done, wanted = Rebuilt(), tuple(names)
    for folder in folders:
        os.stat(folder)  # one that is not there removes no rows
        found = iter(image_files(folder, lambda error: done.unlisted.append(str(error.filename))))
        while group := list(islice(found, BATCH)):
            rows = _read(store, group, done)
            rows = _with_pixels(rows) if pixels else rows
            store.put([kept(row, wanted) for row in rows])
            done.images += len(rows)
            done.unscored += sum(not row.phash for row in rows)
            progress(done)
        below = os.path.join(folder, "")
        # Not what the walk has not met: images in archives, behind links, in folders that cannot be listed,
        # and those that a farm saves meanwhile.
        done.removed += store.remove(number for number, path in store.below(below) if files.is_gone(path))
    return done


def _read(store: Store, group: list[tuple[str, bool]], done: Rebuilt) -> list[CatalogueRow]:
    rows = []
    for path, sidecar in group:
        row = files.row_of(path, sidecar=sidecar)
        if row is None:
            done.unreadable += 1
            if len(done.unreadable_paths) < NAMED:
                done.unreadable_paths.append(path)
            continue
        known = store.of_path(path)
        rows.append(files.merged(row, known) if known else row)
    return rows


def _with_pixels(rows: list[CatalogueRow]) -> list[CatalogueRow]:
    """Return rows with what only the pixels and bytes of their files say: scores, perceptual hash,
    checksum."""
    from luna_farm.catalogue import pixels

    with ThreadPoolExecutor() as threads:  # decoders let go of the interpreter
        found = threads.map(pixels.read, [row.path for row in rows])
        return [replace(row, **known) if known else row for row, known in zip(rows, found, strict=True)]


def rows_below(folders: Iterable[str], store: Callable[[], Store]) -> Iterator[list[CatalogueRow]]:
    """Yield the rows of images below folders that the catalogue does not hold, a few at a time."""
    for folder in folders:
        batch: list[CatalogueRow] = []
        for path, sidecar in image_files(folder):
            row = None if store().of_path(path) else files.row_of(path, sidecar=sidecar)
            if row is not None:
                batch.append(row)
            if len(batch) == 16:
                yield batch
                batch = []
        yield batch


def image_files(
    folder: str, unlisted: Callable[[OSError], Any] = lambda error: None
) -> Iterator[tuple[str, bool]]:
    """Yield every file below a folder that has the ending of an image, and whether there is a .json beside
    it. Links to folders are not followed; what cannot be listed is passed over, and given to `unlisted`."""
    for root, folders, names in os.walk(folder, onerror=unlisted):
        folders.sort()
        stems = {name[:-5] for name in names if name.endswith(".json")}
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            if ending.lower() in files.ENDINGS:
                yield os.path.join(root, name), stem in stems
