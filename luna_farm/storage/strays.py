"""Temporary files that a power cut left beside images, and that no journal names.

Most file systems leave none, because a file has no name until it is whole. On others a cut can keep the
temporary name, as a second name of the image or on half a file. This module must never touch what a farm,
this one or another, still writes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container
from contextlib import suppress

import psutil

from luna_farm import system

_TEMP = re.compile(r"\.luna-(?P<job>[0-9A-Za-z_-]+)-\d+(-[a-z]+)?\.tmp")


def sweep(folder: str, open_jobs: Container[str]) -> list[str]:
    """Remove the strays in a folder and return their paths; a folder that cannot be looked at has none.

    A second name of a file goes in any case: nothing is lost by that. Half a file goes if it is older
    than this boot and lies on a disk of this machine: its writer is gone.
    """
    gone: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TEMP.fullmatch(entry.name)
            if found and found["job"] not in open_jobs and _is_stray(entry):
                with suppress(OSError):
                    os.unlink(entry.path)
                    gone.append(entry.path)
    return gone


def _is_stray(entry: os.DirEntry[str]) -> bool:
    found = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        return False
    old = found.st_mtime < psutil.boot_time() and system.on_local_disk(os.path.dirname(entry.path))
    return found.st_nlink > 1 or old
