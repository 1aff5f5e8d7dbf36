"""Images of a program, as arrays or tensors, into the bytes of a slot: one pass, no full-size temporary.

    info = describe(x)                              # raises InvalidRequest for what is no image
    flaws = copy_into(x, slot[: info.nbytes], info.dtype)   # C-contiguous [B, H, W, C]
    copy_together([(x, slot, dtype), ...])          # the same for several, in several threads

Floats become 8-bit values exactly as in ComfyUI, `np.clip(255. * x, 0, 255).astype(np.uint8)`: truncated, in
the arithmetic of their own type (bfloat16, which numpy lacks, in float32). They become 16-bit values by
rounding, `floor(65535 * x + 0.5)` in float32, and stay floats for files that store floats. NaN becomes 0 and
infinities the nearest value that can be stored; `copy_into` counts both per image. Bool means 0 and 255.

This module must never import torch: a caller that passes a tensor has loaded it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.core.formats import DTYPES, wire_dtype
from luna_farm.errors import InvalidRequest
from luna_farm.imaging.quantize import ALONE, in_threads
from luna_farm_client.conversion import Flaws, at_depth, floats, from_array, inspected
from luna_farm_client.device import array_of, from_device, torch_of

_CHANNELS = (1, 3, 4)
_SHAPES = "[H, W], [H, W, C] or [B, H, W, C] with C = 1, 2 (gray and alpha), 3 or 4"
_DTYPES = "uint8 (0..255), uint16 (0..65535), bool, or float16, bfloat16, float32, float64 (0..1)"

_ARRAYS = {"B": "uint8", "?": "uint8", "H": "uint16", "e": "float16", "f": "float32", "d": "float32"}
"""`char` of a dtype of numpy -> the one of DTYPES that holds it, so far as a file can."""


@dataclass(frozen=True, slots=True)
class PixelInfo:
    """What an array or tensor holds: `batch` images of `height` x `width` pixels.

    `dtype` is the type in which they travel and `nbytes` the size of all images in it.
    """

    batch: int
    height: int
    width: int
    channels: int
    nbytes: int
    dtype: str = "uint8"


def describe(x: object, *, bit_depth: str = "auto", formats: tuple[str, ...] = ("png",)) -> PixelInfo:
    """Check that `x` is an image or a batch of them and say what it holds. Costs microseconds: looks at no
    pixel.

    x: a numpy array or a torch tensor (on any device, contiguous or not) of shape [H, W], [H, W, C] or [B,
    H, W, C], C = 1, 2, 3 or 4, of uint8, uint16, bool, or of floats 0..1. bit_depth and formats: of the files
    to make; they decide in which type floats travel. Raises InvalidRequest with what was given and what is
    allowed.
    """
    given: Any = x
    if isinstance(x, np.ndarray):
        kind = _ARRAYS.get(x.dtype.char)
        if kind is None:
            raise InvalidRequest.of("pixels.dtype", str(x.dtype), _DTYPES)
        return _measured(x.shape, kind, bit_depth, formats)
    torch = torch_of(x)
    if torch is not None:
        if given.dtype not in _tensor_types():
            raise InvalidRequest.of("pixels.dtype", str(given.dtype).removeprefix("torch."), _DTYPES)
        if given.layout is not torch.strided or given.is_meta:
            what = f"a tensor without memory of its own ({given.layout}, {given.device})"
            raise InvalidRequest.of("pixels", what, "a dense tensor")
    else:
        of = type(x)
        hint = " (of a PIL image: numpy.asarray(image))" if of.__module__.startswith("PIL.") else ""
        if of.__module__ == "builtins":
            hint = " (of nested lists: numpy.asarray(pixels))" if isinstance(x, list | tuple) else ""
        shown = x if of.__module__ == "builtins" else f"{of.__module__}.{of.__qualname__}"
        raise InvalidRequest.of("pixels", shown, f"a numpy array or torch tensor{hint}")
    return _measured(tuple(given.shape), _kind(given.dtype), bit_depth, formats)


def copy_into(x: object, view: memoryview, dtype: str = "uint8") -> Flaws:
    """Write `x` into `view` as [B, H, W, C] of `dtype`, C-contiguous, and return what was wrong with it.

    x: what `describe` accepts. dtype: `describe(x).dtype`, or "uint8". view: writable, contiguous, exactly as
    long as the pixels (else ValueError). A tensor on a GPU is turned into bytes there, which are then copied
    straight into `view`; the function returns when they have arrived. NaN and infinities are replaced and
    counted. Raises InvalidRequest for what `describe` refuses, and for floats far above 1 that are to become
    integers; `view` then holds rubbish.
    """
    info = describe(x)
    nbytes = DTYPES[dtype] * math.prod((info.batch, info.height, info.width, info.channels))
    if view.nbytes != nbytes or view.readonly or not view.contiguous:
        raise ValueError(
            f"pixels of {nbytes} bytes need a writable view of just that length, not {view.nbytes}"
        )
    return _copy(x, view, dtype)


def _copy(x: object, view: memoryview, dtype: str) -> Flaws:
    """As `copy_into`, of what was described and into a view of that length."""
    given: Any = x
    if isinstance(x, np.ndarray):
        kind, array = _ARRAYS[x.dtype.char], np.asarray(x)
    else:
        kind = _kind(given.dtype)
        if not given.is_cpu and dtype == "uint8" and kind != "uint16":
            return from_device(given, view)
        array = array_of(given if given.is_cpu else given.cpu())
    bfloat = kind == "float32" and array.dtype == np.uint16  # the bits of it
    if kind in ("uint8", "uint16") and dtype != kind:
        raise ValueError(f"integers travel as they are ({kind}), not as {dtype}")
    target = np.frombuffer(view, dtype).reshape(array.shape)
    if dtype != "uint8":
        return at_depth(array, target, bfloat)
    if from_array(array.view(np.uint8) if array.dtype == np.bool_ else array, target, bfloat=bfloat):
        return inspected(array, bfloat, limited=True)
    if array.dtype == np.bool_:
        np.multiply(target, 255, out=target)
    return {}


def copy_together(work: Sequence[tuple[object, memoryview, str]]) -> list[Flaws]:
    """As `copy_into` for each (x, view, dtype) that was described. Small images in the memory of the
    processor are copied by several threads; a large one uses several by itself, and one of a GPU needs
    none."""
    if len(work) == 1:
        return [_copy(*work[0])]
    copies = [partial(_copy, *each) for each in work]
    small = all(
        dtype == "uint8" and view.nbytes <= ALONE and getattr(x, "is_cpu", True) for x, view, dtype in work
    )
    if small and sum(view.nbytes for _, view, _ in work) > ALONE:
        return in_threads(copies)
    return [copy() for copy in copies]


def spread(x: object) -> Any:
    """Return gray and alpha, [H, W, 2] or [B, H, W, 2], as RGBA, and anything else as it is."""
    given: Any = x
    shape: tuple[int, ...] = getattr(given, "shape", ())
    return given[..., [0, 0, 0, 1]] if len(shape) in (3, 4) and shape[-1] == 2 else x


def with_alpha(x: object, mask: object) -> Any:
    """Return an image or a batch with a mask as its alpha, as a new array.

    x: what `describe` accepts; an alpha that it has is replaced. mask: [H, W] or [B, H, W] of
    floats, 1 where the image is transparent (ComfyUI's MASK; its JoinImageWithAlpha does the same). One mask
    serves a batch; one of another size is scaled, as ComfyUI does. Raises InvalidRequest.
    """
    info = describe(x)
    shape: tuple[int, ...] = tuple(getattr(mask, "shape", ()))
    if len(shape) == 3 and (shape[2] != 1 or info.width == 1):
        mask = mask[..., None]  # type: ignore[index]  # [B, H, W]
    try:
        given = describe(mask)
    except InvalidRequest as error:
        text, name = (said.replace("pixels", "mask", 1) for said in (str(error), error.field))
        raise InvalidRequest(text, name, error.given, error.allowed) from None
    if given.channels != 1 or (given.batch not in (1, info.batch)):
        allowed = "[H, W] or [B, H, W], one mask or one for each image"
        raise InvalidRequest.of("mask.shape", list(shape), allowed)
    pixels = _plain(x).reshape(info.batch, info.height, info.width, info.channels)
    hidden = _plain(mask).reshape(given.batch, given.height, given.width)
    full = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    most = float(np.iinfo(hidden.dtype).max) if hidden.dtype.kind == "u" else 1.0
    alpha = np.clip(1.0 - hidden.astype(np.float32) / most, 0, 1)
    if (given.height, given.width) != (info.height, info.width):
        alpha = np.stack([_scaled(one, info.height, info.width) for one in alpha])
    out = np.empty((*pixels.shape[:3], 4), pixels.dtype)
    out[..., :3] = pixels[..., :3]
    if pixels.dtype.kind == "u":  # floats keep NaN, so that it is counted with that of the pixels
        out[..., 3] = np.nan_to_num(alpha, copy=False, nan=0.0) * full + 0.5
    else:
        out[..., 3] = alpha
    return out


def _plain(x: Any) -> NDArray[Any]:
    """Return an array of uint8, uint16 or floats; of bfloat16 and bool, what they mean."""
    array = x if isinstance(x, np.ndarray) else array_of(x.cpu())
    if str(x.dtype) == "torch.bfloat16":
        return floats(array, True)
    return array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array


def _scaled(mask: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))


@lru_cache(maxsize=1)
def _tensor_types() -> frozenset[Any]:
    torch = sys.modules["torch"]
    names = ("uint8", "uint16", "bool", "float16", "bfloat16", "float32", "float64")
    return frozenset(getattr(torch, name) for name in names if hasattr(torch, name))  # uint16: torch 2.3


@lru_cache(maxsize=64)
def _kind(dtype: Any) -> str:
    """Return the one of DTYPES that holds `dtype` (of numpy or torch), so far as a file can."""
    name = str(dtype).removeprefix("torch.").lstrip("<>=|")
    if name in ("float16", "f2", "uint16", "u2"):
        return "float16" if name[0] == "f" else "uint16"
    return "uint8" if name in ("uint8", "bool") else "float32"


@lru_cache(maxsize=256)
def _measured(shape: tuple[int, ...], kind: str, bit_depth: str, formats: tuple[str, ...]) -> PixelInfo:
    """The pixels of one node have one shape as a rule: it is judged once."""
    dtype = wire_dtype(kind, bit_depth, formats)
    if not 2 <= len(shape) <= 4:
        raise InvalidRequest.of("pixels.shape", list(shape), _SHAPES)
    batch, height, width, channels = {2: (1, *shape, 1), 3: (1, *shape), 4: shape}[len(shape)]
    if channels not in _CHANNELS:
        hint = ""
        if len(shape) > 2 and shape[-3] in _CHANNELS:
            hint = "; the channels come last, so this may need .movedim(-3, -1) or numpy.moveaxis(x, -3, -1)"
        elif channels > max(_CHANNELS):
            hint = "; of more channels pixels[..., :3] are an image, and pixels[..., n] is one of gray"
        raise InvalidRequest.of("pixels.shape", list(shape), _SHAPES + hint)
    if min(batch, height, width) < 1:
        raise InvalidRequest.of("pixels.shape", list(shape), "at least one image of at least one pixel")
    # math.prod: numpy's would overflow without a word.
    nbytes = DTYPES[dtype] * math.prod((batch, height, width, channels))
    return PixelInfo(batch, height, width, channels, nbytes, dtype)
