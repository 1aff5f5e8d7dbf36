"""What to say of a file that cannot be read as an image. Sentences of ours: those of the libraries speak to
programmers, and the system's begin with a number."""

from __future__ import annotations

import os
import stat

from luna_farm.errors import InvalidRequest

FIELD = "FILE"
"""Of the errors."""
_NPY = b"\x93NUMPY"


def unreadable(path: str | os.PathLike[str], error: BaseException, allowed: str) -> InvalidRequest:
    """Return the error for a file that `error` kept from being read. `allowed`: what could be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return _of(path, "does not exist", allowed)
    if isinstance(error, PermissionError):
        return _of(path, "cannot be read: this user has no right to", allowed)
    if isinstance(error, OSError) and error.errno and error.strerror:
        return _of(path, f"cannot be read: {error.strerror}", allowed)
    if not _size(path):
        return _of(path, "is empty", allowed)
    if os.fspath(path).lower().endswith(".npy") and ".npy" in allowed:
        return _of(path, _wrong_with_npy(path, error), allowed)
    if type(error).__name__ == "UnidentifiedImageError":
        return _of(
            path, f"cannot be read: its content is of no kind that is known; allowed: {allowed}", allowed
        )
    reason = str(error).rstrip(".") or type(error).__name__
    if type(error).__name__ == "DecompressionBombError":
        return _of(path, f"has too many pixels: {reason}", allowed)
    return _of(path, f"is damaged or cut short: {reason}", allowed)


def check_kind(path: str | os.PathLike[str], allowed: str) -> None:
    """Raise InvalidRequest for a folder, and for a device, which has no end. Raises OSError."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        files = os.path.join(path, "*")
        raise _of(path, f"is a folder; allowed: {allowed}; for all of the folder {files}", allowed)
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise _of(path, f"is no file; allowed: {allowed}", allowed)


def _of(path: str | os.PathLike[str], what: str, allowed: str) -> InvalidRequest:
    name = os.fspath(path)
    return InvalidRequest(f"{name if name.isprintable() else repr(name)} {what}.", FIELD, name, allowed)


def _size(path: str | os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 1


def _wrong_with_npy(path: str | os.PathLike[str], error: BaseException) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(len(_NPY))
    except OSError:
        start = _NPY
    if start != _NPY:
        return "is no .npy file, whatever its name says"
    if "pickle" in str(error) or "object" in str(error).lower():
        return "holds Python objects; only arrays of numbers are read"
    return "is cut short or damaged"
