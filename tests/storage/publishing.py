"""Publishing an image as a worker does it, and what tests of it look at."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luna_farm.core.messages import Note
from luna_farm.storage import writer
from luna_farm.storage.writer import Published

TEMP = writer.temp_name("job1", 0)


class Crash(BaseException):
    """The process dies here."""


def noted(root: Path, relative: str, data: bytes = b"content", *, named: bool = False, **given: Any) -> Note:
    """Publish and die right before the file gets its name, or with `named` right after it; return the note.

    What such a death leaves differs from a real one only in the temporary file, which is removed here.
    """
    notes: list[Note] = []

    def note(note: Note) -> None:
        notes.append(note)
        if not named:
            raise Crash

    with contextlib.suppress(Crash):
        publish(root, relative, data, note=note, **given)
    return notes[-1]


posix_only = pytest.mark.skipif(os.name == "nt", reason="NOT TESTED: Windows has no such calls")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: only Linux has such calls")


def publish(root: Path, relative: str, data: bytes = b"content", **given: Any) -> Published:
    """Publish `data` as `relative` below `root`."""
    how: dict[str, Any] = {"temp_name": TEMP, "fsync": True, **given}
    return writer.publish(str(root / relative), [data], output_dir=str(root), **how)


def files(root: Path) -> dict[str, bytes]:
    """Everything below `root` that is no folder, temporary files too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if not path.is_dir()}


def fail(number: int) -> Callable[..., Any]:
    """A system call that fails with `number`."""

    def failing(*args: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return failing
