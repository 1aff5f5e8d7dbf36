"""Opens a saved file again, in the folder that it was saved to and in no other.

Between saving and reading, any folder of a path can be swapped for a link, by every program that may write
to an output folder. So the folder without links is kept beside the path, and the folder that was opened is
compared with it: what was opened, not the path, which may change again. This module must never write.
"""

from __future__ import annotations

import errno
import os
import time

from luna_farm.storage.folder import Folder

FRESH_S = 5.0
"""So long the links of a path are believed to lead where they led, while it is the same folder. One that is
moved meanwhile, behind a link, costs the thumbnails of these images: what is wrong is never opened."""
MOST_KNOWN = 256
_known: dict[str, tuple[tuple[int, int], float, str]] = {}
"""Folder -> (device, inode), when it was looked at, what `real_folder` returned."""


def real_folder(path: str) -> str:
    """Return the folder of a file without links, "" where `path` names it without links. Raises OSError."""
    folder = os.path.dirname(path)
    try:
        status = os.stat(folder)
    except OSError:  # removed or swapped since
        return _looked_up(folder)
    known, at, now = _known.get(folder), (status.st_dev, status.st_ino), time.monotonic()
    if known is None or known[0] != at or now - known[1] >= FRESH_S:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        known = _known[folder] = (at, now, _looked_up(folder))
    return known[2]


def _looked_up(folder: str) -> str:
    real = os.path.realpath(folder)
    return "" if real == folder else real


def open_saved(path: str, real: str) -> int:
    """Open a saved file for reading and return its descriptor; it may be no regular file, and does not block.

    real: what `real_folder` returned when the file was saved. Raises OSError: ELOOP for a file that is a
    link, or a folder that is another one than at that time.
    """
    folder, name = os.path.split(path)
    with Folder.open(folder, (), create=False, sync=False) as opened:
        found = opened.real()
        if os.path.normcase(found) != os.path.normcase(real or folder):
            raise OSError(
                errno.ELOOP, f"the folder leads to {found} now, which is not where it was saved", path
            )
        return opened.open_existing(name)
