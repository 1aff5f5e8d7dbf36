"""16-bit pixels with colours of a file, which Pillow reads in 8 bits, by imagecodecs, an optional package.

This module must never make 8 bits of 16 without a warning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luna_farm.imaging import source_formats as formats
from luna_farm.imaging.source_formats import Pixels, Source

if TYPE_CHECKING:
    from PIL import Image


def read(image: Image.Image, data: bytes, frames: list[int], source: Source) -> list[Pixels] | None:
    """Return 16-bit pixels with colours, which Pillow reads in 8 bits; None where there are none."""
    image.seek(frames[0])
    if image.format == "PNG" and image.mode == "I;16" and isinstance(image.info.get("transparency"), int):
        return [_with_transparent_gray(image)]
    bits = _bits(image, data)
    if bits <= 8 or image.mode not in ("RGB", "RGBA", "LA", "CMYK"):
        return None
    name = {"PNG": "png", "TIFF": "tiff", "AVIF": "avif"}.get(image.format or "", "")
    if not name or image.mode == "CMYK" or (len(frames) > 1 and name != "tiff"):
        source.warnings.append(f"Its {bits} bits a channel were read as 8.")
        return None
    try:
        import imagecodecs

        decode = getattr(imagecodecs, f"{name}_decode")
        pages = [decode(data, index=number) if name == "tiff" else decode(data) for number in frames]
        return [
            _of_16_bits(np.asarray(page), bits, image, number)
            for page, number in zip(pages, frames, strict=True)
        ]
    except ImportError:
        source.warnings.append(
            f"Its {bits} bits a channel were read as 8; pip install 'luna-farm[formats]' reads them all."
        )
    except Exception as error:  # a kind of file that this library does not know
        source.warnings.append(f"Its {bits} bits a channel were read as 8 ({error}).")
    return None


def _with_transparent_gray(image: Image.Image) -> Pixels:
    """Return RGBA of 16-bit gray of which one value is transparent (tRNS): Pillow keeps it as gray alone."""
    gray = np.asarray(image).astype(np.uint16)
    alpha = np.where(gray == image.info["transparency"], 0, 65_535).astype(np.uint16)
    return formats.upright(
        np.dstack([gray, gray, gray, alpha]), int(image.getexif().get(formats.ORIENTATION, 1))
    )


def _of_16_bits(pixels: Pixels, bits: int, image: Image.Image, number: int) -> Pixels:
    """Put a page in order: channels last, full range, alpha not multiplied in, upright.

    Raises ValueError for another kind of pixels.
    """
    image.seek(number)
    tags = getattr(image, "tag_v2", {})
    if tags.get(284) == 2 and pixels.ndim == 3:  # each colour in a plane of its own
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (2, 3, 4):
        raise ValueError(f"{pixels.dtype} {list(pixels.shape)}")
    if bits < 16:
        pixels = (pixels.astype(np.uint32) * 65_535 // (2**bits - 1)).astype(np.uint16)
    if pixels.shape[2] == 2:
        pixels = pixels[:, :, (0, 0, 0, 1)]
    if pixels.shape[2] == 4 and formats.ASSOCIATED in tags.get(formats.EXTRA_SAMPLES, ()):
        pixels = formats.with_plain_alpha(pixels)
    return formats.upright(pixels, int(image.getexif().get(formats.ORIENTATION, 1)))


def _bits(image: Image.Image, data: bytes) -> int:
    """Return the bits of a channel that a file stores."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(258, (8,))))
    at = data.find(b"pixi")
    return data[at + 9] if image.format == "AVIF" and 0 < at < len(data) - 9 else 8
