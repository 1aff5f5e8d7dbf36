"""An attempt at a part of the work for an image: what it raises becomes the result of the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from luna_farm.core.messages import ImageResult, ImageTask
from luna_farm.errors import DiskError, FarmError

T = TypeVar("T")


def attempt(task: ImageTask, work: Callable[[], T]) -> T | ImageResult:
    """Do a part of the work for an image, and return what it returns."""
    try:
        return work()
    except FarmError as error:
        noted = error.noted if isinstance(error, DiskError) else None
        return ImageResult("failed", path=task.path, error=str(error), code=error.code, noted=noted)
    except MemoryError:
        return ImageResult(
            "failed", path=task.path, error="There is not enough memory to encode it.", code="memory"
        )
    except Exception as error:  # an encoder's bug must cost its image, not the worker
        return ImageResult("failed", path=task.path, error=f"{type(error).__name__}: {error}", code="encode")
