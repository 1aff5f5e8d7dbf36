"""Images of a program, as arrays or tensors, into the bytes of a slot: one pass, no full-size temporary.

    info = describe(x)                              # raises InvalidRequest for what is no image
    flaws = copy_into(x, slot[: info.nbytes], info.dtype)   # C-contiguous [B, H, W, C]

Floats become 8-bit values exactly as in ComfyUI, `np.clip(255. * x, 0, 255).astype(np.uint8)`: truncated, in
the arithmetic of their own type (bfloat16, which numpy lacks, in float32). They become 16-bit values by
rounding, `floor(65535 * x + 0.5)` in float32, and stay floats for files that store floats. NaN becomes 0 and
infinities the nearest value that can be stored; `copy_into` counts both per image. Bool means 0 and 255.

This module must never import torch: a caller that passes a tensor has loaded it.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.core.formats import DTYPES, wire_dtype
from luna_farm.errors import InvalidRequest
from luna_farm.imaging.quantize import LARGEST, copy_bytes, quantize, quantize_planes, round_to_16

_BLOCK = 128 * 1024  # elements: 512 KB of float32, which stays in a core's second level cache
_DEVICE_BLOCK = 16 * 1024 * 1024  # elements: 64 MB of float32 beside the models in the memory of a GPU
_CHANNELS = (1, 3, 4)
_SHAPES = "[H, W], [H, W, C] or [B, H, W, C] with C = 1, 3 or 4"
_DTYPES = "uint8 (0..255), uint16 (0..65535), bool, or float16, bfloat16, float32, float64 (0..1)"

_ARRAYS = {"B": "uint8", "?": "uint8", "H": "uint16", "e": "float16", "f": "float32", "d": "float32"}
"""`char` of a dtype of numpy -> the one of DTYPES that holds it, so far as a file can."""

Flaws = dict[int, int]
"""Index of an image in its batch -> how many of its values were NaN or infinite."""


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
    H, W, C], C = 1, 3 or 4, of uint8, uint16, bool, or of floats 0..1. bit_depth and formats: of the files
    to make; they decide in which type floats travel. Raises InvalidRequest with what was given and what is
    allowed.
    """
    given: Any = x
    if isinstance(x, np.ndarray):
        kind = _ARRAYS.get(x.dtype.char)
        if kind is None:
            raise InvalidRequest.of("pixels.dtype", str(x.dtype), _DTYPES)
        return _measured(x.shape, kind, bit_depth, formats)
    torch = _torch_of(x)
    if torch is not None:
        if given.dtype not in _tensor_types():
            raise InvalidRequest.of("pixels.dtype", str(given.dtype).removeprefix("torch."), _DTYPES)
        if given.layout is not torch.strided or given.is_meta:
            what = f"a tensor without memory of its own ({given.layout}, {given.device})"
            raise InvalidRequest.of("pixels", what, "a dense tensor")
    else:
        of = type(x)
        hint = " (of a PIL image: numpy.asarray(image))" if of.__module__.startswith("PIL.") else ""
        what = f"{of.__module__}.{of.__qualname__}"
        raise InvalidRequest.of("pixels", what, f"a numpy array or torch tensor{hint}")
    return _measured(tuple(given.shape), _kind(str(given.dtype)), bit_depth, formats)


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
    given: Any = x
    if isinstance(x, np.ndarray):
        array, bfloat = np.asarray(x), False
    elif given.device.type == "cpu":
        array, bfloat = _array_of(given), str(given.dtype) == "torch.bfloat16"
    elif dtype == "uint8" and _kind(str(given.dtype)) != "uint16":
        return _from_device(given, view)
    else:
        array, bfloat = _array_of(given.cpu()), str(given.dtype) == "torch.bfloat16"
    if _kind(str(given.dtype)) in ("uint8", "uint16") and dtype != info.dtype:
        raise ValueError(f"integers travel as they are ({info.dtype}), not as {dtype}")
    target = np.frombuffer(view, dtype).reshape(array.shape)
    if dtype != "uint8":
        return _at_depth(array, target, bfloat)
    if _from_array(array.view(np.uint8) if array.dtype == np.bool_ else array, target, bfloat=bfloat):
        return _inspected(array, bfloat, limited=True)
    if array.dtype == np.bool_:
        np.multiply(target, 255, out=target)
    return {}


