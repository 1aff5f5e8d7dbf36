"""Whether the disk that an output folder was on is still there.

After an unmount the path of the folder is one on the disk below, and files would go there. This module must
never decide by device numbers: a disk that is mounted again may have another one.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from luna_farm.errors import DiskError


def mount_of(folder: str) -> str:
    """Return the mount point that a folder lies below, links resolved; "" for the disk of the system, and on
    Windows, where the path of a disk that is gone leads nowhere."""
    if sys.platform == "win32":
        return ""
    path = os.path.realpath(folder)
    while not os.path.ismount(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return "" if os.path.dirname(path) == path else path


def is_there(mount: str) -> bool:
    """Whether something is mounted at the mount point of `mount_of`."""
    if not mount:
        return True
    with suppress(OSError):  # asked for every image: another device than that of the folder above says it all
        if os.stat(mount).st_dev != os.stat(os.path.dirname(mount)).st_dev:
            return True
    return os.path.ismount(mount)


def require(mount: str, path: str) -> None:
    """Raise DiskError unless the disk of a mount point is there that `path` is to be written to."""
    if not is_there(mount):
        raise DiskError(f"Cannot write {path}: {gone(mount)}", path, errno.ENODEV)


def gone(mount: str) -> str:
    """Return the sentence for a disk that was unmounted."""
    return (
        f"no disk is mounted at {mount} any more, and the files belong on the one that was. Mount it again,"
        " or cancel the jobs."
    )
