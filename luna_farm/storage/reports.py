"""Reports of finished jobs, in files of their own: bounded in bytes, dropped oldest first.

When the journal is compacted it holds only open jobs, so that no number of finished ones can fill it or slow
a start down. Reports are written before that, or once the farm is idle. One that cannot be written is lost at
the next start and costs nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from luna_farm.errors import FarmError
from luna_farm.storage.journal import Journal

log = logging.getLogger("luna_farm.reports")

MAX_BYTES = 8 << 20
"""Of both files together: about 14,000 images. Reading that many at a start takes less than half a second."""


IMAGES_TOGETHER = 64
"""Images whose reports are written at once."""


class Reports:
    """The reports in `path`; once that holds half of `max_bytes`, it takes the place of `path`.old."""

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> None:
        """Open or make the file. Raises DiskError."""
        self._path = os.fspath(path)
        self._max_bytes = max_bytes
        self._journal, self._found = Journal.open(self._path)

    def read(self) -> list[dict[str, Any]]:
        """Return what was kept, the oldest first."""
        old = f"{self._path}.old"
        if not Path(old).exists():
            return self._found.records
        try:
            journal, before = Journal.open(old)
        except FarmError as error:
            log.error("%s", error)
            return self._found.records
        journal.close()
        return before.records + self._found.records

    def extend(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Keep reports, the oldest first; those that are kept already make room for them."""
        together: list[Mapping[str, Any]] = []
        images = 0
        for report in reports:
            together.append(report)
            images += len(report["images"])
            if images >= IMAGES_TOGETHER:
                self._append(together)
                together, images = [], 0
        if together:
            self._append(together)

    def _append(self, reports: Sequence[Mapping[str, Any]]) -> None:
        try:
            if self._journal.bytes >= self._max_bytes // 2:
                self._journal.close()
                os.replace(self._path, f"{self._path}.old")
                self._journal, _ = Journal.open(self._path)
            self._journal.append(*reports)
        except (FarmError, OSError) as error:
            jobs = ", ".join(str(report["job_id"]) for report in reports)
            log.error("Reports are known until the farm stops (jobs %s): %s", jobs, error)

    def in_place(self) -> bool:
        """Whether the open file still has its name."""
        return self._journal.in_place()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._journal.close()