def with_alpha(x: object, mask: object) -> Any:
    """Return an image or a batch with a mask as its alpha, as a new array.

    x: what `describe` accepts, C = 1, 3 or 4; an alpha that it has is replaced. mask: [H, W] or [B, H, W] of
    floats, 1 where the image is transparent (ComfyUI's MASK; its JoinImageWithAlpha does the same). One mask
    serves a batch; one of another size is scaled, as ComfyUI does. Raises InvalidRequest.
    """
    info, given = describe(x), describe(mask)
    if given.channels != 1 or (given.batch not in (1, info.batch)):
        shape = list(getattr(mask, "shape", ()))
        allowed = "[H, W] or [B, H, W], one mask or one for each image"
        raise InvalidRequest.of("mask.shape", shape, allowed)
    pixels = _plain(x).reshape(info.batch, info.height, info.width, info.channels)
    hidden = _plain(mask).reshape(given.batch, given.height, given.width)
    full = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    most = float(np.iinfo(hidden.dtype).max) if hidden.dtype.kind == "u" else 1.0
    alpha = np.clip(1.0 - hidden.astype(np.float32) / most, 0, 1)
    if (given.height, given.width) != (info.height, info.width):
        alpha = np.stack([_scaled(one, info.height, info.width) for one in alpha])
    out = np.empty((*pixels.shape[:3], 4), pixels.dtype)
    out[..., :3] = pixels[..., :3]
    out[..., 3] = alpha * full + (0.5 if pixels.dtype.kind == "u" else 0)
    return out


def _plain(x: Any) -> NDArray[Any]:
    """Return an array of uint8, uint16 or floats; of bfloat16 and bool, what they mean."""
    array = x if isinstance(x, np.ndarray) else _array_of(x.cpu())
    if str(x.dtype) == "torch.bfloat16":
        return _floats(array, True)
    return array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array


def _scaled(mask: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))


def is_on_gpu(x: object) -> bool:
    """Tell whether `x` is a tensor in the memory of a CUDA device."""
    return _torch_of(x) is not None and bool(getattr(x, "is_cuda", False))


def register_cuda(view: memoryview) -> bool:
    """Let the GPU write straight into `view` (page-locked), and say whether it now can.

    view: a whole mapped and populated arena, not registered yet. Costs 9 to 16 ms for 256 MB, once, and
    makes each copy from a GPU two to three times as fast; worth it for an arena, never for one image.
    False where CUDA or the driver will not: copies then work all the same. Call `unregister_cuda` before the
    memory is unmapped.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return False
    if int(torch.cuda.cudart().cudaHostRegister(_address(view), view.nbytes, 0)) == 0:
        return True
    # CUDA keeps the error for the next launch to stumble over, which would be the user's: let it be this one.
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device="cuda")
    return False


def unregister_cuda(view: memoryview) -> None:
    """Undo a `register_cuda` that returned True."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.cudart().cudaHostUnregister(_address(view))


def _address(view: memoryview) -> int:
    return np.frombuffer(view, np.uint8).ctypes.data


def _torch_of(x: object) -> Any:
    """Return torch if `x` is a tensor, else None. While torch is still being imported there are none."""
    torch = sys.modules.get("torch")
    return torch if isinstance(x, getattr(torch, "Tensor", ())) else None


@lru_cache(maxsize=1)
def _tensor_types() -> frozenset[Any]:
    torch = sys.modules["torch"]
    names = ("uint8", "uint16", "bool", "float16", "bfloat16", "float32", "float64")
    return frozenset(getattr(torch, name) for name in names if hasattr(torch, name))  # uint16: torch 2.3


def _kind(dtype: str) -> str:
    """Return the one of DTYPES that holds `dtype` (of numpy or torch), so far as a file can."""
    name = dtype.removeprefix("torch.").lstrip("<>=|")
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
        raise InvalidRequest.of("pixels.shape", list(shape), _SHAPES + hint)
    if min(batch, height, width) < 1:
        raise InvalidRequest.of("pixels.shape", list(shape), "at least one image of at least one pixel")
    # math.prod: numpy's would overflow without a word.
    nbytes = DTYPES[dtype] * math.prod((batch, height, width, channels))
    return PixelInfo(batch, height, width, channels, nbytes, dtype)


def _blocks(shape: tuple[int, ...], largest: int) -> Iterator[tuple[slice, ...]]:
    """Cut a shape into pieces of at most `largest` elements, contiguous where the array is C-contiguous."""
    inner = math.prod(shape[1:])
    if inner > largest:
        for index in range(shape[0]):
            for rest in _blocks(shape[1:], largest):
                yield (slice(index, index + 1), *rest)
    else:
        step = largest // inner
        for start in range(0, shape[0], step):
            yield (slice(start, start + step),)


