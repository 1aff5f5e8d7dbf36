"""Whether the disk that an output folder was on is still there.

After an unmount the path of the folder is one on the disk below, and files would go there. This module must
never decide by device numbers: a disk that is mounted again may have another one.
"""

from __future__ import annotations

import errno
import os
import sys

from luna_farm.errors import DiskError


def mount_of(folder: str) -> str:
    """Return the mount point that a folder lies below, links resolved; "" for the disk of the system, and on
    Windows, where the path of a disk that is gone leads nowhere."""
    if sys.platform == "win32":
        return ""
    path = os.path.realpath(folder)
    device = _device(path)
    while (above := os.path.dirname(path)) != path:
        device_above = _device(above)
        if device is not None and device_above is not None and device != device_above:
            return path
        path, device = above, device_above
    return ""


def is_there(mount: str) -> bool:
    """Whether something is mounted at the mount point of `mount_of`."""
    if not mount:
        return True
    device = _device(mount)
    return device is not None and device != _device(os.path.dirname(mount))


def below(path: str, mount: str) -> bool:
    """Whether a path, links resolved, is a mount point or lies below it."""
    return path == mount or path.startswith(os.path.join(mount, ""))


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except (OSError, ValueError):  # not there, or not to be looked at
        return None


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
