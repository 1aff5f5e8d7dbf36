"""Finds free names: which path an image will have, decided when its job is accepted.

Nothing is created here. A name is free if nothing lies there on disk and no other job has it; whether it
still is when the file is published is for `writer.py`, which never replaces anything. This module must
never import numpy: the supervisor uses it, within tens of microseconds.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Container, Iterable, Sequence

from luna_farm import system
from luna_farm.core.filenames import NUMBER, collision_key, shorten, with_number
from luna_farm.core.filenames import PATH_BYTES as POSIX_PATH_BYTES
from luna_farm.core.template import COUNTER
from luna_farm.errors import InvalidRequest
from luna_farm.storage.allowed import ANYWHERE, Allowed
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
    """Return the free path for one name, as `reserve_all` does for the names of a request."""
    return reserve_all(output_dir, [relative], taken)[0]


def reserve_all(
    output_dir: str,
    relatives: Sequence[str],
    taken: Container[str],
    *,
    numbers: str = "after_last",
    sidecars: bool = True,
    each_beside: bool = False,
    if_exists: str = "number",
    allowed: Allowed = ANYWHERE,
) -> list[str]:
    """Return absolute paths, below `output_dir`, that are free: the names as given, or with `_00001` and on.

    relatives: from `filenames.image_names`, in order. Names that differ in their extension only get the same
    number, and all that hold `%counter%` share one. taken: `collision_key` of the paths that other jobs have.
    numbers: "after_last" for the number behind the last that exists, "first_gap" for the first that is free.
    if_exists: "number"; with "overwrite" and "skip" names stay as they are, with "fail" one that exists
    raises InvalidRequest.
    sidecars: a name is free only if the .json beside it is, too. each_beside: each image has such a .json, so
    that two formats of one stem get names of their own. allowed: whether folders may be links, and to where.
    Raises InvalidRequest if a part is not a plain name, or a file, or a link that may not be
    followed, is where a folder should be; DiskError if the disk cannot be asked.
    """
    if not os.path.isabs(output_dir):
        raise InvalidRequest.of("output_dir", output_dir, "an absolute path on the machine of the farm")
    root = os.path.join(output_dir, "")
    for relative in relatives:
        _check_parts(relative.split("/"), relative, output_dir)
    names = relatives
    while True:
        try:
            return _Reservation(root, taken, numbers, sidecars, each_beside, if_exists, allowed).paths(names)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG or names is not relatives:
                path = root + relatives[0].replace("/", os.sep)
                raise system.disk_error("look at", path, error) from error
            names = [shorten(relative, SHORT_PART_BYTES) for relative in relatives]


def parts_below(path: str, output_dir: str) -> list[str]:
    """Return the parts of `path` below `output_dir`. Raises InvalidRequest if it is not, or has odd parts."""
    root = os.path.join(output_dir, "")
    parts = path[len(root) :].split(os.sep)
    if not path.startswith(root):
        raise InvalidRequest.of("path", path, f"a path below {output_dir}")
    _check_parts(parts, path, output_dir)
    return parts


def _check_parts(parts: list[str], path: str, output_dir: str) -> None:
    for part in parts:
        if part in ("", ".", "..") or not _ODD_LETTERS.isdisjoint(part):
            raise InvalidRequest.of("path", path, f"a path below {output_dir}")


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
    _remember(key, number + 1)
    return number


def _remember(key: str, number: int) -> None:
    if len(_numbers) >= KEPT_NUMBERS:
        _numbers.clear()
    _numbers[key] = number


class _Reservation:
    """Finds the names of one request."""

    def __init__(
        self,
        root: str,
        taken: Container[str],
        numbers: str,
        sidecars: bool,
        each_beside: bool,
        if_exists: str,
        allowed: Allowed,
    ) -> None:
        self._root = root
        self._allowed = allowed
        self._taken = taken
        self._after_last = numbers == "after_last"
        self._sidecars = sidecars and if_exists == "number"
        self._each_beside = each_beside
        self._if_exists = if_exists
        self._mine: set[str] = set()

    def paths(self, relatives: Sequence[str]) -> list[str]:
        """Return a free path for each, in order. Names that occur again wait for the next round."""
        if len(relatives) == 1:  # as in most requests
            return [self._path(numbered(relatives[0], self._number((relatives[0],))))]
        found = [""] * len(relatives)
        waiting = list(range(len(relatives)))
        while waiting:
            groups: dict[str, dict[str, int]] = {}
            again = []
            for at in waiting:
                relative = relatives[at]
                stem = shared_stem(relative)
                group = groups.setdefault(stem, {})
                # Formats that share a stem would share a .json as well, unless they are files of one image.
                marked = COUNTER in relative or NUMBER in relative
                alone = self._each_beside and group and not marked
                if alone or group.setdefault(relative, at) != at:
                    again.append(at)
            for group in groups.values():
                number = self._number(tuple(group))
                for relative, at in group.items():
                    found[at] = self._path(numbered(relative, number))
                    self._mine.add(collision_key(found[at]))
                    if self._each_beside:
                        self._mine.add(collision_key(_beside(found[at])))
            waiting = again
        return found

    def _path(self, relative: str) -> str:
        return self._root + relative.replace("/", os.sep)

    def _is_taken(self, relative: str) -> bool:
        key = collision_key(self._path(relative))
        if key in self._mine or key in self._taken:
            return True
        if self._each_beside and collision_key(_beside(self._path(relative))) in self._mine:
            return True
        return _exists(self._root, relative, self._sidecars, self._allowed)

    def _number(self, group: tuple[str, ...]) -> int:
        """Return the number under which all names of a group are free, 0 for the names as they are."""

        def is_taken(number: int) -> bool:
            return any(self._is_taken(numbered(relative, number)) for relative in group)

        if COUNTER not in group[0]:
            if not is_taken(0):
                return 0
            mine = any(collision_key(self._path(relative)) in self._mine for relative in group)
            if self._if_exists in ("overwrite", "skip") and not mine:
                return 0
            if self._if_exists == "fail" and not mine:
                allowed = "a name that is free, or if_exists number, overwrite or skip"
                raise InvalidRequest.of("filename", self._path(group[0]), allowed)
        key = self._root + group[0]
        if not self._after_last:
            return first_free(key, is_taken)
        number = _numbers.get(key, 0)
        if number < 2 or not is_taken(number - 1):  # not known, or given up: look at the folder
            listed = sorted(self._listed(group), reverse=True)
            number = next((number for number in listed if is_taken(number)), 0) + 1
        while is_taken(number):  # by a job that is not saved yet, or by another program since
            number += 1
        _remember(key, number + 1)
        return number

    def _listed(self, group: tuple[str, ...]) -> set[int]:
        """Return the numbers of what lies where the names of a group have theirs."""
        found = set()
        for relative in group:
            text = relative.replace(NUMBER, "" if COUNTER in relative else f"_{COUNTER}")
            if COUNTER not in text:
                stem, dot, extension = text.rpartition(".")
                text = f"{stem}_{COUNTER}{dot}{extension}"
            *folders, part = text[: text.index(COUNTER)].split("/")
            behind = text[text.index(COUNTER) + len(COUNTER) :]
            end = behind.partition("/")[0] if "/" in behind else os.path.splitext(behind)[0]
            pattern = re.compile(
                rf"{re.escape(part)}(\d{{5,}}){re.escape(end.replace(COUNTER, ''))}", re.IGNORECASE
            )
            found |= {int(match[1]) for match in map(pattern.match, self._entries(folders)) if match}
        return found

    def _entries(self, folders: list[str]) -> Iterable[str]:
        try:
            with os.scandir(self._path("/".join(folders)) or os.sep) as entries:
                return [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return ()


def _beside(path: str) -> str:
    return path.rpartition(".")[0] + ".json"


def shared_stem(relative: str) -> str:
    """Return what names have in common that get the same number."""
    if COUNTER in relative:
        return COUNTER
    if NUMBER in relative:  # the files of one image, whatever folders they are in
        return relative.partition(NUMBER)[0].rpartition("/")[2]
    return relative.rpartition(".")[0]


def numbered(relative: str, number: int) -> str:
    """Return a name with a number; 0 leaves it as it is."""
    if COUNTER in relative:
        return relative.replace(NUMBER, "").replace(COUNTER, f"{number:05d}")
    if NUMBER in relative:
        return relative.replace(NUMBER, f"_{number:05d}" if number else "")
    return with_number(relative, number) if number else relative


def _exists(root: str, relative: str, sidecar: bool, allowed: Allowed) -> bool:
    """Return whether anything lies there, or where its `sidecar` would. Raises InvalidRequest for a file, or
    a link that may not be followed, where a folder should be."""
    *folders, name = relative.split("/")
    path = root[:-1]
    for part in folders:
        path += os.sep + part
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        if not is_real_folder(status):
            _check_link(relative, path, stat.S_ISLNK(status.st_mode), allowed)
    if _lies_there(path + os.sep + name):
        return True
    return sidecar and _lies_there(f"{path}{os.sep}{name.rpartition('.')[0]}.json")


def _check_link(relative: str, path: str, is_link: bool, allowed: Allowed) -> None:
    """Raise InvalidRequest for what is where a folder should be, unless it is a link that may be followed."""
    if not os.path.isdir(path):
        what = f"folders; {path} is {'a link to no folder' if is_link else 'not a folder'}"
    elif not allowed.follow_links:
        what = (
            f"real folders below output_dir; {path} is a symbolic link, which the farm follows only with the "
            "setting follow_links = true"
        )
    elif not allowed.holds(real := os.path.realpath(path)):
        what = f"folders in allowed_dirs; {path} is a link to {real}"
    else:
        return
    raise InvalidRequest.of("save_path", relative, what)


def _lies_there(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True