def _from_array(src: NDArray[Any], dst: NDArray[np.uint8], *, bfloat: bool = False) -> bool:
    """Convert block by block, so that each stays in cache. `bfloat`: `src` holds the bits of bfloat16.

    src: any strides. dst: the same shape, C-contiguous or one channel of what is: it can be flattened.
    Returns whether a value needs a closer look: NaN, infinite, or beyond LARGEST.
    """
    if src.flags.c_contiguous:
        src, dst = src.reshape(-1), dst.reshape(-1)
    elif src.ndim > 2 and abs(src.strides[-1]) > abs(src.strides[-2]):
        # Channels first in memory, which is how ComfyUI's VAEs hand images out. Plane by plane, floats are
        # read in order and only bytes are interleaved, in half the time.
        planes = np.moveaxis(src, -1, -3)
        whole = planes.flags.c_contiguous and planes.flags.aligned
        if whole and src.dtype == np.float32 and src.shape[-1] == 3:
            height, width = src.shape[-3:-1]
            batch = planes.reshape(-1, 3, height, width)
            return quantize_planes(batch, dst.reshape(-1, height, width, 3))
        odd = False
        for block in _blocks(src.shape[:-1], _BLOCK):
            for channel in range(src.shape[-1]):
                odd |= _from_array(src[block][..., channel], dst[block][..., channel], bfloat=bfloat)
        return odd
    if src.dtype == np.uint8:
        if src.ndim == 1 and src.flags.c_contiguous and dst.flags.c_contiguous:
            copy_bytes(src, dst)
        else:
            np.copyto(dst, src)
        return False
    if src.dtype == np.float32 and src.flags.c_contiguous and dst.flags.c_contiguous:
        return quantize(src, dst)
    native, straight, odd = src.dtype.newbyteorder("="), dst.flags.c_contiguous, False
    with np.errstate(invalid="ignore", over="ignore"):
        for block in _blocks(src.shape, _BLOCK):
            # A strided or byte-swapped block becomes a small plain one; a plain one stays a view.
            piece = np.ascontiguousarray(src[block], native)
            if straight:
                odd |= _convert(piece, dst[block], bfloat)
            else:
                plain = np.empty(piece.shape, np.uint8)
                odd |= _convert(piece, plain, bfloat)
                dst[block] = plain
    return odd


def _convert(src: NDArray[Any], dst: NDArray[np.uint8], bfloat: bool) -> bool:
    """Convert one block; both are C-contiguous. Returns as `_from_array` does."""
    if src.dtype.itemsize == 2:
        # Sixteen bits have few values: looking each up is exact, and thirteen times as fast as half floats
        # in numpy. Without their sign they sort as the numbers do, with infinity and NaN last.
        bits = src.view(np.uint16)
        np.take(_table(bfloat), bits, out=dst, mode="clip")  # "raise" would copy the whole of dst first
        return int((bits & 0x7FFF).max()) > (0x4100 if bfloat else 0x4800)  # LARGEST in their formats
    if src.dtype.itemsize == 4:
        return quantize(src, dst)
    product = np.multiply(src, 255.0)
    odd = not max(abs(product.min()), abs(product.max())) <= 255.0 * LARGEST  # NaN compares false
    np.fmin(np.fmax(product, 0, out=product), 255, out=product)
    np.copyto(dst, product, casting="unsafe")
    return odd


def _at_depth(src: NDArray[Any], dst: NDArray[Any], bfloat: bool) -> Flaws:
    """Convert to uint16, float16 or float32, block by block, and look for NaN and infinities."""
    if src.dtype.kind == "u" and not bfloat:
        np.copyto(dst, src)
        return {}
    odd = False
    largest = np.finfo(dst.dtype).max if dst.dtype.kind == "f" else None
    with np.errstate(invalid="ignore", over="ignore"):
        for block in _blocks(src.shape, _BLOCK):
            piece = _floats(src[block], bfloat)
            if largest is None:
                odd |= round_to_16(piece, dst[block])
            else:
                odd |= not np.isfinite(piece).all()
                held = np.nan_to_num(piece, nan=0.0, posinf=float(largest), neginf=-float(largest))
                dst[block] = np.clip(held, -largest, largest)
    return _inspected(src, bfloat, limited=largest is None) if odd else {}


