"""Images of 16 bits of the PNG corpus, as they come about: sensors, depth models, floats, 8 bits made wide.
Each function makes one of them by its number, [side, side] or [side, side, C], uint16."""

from __future__ import annotations

import numpy as np
from bench.corpus_kinds import (
    RESAMPLERS,
    SEED,
    Pixels,
    cel_shaded,
    cv2,
    gray,
    height_map,
    jpeg_decoded,
    mask,
    photo,
    regions,
    render,
    rgba,
    screenshot,
    segmented,
)


def sixteen_bit(number: int, side: int) -> Pixels:
    if number == 0:
        return (height_map(1, side) * 65535).astype(np.uint16)
    if number == 1:
        return photo(1, side).astype(np.uint16) * 257
    return deep_photo(number, side)


def deep_photo(number: int, side: int) -> Pixels:
    """A photograph with real values between those of 8 bits."""
    smooth = cv2.GaussianBlur(photo(number, side).astype(np.float32), (0, 0), 1.0) * 257
    return smooth.astype(np.uint16)


def deep_widened(number: int, side: int) -> Pixels:
    """What ComfyUI users have most: an image of 8 bits that was stored with 16; number 3 with alpha."""
    make = (photo, render, jpeg_decoded, rgba(True))[number]
    return make(number, side).astype(np.uint16) * 257


def deep_levels(number: int, side: int) -> Pixels:
    """Few levels, made wide in other ways: shifted, from halves, cut to whole numbers, from 10 bits."""
    pixels = (photo, render, cel_shaded, screenshot)[number](number, side)
    if number == 0:
        return pixels.astype(np.uint16) * 256
    if number == 1:
        return ((pixels / 255.0).astype(np.float16).astype(np.float32) * 65535 + 0.5).astype(np.uint16)
    if number == 2:
        return (pixels.astype(np.float32) / 255 * np.float32(65280)).astype(np.uint16)
    ten = np.round(pixels / 255.0 * 1023).astype(np.uint16)
    return ten << 6 | ten >> 4


def deep_depth(number: int, side: int) -> Pixels:
    """Depth maps of 16 bits, gray; odd ones from models of 8 bits or with their noise."""
    depth = height_map(number, side)
    if number == 1:
        return np.round(depth * 255).astype(np.uint16) * 257
    if number == 3:
        depth += np.random.default_rng(SEED).normal(0, 2e-4, depth.shape)
    return (np.clip(depth, 0, 1) * 65535).astype(np.uint16)


def deep_gray(number: int, side: int) -> Pixels:
    """Gray of 16 bits: of 8 bits, luma in floats, 12 bits of a sensor, halves."""
    plane = gray(number, side)
    if number == 0:
        return plane.astype(np.uint16) * 257
    luma = cv2.cvtColor(photo(number, side).astype(np.float32) / 255, cv2.COLOR_RGB2GRAY)
    if number == 2:
        return (luma * 4095).astype(np.uint16) * 16
    return (luma.astype(np.float16 if number == 3 else np.float32) * np.float32(65535)).astype(np.uint16)


def deep_map(number: int, side: int) -> Pixels:
    """Masks and segments as numbers of 16 bits: ids, a soft mask, ids in colours, a gradient."""
    if number == 0:
        return regions(number, side, 400).astype(np.uint16)
    if number == 1:
        return (mask(3, side)[..., 0].astype(np.uint16)) * 257
    if number == 2:
        return segmented(number, side).astype(np.uint16) * 257
    y, x = np.mgrid[:side, :side] / side
    return (np.dstack([x, y, (x + y) / 2]) * 65535).astype(np.uint16)


def deep_upscaled(number: int, side: int) -> Pixels:
    """An upscaled photograph, calculated in floats; odd ones a render of light."""
    if number % 2:
        return ((render(number, side) / 255.0) ** 2.2 * 65535 + 0.5).astype(np.uint16)
    small = cv2.resize(photo(number, side), (side // 2,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32)
    large = cv2.resize(small, (side, side), interpolation=RESAMPLERS[number])
    return (np.clip(large, 0, 255) * 257 + 0.5).astype(np.uint16)
