"""What the numbers of an image mean: colour spaces that a file can be marked with, and the way to linear
light.

This module must never guess: a request says what its values are (`colorspace`), and the file says so too.

Facts: code points of ITU-T H.273 tables 2 to 4; sRGB of IEC 61966-2-1; HLG and PQ of ITU-R BT.2100-2
tables 4 and 5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from luna_farm.errors import InvalidRequest


class Colour(NamedTuple):
    """One colour space. `primaries`, `transfer`, `matrix`: code points of H.273; `matrix` is the one that
    lossy YCbCr formats use. `chromaticities`: x and y of red, green, blue and white. `interop_id`: its name
    in OpenEXR's colorInteropID."""

    primaries: int
    transfer: int
    matrix: int
    chromaticities: tuple[float, ...]
    interop_id: str


_REC_709 = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
_REC_2020 = (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, 0.3127, 0.329)
COLORSPACES = {
    "srgb": Colour(1, 13, 6, _REC_709, "srgb_rec709_scene"),
    "linear": Colour(1, 8, 6, _REC_709, "lin_rec709_scene"),
    "hlg": Colour(9, 18, 9, _REC_2020, "hlg_rec2020_display"),
    "pq": Colour(9, 16, 9, _REC_2020, "pq_rec2020_display"),
}
LINEAR_IDS: dict[tuple[float, ...], str] = {_REC_709: "lin_rec709_scene", _REC_2020: "lin_rec2020_scene"}
PQ_WHITE_NITS = 100.0
"""Luminance of 1.0 once PQ is made linear, in cd/m2."""


def to_linear(values: NDArray[np.float32], colorspace: str) -> NDArray[np.float32]:
    """Return linear light. values: float32, colours only, no alpha; what lies beyond 0..1 keeps its sign
    and follows the same curve, except in HLG and PQ, which end there."""
    if colorspace == "linear":
        return values
    size = np.abs(values)
    if colorspace == "srgb":
        light = np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    elif colorspace == "hlg":
        size = np.minimum(size, 1)
        light = np.where(
            size <= 0.5, size**2 / 3, (np.exp((size - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
    else:
        root = np.minimum(size, 1) ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light = light * (10_000 / PQ_WHITE_NITS)
    result: NDArray[np.float32] = np.copysign(light, values).astype(np.float32)
    return result


def from_linear(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return sRGB values of linear light, the inverse of `to_linear` for "srgb"."""
    size = np.abs(light)
    curved = np.where(size <= 0.0031308, size * 12.92, 1.055 * size ** (1 / 2.4) - 0.055)
    result: NDArray[np.float32] = np.copysign(curved, light).astype(np.float32)
    return result


def background(text: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0..255, of a colour written #rrggbb. Raises InvalidRequest."""
    digits = text.removeprefix("#")
    try:
        if len(digits) != 6 or not text.startswith("#"):
            raise ValueError
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise InvalidRequest.of("background", text, "a colour as #rrggbb, such as #ffffff") from None
    return red, green, blue


def composed(pixels: NDArray[np.uint8], under: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return [H, W, 3] of RGBA [H, W, 4] laid on a colour, mixed in the values of the file as browsers do."""
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    rows = max(1, 65536 // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        block = pixels[top : top + rows].astype(np.uint16)
        alpha = block[..., 3:]
        mixed: NDArray[Any] = block[..., :3] * alpha + np.array(under, np.uint16) * (255 - alpha)
        out[top : top + rows] = (mixed + 127) // 255
    return out
