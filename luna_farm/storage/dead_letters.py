"""Dead letters: images that no worker could save, set aside whole so that nothing is dropped.

One is two files: pixels as .npy, which any program with numpy opens, and the request with the reason as
.json. The JSON comes last and is what makes a letter. This module writes the .npy itself: the supervisor,
which calls it, must never import numpy.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from math import prod
from typing import Any

from luna_farm import system
from luna_farm.core.formats import DTYPES
from luna_farm.errors import DiskError, UnknownJob
from luna_farm.storage import files
from luna_farm.testing.faults import crash_point

MAX_LETTERS = 1000
"""How many letters are kept at most."""
BYTES = "$base64"
"""Key of a map that stands for bytes."""
MAX_BYTES = 4 << 30
"""How many bytes of pixels they hold together at most."""

_DESCRIPTIONS = {"uint8": "|u1"} | {
    name: f"{'<' if sys.byteorder == 'little' else '>'}{name[0]}{size}"
    for name, size in DTYPES.items()
    if size > 1
}
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_LENGTH = struct.Struct("<H")
_NPY_ALIGN = 64


@dataclass(frozen=True, slots=True)
class Letter:
    """One image set aside. `path` is its JSON file; the pixels lie beside it as .npy."""

    id: str
    job_id: str
    index: int
    reason: str
    at: str
    """ISO 8601, UTC."""
    bytes: int
    path: str

    @property
    def pixels_path(self) -> str:
        """The .npy file."""
        return _npy(self.path)


class DeadLetters:
    """The dead letters in `folder` (made if missing, mode 0700). One process uses a folder at a time."""

    def __init__(
        self, folder: str | os.PathLike[str], max_letters: int = MAX_LETTERS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.folder = os.path.abspath(folder)
        self.max_letters = max_letters
        self.max_bytes = max_bytes
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            names = sorted(os.listdir(self.folder))
        except OSError as error:
            raise system.disk_error("open the folder", self.folder, error) from error
        found = (self._read(name) for name in names if name.endswith(".json"))
        self._letters = {letter.id: letter for letter in found if letter is not None}

    def put(self, job: Mapping[str, Any], task: Mapping[str, Any], pixels: memoryview, reason: str) -> str:
        """Set one image aside and return the path of its JSON file; both files are synced then.

        `job` is a map of SaveOptions, `task` one of ImageTask, `pixels` its pixels.
        The same image again replaces its letter. Raises DiskError: no room on the disk, or the bounds are
        reached (errno EDQUOT); the caller keeps the slot then and tries again.
        """
        letter_id = files.image_id(task["job_id"], task["index"])
        self._make_sure_of_room(letter_id, pixels.nbytes)
        path = os.path.join(self.folder, f"{letter_id}.json")
        letter = Letter(
            letter_id,
            task["job_id"],
            task["index"],
            reason,
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            pixels.nbytes,
            path,
        )
        shape, dtype = _shape(task)
        if prod(shape) * DTYPES[dtype] != pixels.nbytes:
            raise AssertionError(f"{letter_id}: {pixels.nbytes} bytes of pixels for the shape {shape}")
        content = {"reason": reason, "at": letter.at, "job": dict(job), "task": dict(task)}
        files.replace(letter.pixels_path, (npy_header(shape, dtype), pixels))
        crash_point("dead_letter.pixels_written")
        files.replace(path, (json.dumps(content, indent=1, default=_text_of).encode("ascii"),))
        self._letters[letter_id] = letter
        return path

    def letters(self) -> list[Letter]:
        """Return all letters, the oldest first."""
        return sorted(self._letters.values(), key=lambda letter: (letter.at, letter.id))

    def load(self, letter_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the maps (job, task) of a letter. Raises UnknownJob if there is none, DiskError if it is
        unreadable."""
        path = self._letter(letter_id).path
        try:
            with open(path, "rb") as file:
                content = json.load(file, object_hook=_bytes_of)
            return content["job"], content["task"]
        except OSError as error:
            raise system.disk_error("read the dead letter", path, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DiskError(f"The dead letter {path} is damaged: {error}.", path) from error

    def remove(self, letter_id: str) -> bool:
        """Remove a letter whose image is saved after all. False if there is none."""
        letter = self._letters.pop(letter_id, None)
        if letter is None:
            return False
        files.remove(letter.path)  # first: without it the pixels are no letter, only a file to sweep
        files.remove(letter.pixels_path)
        return True

    def _letter(self, letter_id: str) -> Letter:
        try:
            return self._letters[letter_id]
        except KeyError:
            raise UnknownJob(f"There is no dead letter {letter_id!r}.", letter_id) from None

    def _make_sure_of_room(self, letter_id: str, size: int) -> None:
        others = [letter.bytes for letter in self._letters.values() if letter.id != letter_id]
        if len(others) < self.max_letters and sum(others) + size <= self.max_bytes:
            return
        raise DiskError(
            f"{self.folder} holds {len(others)} dead letters of {sum(others)} bytes; allowed:"
            f" {self.max_letters} of {self.max_bytes} bytes. Try them again (`luna-farm retry ID`)"
            " or remove them.",
            self.folder,
            errno.EDQUOT,
        )

    def _read(self, name: str) -> Letter | None:
        """Read what is to know of one letter; None for a JSON file that is none of ours, or damaged: it
        stays."""
        path = os.path.join(self.folder, name)
        try:
            with open(path, "rb") as file:
                content = json.load(file)
            task = content["task"]
            shape, dtype = _shape(task)
            size = prod(shape) * DTYPES[dtype]
            return Letter(
                name[:-5], task["job_id"], task["index"], content["reason"], content["at"], size, path
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _shape(task: Mapping[str, Any]) -> tuple[tuple[int, ...], str]:
    """Return the shape and the dtype of the pixels; of several frames, they come first."""
    frames, dtype = task.get("frames", 1), task.get("dtype", "uint8")
    shape = (task["height"], task["width"], task["channels"])
    return (shape if frames == 1 else (frames, *shape)), dtype


def npy_header(shape: tuple[int, ...], dtype: str = "uint8") -> bytes:
    """Return the start of a .npy file (format 1.0) of pixels in C order; the pixels follow as they are.

    Source: NEP 1 of numpy. The header ends on a multiple of 64 bytes, by spaces and a newline.
    """
    text = repr({"descr": _DESCRIPTIONS[dtype], "fortran_order": False, "shape": shape}).encode("ascii")
    before = len(_NPY_MAGIC) + _NPY_LENGTH.size
    length = -(-(before + len(text) + 1) // _NPY_ALIGN) * _NPY_ALIGN - before
    return _NPY_MAGIC + _NPY_LENGTH.pack(length) + text.ljust(length - 1) + b"\n"


def _text_of(value: object) -> dict[str, str]:
    """What JSON holds in the place of bytes, such as an ICC profile."""
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is not in a dead letter")
    return {BYTES: base64.b64encode(value).decode("ascii")}


def _bytes_of(found: dict[str, Any]) -> Any:
    return base64.b64decode(found[BYTES]) if found.keys() == {BYTES} else found


def _npy(json_path: str) -> str:
    return json_path[: -len(".json")] + ".npy"
