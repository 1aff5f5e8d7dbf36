"""Invisible watermarks: functions of other packages, run on the pixels in a worker.

A watermark is an entry point of the group `luna_farm.watermarks`, named in the farm's configuration and
nowhere else: no request can make a worker load code. The function takes the pixels [H, W, C] (a copy, uint8,
uint16 or floats) and returns pixels of the same shape and dtype. This module must never write an image that
was to be marked and is not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from luna_farm.errors import EncodeError
from luna_farm.imaging.depth import Pixels

GROUP = "luna_farm.watermarks"

Watermark = Callable[[Pixels], Pixels]


def marked(pixels: Pixels, name: str) -> Pixels:
    """Return pixels with the watermark `name` in them. Raises EncodeError if there is none, or it fails."""
    try:
        result = _load(name)(pixels.copy())
    except EncodeError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # the worker goes on
        raise EncodeError(f"the watermark {name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(result, np.ndarray) or (result.shape, result.dtype) != (pixels.shape, pixels.dtype):
        given = f"{getattr(result, 'dtype', type(result).__name__)} {list(getattr(result, 'shape', ()))}"
        wanted = f"{pixels.dtype} {list(pixels.shape)}"
        raise EncodeError(f"the watermark {name} returned {given}; allowed: {wanted}, as it was given")
    return np.ascontiguousarray(result)


def check(name: str) -> None:
    """Raise EncodeError if no package brings the watermark `name`, or its function cannot be loaded."""
    try:
        function = _load(name)
    except EncodeError:
        raise
    except (Exception, SystemExit) as error:
        raise EncodeError(f"the watermark {name} failed: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise EncodeError(f"the watermark {name} is of type {type(function).__name__}; allowed: a function")


@lru_cache(maxsize=4)
def _load(name: str) -> Watermark:
    from importlib import metadata  # loads e-mail and compression, 2 MB that few farms need

    found = [entry for entry in metadata.entry_points(group=GROUP) if entry.name == name]
    if not found:
        known = ", ".join(sorted(entry.name for entry in metadata.entry_points(group=GROUP))) or "none"
        raise EncodeError(f"watermark: no package here offers {name!r} ({GROUP}); installed: {known}")
    watermark: Watermark = found[0].load()
    return watermark
