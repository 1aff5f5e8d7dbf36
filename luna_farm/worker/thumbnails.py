"""Makes the thumbnails of saved images while a worker has nothing better to do.

An image is reported first. Where nothing else waits, a copy of some of its rows was taken, and its thumbnail
is made of that. Under load even the copy would cost images per second (0.7 of 4 ms at 1024x1024): then only
the path is kept, and the thumbnail is made of the file once the farm is idle. Whatever goes wrong costs
thumbnails only.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from dataclasses import dataclass

from luna_farm.imaging import thumbnail
from luna_farm.imaging.thumbnail import Sample
from luna_farm.locations import is_url
from luna_farm.storage.saved_files import open_saved, real_folder
from luna_farm.storage.thumbnails import Thumbnail, Thumbnails

log = logging.getLogger("luna_farm.worker")

QUIET_S = 0.1
"""So long no image came before a thumbnail is made: between two images it would delay the second."""
MAX_SAMPLES_BYTES = 24 << 20
"""Of the samples that wait."""
MAX_WAITING = 10_000
"""Images whose thumbnails wait; the oldest give way, and pages show their files instead."""
AT_ONCE = 8
"""Thumbnails of one transaction."""


@dataclass(slots=True)
class Saved:
    """An image that was saved: what its thumbnail can be made of."""

    job_id: str
    index: int
    sample: Sample | None
    path: str
    real_folder: str
    """The folder that the file was saved to; one in another folder is another file."""
    size: int
    """Bytes of the file; one of another size is another file."""


class ThumbnailMaker:
    """Thumbnails to be made for one store. `add` may be called in another thread than the rest."""

    def __init__(self, store: Thumbnails) -> None:
        self._store = store
        self._waiting: deque[Saved] = deque(maxlen=MAX_WAITING)
        self._made: list[Thumbnail] = []
        self._samples_bytes = 0
        self._problem = ""

    def add(self, job_id: str, index: int, sample: Sample | None, path: str, size: int) -> None:
        """Take an image that was saved to `path`."""
        if sample is not None and self._samples_bytes + sample.rows.nbytes > MAX_SAMPLES_BYTES:
            sample = None
        self._samples_bytes += sample.rows.nbytes if sample is not None else 0
        real = real_folder(path) if sample is None and not is_url(path) else ""
        self._waiting.append(Saved(job_id, index, sample, path, real, size))

    @property
    def waits(self) -> bool:
        """There is something to make, or to write."""
        return bool(self._waiting or self._made)

    def make_one(self) -> None:
        """Make the next thumbnail; write those that are made once they are some, or nothing else waits."""
        try:
            if self._waiting:
                self._make(self._waiting.popleft())
            if len(self._made) >= AT_ONCE or not self._waiting:
                made, self._made = self._made, []
                self._store.put(made)
                if not self._waiting:  # an idle worker holds no file
                    self._store.close()
        except Exception as error:  # derived data: no reason to end a worker
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning("Thumbnails cannot be kept in %s: %s", self._store.path, error)

    def _make(self, saved: Saved) -> None:
        if saved.sample is not None:
            self._samples_bytes -= saved.sample.rows.nbytes
            made = thumbnail.encode(saved.sample, thumbnail.KEPT_SIDE)
        else:
            made = _of_file(saved)
        if made:
            self._made.append((saved.job_id, saved.index, made))

    def close(self) -> None:
        """Write what is made, and make what is cheap to make; close the store."""
        self._waiting = deque(saved for saved in self._waiting if saved.sample is not None)
        while self.waits:
            self.make_one()
        self._store.close()


def _of_file(saved: Saved) -> bytes:
    """Return the thumbnail of a file that was saved, b"" if it is not there any more."""
    try:
        file = os.fdopen(open_saved(saved.path, saved.real_folder), "rb")
    except OSError:
        return b""
    with file:
        return thumbnail.of_file(file, saved.size)
