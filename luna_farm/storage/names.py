"""Finds free names: which path a image will have, decided when its job is accepted.

Nothing is created here. A name is free if nothing lies there on disk and no other job has it; whether it
still is when the file is published is for `writer.py`, which never replaces anything. This module must
never import numpy: the supervisor uses it, within tens of microseconds.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container

from luna_farm import system
from luna_farm.core.filenames import PATH_BYTES as POSIX_PATH_BYTES
from luna_farm.core.filenames import collision_key, shorten, with_number
from luna_farm.core.template import COUNTER
from luna_farm.errors import InvalidRequest
from luna_farm.system_files import is_real_folder

PATH_BYTES = 240 if os.name == "nt" else POSIX_PATH_BYTES
"""The longest path for `filenames.image_names`: Windows takes 259 characters unless its registry says
otherwise."""

SHORT_PART_BYTES = 119
"""The longest name, before suffixes, where 255 bytes are refused: eCryptfs takes 143."""

KEPT_NUMBERS = 4096
"""Names whose last number is remembered; past that all are forgotten and found again by a few looks each."""

_ODD_LETTERS = frozenset("/\\:\0" if os.name == "nt" else "/\0")
_numbers: dict[str, int] = {}


def reserve(output_dir: str, relative: str, taken: Container[str]) -> str:
    """Return the absolute path, below `output_dir`, of a name that is free: `relative`, or with `_00001`
    and on.

    `relative` comes from `filenames.image_names`; `%counter%` in it becomes the first free number instead.
    `taken` holds `collision_key` of the paths that other jobs have. Raises InvalidRequest if a part is not a
    plain name, or a link or a file is where a folder should be; DiskError if the disk cannot be asked.
    """
    if not os.path.isabs(output_dir):
        raise InvalidRequest.of("output_dir", output_dir, "an absolute path on the machine of the farm")
    root = os.path.join(output_dir, "")
    path = root + relative.replace("/", os.sep)
    parts_below(path, output_dir)
    try:
        return _first_free(root, relative, taken)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise system.disk_error("look at", path, error) from error
    try:
        return _first_free(root, shorten(relative, SHORT_PART_BYTES), taken)
    except OSError as error:
        raise system.disk_error("look at", path, error) from error


def parts_below(path: str, output_dir: str) -> list[str]:
    """Return the parts of `path` below `output_dir`. Raises InvalidRequest if it is not, or has odd parts."""
    root = os.path.join(output_dir, "")
    parts = path[len(root) :].split(os.sep)
    odd = any(part in ("", ".", "..") or not _ODD_LETTERS.isdisjoint(part) for part in parts)
    if odd or not path.startswith(root):
        raise InvalidRequest.of("path", path, f"a path below {output_dir}")
    return parts


def first_free(key: str, is_taken: Callable[[int], bool]) -> int:
    """Return a number from 1 on that is not taken, the one behind the last where numbers have no gaps.

    Looks a few times, however many are taken: `key` remembers the last number, and without that steps
    double and halve. A file that was deleted leaves a gap, which may be filled or not.
    """
    number = _numbers.get(key, 1)
    low, step = number - 1, 1
    if low == 0 or is_taken(low):
        while is_taken(number):
            low, number, step = number, number + step, step * 2
    else:  # names were given up, or the folder was cleared: back to the last that is taken
        number, low = low, low - 1
        while low > 0 and not is_taken(low):
            low, number, step = max(low - step, 0), low, step * 2
    while number - low > 1:
        middle = (low + number) // 2
        if is_taken(middle):
            low = middle
        else:
            number = middle
    if len(_numbers) >= KEPT_NUMBERS:
        _numbers.clear()
    _numbers[key] = number + 1
    return number


def _first_free(root: str, relative: str, taken: Container[str]) -> str:
    def path_of(name: str) -> str:
        return root + name.replace("/", os.sep)

    def is_taken(name: str) -> bool:
        path = path_of(name)
        return collision_key(path) in taken or _exists(root, name)

    if COUNTER in relative:
        number = first_free(root + relative, lambda n: is_taken(relative.replace(COUNTER, f"{n:05d}")))
        return path_of(relative.replace(COUNTER, f"{number:05d}"))
    if not is_taken(relative):
        return path_of(relative)
    number = first_free(root + relative, lambda n: is_taken(with_number(relative, n)))
    return path_of(with_number(relative, number))


def _exists(root: str, relative: str) -> bool:
    """Return whether anything lies there. Raises InvalidRequest for a link or a file where a folder should
    be."""
    *folders, name = relative.split("/")
    path = root[:-1]
    for part in folders:
        path += os.sep + part
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        if not is_real_folder(status):
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a folder"
            raise InvalidRequest.of("save_path", relative, f"real folders below output_dir; {path} is {kind}")
    try:
        os.lstat(path + os.sep + name)
    except FileNotFoundError:
        return False
    return True
