"""Reports of finished jobs, in files of their own: bounded in bytes, dropped oldest first.

The journal holds only open jobs, so that no number of finished ones can fill it or slow a start down. A
report that cannot be written is lost at the next start and costs nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luna_farm.errors import FarmError
from luna_farm.storage.journal import Journal

log = logging.getLogger("luna_farm.reports")

MAX_BYTES = 8 << 20
"""Of both files together: about 14,000 images. Reading that many at a start takes less than half a second."""


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

    def append(self, report: Mapping[str, Any]) -> None:
        """Keep a report; the oldest ones make room for it."""
        try:
            if self._journal.bytes >= self._max_bytes // 2:
                self._journal.close()
                os.replace(self._path, f"{self._path}.old")
                self._journal, _ = Journal.open(self._path)
            self._journal.append(report)
        except (FarmError, OSError) as error:
            log.error("The report of job %s is known until the farm stops: %s", report.get("job_id"), error)

    def in_place(self) -> bool:
        """Whether the open file still has its name."""
        return self._journal.in_place()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._journal.close()
