"""Images to measure and to show with: given files, photographs of scikit-image, or made ones.

It must never pass made images off as real ones: `Images.source` says what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.imaging import source as sources

# Colour photographs that the package of scikit-image holds itself (others it would download).
PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "hubble_deep_field.jpg", "retina.jpg")
MADE = 5
NOISE_SIGMA = 1.2
"""Of 255: about what an image has before it was ever compressed."""


@dataclass(frozen=True, slots=True)
class Images:
    """Named images, each [H,W,3] uint8, and where they come from."""

    source: str
    names: tuple[str, ...]
    pixels: tuple[NDArray[np.uint8], ...]


def load(files: Sequence[str], size: int | None) -> Images:
    """Return the images of `files`; without any those of scikit-image; without it made ones.

    With `size` each becomes size x size, cut from the middle or mirrored outwards (never scaled: that would
    change what there is to compress); None leaves them as they are. Raises InvalidRequest for what is no
    image.
    """
    paths = [Path(file) for file in files] or photographs()
    if not paths:
        names = tuple(f"made {number}" for number in range(MADE))
        made = tuple(natural(size or 1024, number) for number in range(MADE))
        return Images("made by numpy (no files given, scikit-image is not installed)", names, made)
    source = "the given files" if files else "photographs of scikit-image"
    pixels = [_colour(sources.read(path).pages[0]) for path in paths]
    if size is not None:
        source += f", cut or mirrored to {size}x{size}"
        pixels = [squared(image, size) for image in pixels]
    return Images(source, tuple(path.stem for path in paths), tuple(pixels))


def photographs() -> list[Path]:
    """Return the photographs that scikit-image brings, [] where it is not installed."""
    found = util.find_spec("skimage")
    if found is None or found.origin is None:
        return []
    folder = Path(found.origin).parent / "data"
    return [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]


def squared(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the middle of an image, size x size; where it is smaller, mirrored at its edges."""
    height, width = image.shape[:2]
    top, left = max(0, (height - size) // 2), max(0, (width - size) // 2)
    middle = image[top : top + size, left : left + size]
    wanting = [(0, size - middle.shape[0]), (0, size - middle.shape[1]), (0, 0)]
    return np.ascontiguousarray(np.pad(middle, wanting, mode="symmetric"))


def noisy(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image with Gaussian noise, the same each time: closer to what a decoder gives."""
    noise = np.random.default_rng(image.shape[0]).normal(0.0, NOISE_SIGMA, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def natural(size: int, seed: int) -> NDArray[np.uint8]:
    """Return a made image whose spectrum falls as that of photographs does, with a little noise."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0 / size
    luma = _unit(np.fft.irfft2(np.fft.rfft2(random.normal(size=(size, size))) / frequency**1.6, (size, size)))
    channels = []
    for _ in range(3):
        tint = np.fft.irfft2(np.fft.rfft2(random.normal(size=(size, size))) / frequency**2.0, (size, size))
        channels.append(0.85 * luma + 0.15 * _unit(tint))
    image = 255 * np.stack(channels, axis=-1) + random.normal(0.0, 0.8, (size, size, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(), values.max()
    scaled: NDArray[np.float64] = (values - low) / (high - low)
    return scaled


def _colour(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return [H,W,3] of 8 bits of what is read."""
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    pixels = pixels[0] if pixels.ndim == 4 else pixels
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])