def _floats(src: NDArray[Any], bfloat: bool) -> NDArray[np.float32]:
    """Return floats as C-contiguous float32. `bfloat`: `src` holds the bits of bfloat16."""
    if bfloat:
        return (np.ascontiguousarray(src, np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(src, np.float32)


def _inspected(src: NDArray[Any], bfloat: bool, *, limited: bool) -> Flaws:
    """Look closer at floats of which some are odd: count NaN and infinities per image.

    Raises InvalidRequest if `limited` and the largest number is beyond LARGEST.
    """
    flaws: Flaws = {}
    images = src[None] if src.ndim < 4 else src
    for index, image in enumerate(images):
        bad, most = 0, 0.0
        for block in _blocks(image.shape, _BLOCK):
            piece = _floats(image[block], bfloat)
            finite = np.isfinite(piece)
            bad += piece.size - int(np.count_nonzero(finite))
            most = max(most, float(np.max(piece, where=finite, initial=0.0)))
        if limited and most > LARGEST:
            raise InvalidRequest(
                f"pixels: floats up to {most:g} are not allowed; allowed: 0 to 1 (up to {LARGEST:g} is "
                "clipped to 1, as ComfyUI does). Divide values of 0..255 by 255; high dynamic range is kept "
                "by format exr, or tiff with bit_depth half or float.",
                "pixels",
                f"{most:g}",
                "floats from 0 to 1",
            )
        if bad:
            flaws[index] = bad
    return flaws


@lru_cache(maxsize=2)
def _table(bfloat: bool) -> NDArray[np.uint8]:
    """Return the byte for each of the 65,536 values of a 16-bit float."""
    bits = np.arange(65536, dtype=np.uint32)
    values: NDArray[Any] = (
        (bits << 16).view(np.float32) if bfloat else bits.astype(np.uint16).view(np.float16)
    )
    with np.errstate(all="ignore"):
        # In float16 the product is rounded to float16 before it is truncated, as ComfyUI's is.
        clipped = np.clip(values.dtype.type(255) * values, 0, 255)
        table: NDArray[np.uint8] = np.nan_to_num(clipped, nan=0.0).astype(np.uint8)
    return table


def _array_of(tensor: Any) -> NDArray[Any]:
    """Return a CPU tensor as an array on the same memory; bfloat16, which numpy lacks, as its bits."""
    torch = sys.modules["torch"]
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        bits: NDArray[Any] = tensor.view(torch.int16).numpy()
        return bits.view(np.uint16)
    array: NDArray[Any] = tensor.numpy()
    return array


def _from_device(tensor: Any, view: memoryview) -> Flaws:
    """Turn a tensor into bytes on its own device and copy those over; wait until they have arrived."""
    torch = sys.modules["torch"]
    tensor = tensor.detach()
    bfloat = tensor.dtype == torch.bfloat16
    try:
        odd = _quantize_there(tensor, view)
    except torch.cuda.OutOfMemoryError:
        # Models fill the memory of a GPU to the brim: then the floats come over, piece by piece, to be
        # turned here.
        odd = False
        target = np.frombuffer(view, np.uint8).reshape(tensor.shape)
        for piece, place in _pieces(tensor, target):
            odd |= _from_array(_array_of(piece.cpu()), place, bfloat=bfloat)
    finally:
        if tensor.is_cuda:  # nothing may still be writing into a slot that the caller gives back
            torch.cuda.current_stream(tensor.device).synchronize()
    return _inspected(_array_of(tensor.cpu()), bfloat, limited=True) if odd else {}


def _quantize_there(tensor: Any, view: memoryview) -> bool:
    """Queue the work for a device and return whether a value needs a closer look, as `_from_array` does.

    Few and late calls, since for an image of a megapixel each costs more than the GPU's work: the search
    for the extremes is queued while the bytes travel, and reading its answer waits for both.
    """
    torch = sys.modules["torch"]
    target = torch.frombuffer(view, dtype=torch.uint8).view(tensor.shape)
    most = None
    for piece, place in _pieces(tensor, target):
        if piece.dtype in (torch.uint8, torch.bool):
            whole = piece if piece.dtype == torch.uint8 else piece.to(torch.uint8) * 255
            place.copy_(whole, non_blocking=tensor.is_cuda)
            continue
        floats = piece.float() if piece.dtype == torch.bfloat16 else piece
        place.copy_((floats * 255.0).clamp_(0, 255).to(torch.uint8), non_blocking=tensor.is_cuda)
        # The largest distance from 0, in one pass; NaN if anything is.
        furthest = torch.linalg.vector_norm(piece, math.inf)
        most = furthest if most is None else torch.maximum(most, furthest)
    return most is not None and not most.item() <= LARGEST


def _pieces(tensor: Any, target: Any) -> Iterator[tuple[Any, Any]]:
    """Cut both alike, unless they are small."""
    if math.prod(tensor.shape) <= _DEVICE_BLOCK:
        yield tensor, target
    else:
        for block in _blocks(tuple(tensor.shape), _DEVICE_BLOCK):
            yield tensor[block], target[block]
