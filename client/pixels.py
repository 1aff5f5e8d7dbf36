"""Images of a program, as arrays or tensors, into the bytes of a slot: one pass, no full-size temporary.

    info = describe(x)                  # raises InvalidRequest for what is no image
    copy_into(x, slot[: info.nbytes])   # uint8, C-contiguous [B, H, W, C]

Floats become bytes exactly as ComfyUI does it, `np.clip(255. * x, 0, 255).astype(np.uint8)`: truncated, in
the arithmetic of their own type (bfloat16, which numpy lacks, in float32). What that formula leaves
undefined, NaN, is refused: it is the sign of a decoder that overflowed, and a black hole in a file tells
nobody.

This module must never import torch: whoever passes a tensor has loaded it.
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

from luna_farm.errors import InvalidRequest
from luna_farm.imaging.quantize import copy_bytes, quantize, quantize_planes

_BLOCK = 128 * 1024  # elements: 512 KB of float32, which stays in a core's second level cache
_DEVICE_BLOCK = 16 * 1024 * 1024  # elements: 64 MB of float32 beside the models in the memory of a GPU
_CHANNELS = (1, 3, 4)
_SHAPES = "[H, W], [H, W, C] or [B, H, W, C] with C = 1, 3 or 4"
_DTYPES = "uint8 (0..255), or float16, bfloat16, float32, float64 (0..1)"


@dataclass(frozen=True, slots=True)
class PixelInfo:
    """What an array or tensor holds: `batch` images of `height` x `width` pixels; `nbytes` of them all."""

    batch: int
    height: int
    width: int
    channels: int
    nbytes: int


def describe(x: object) -> PixelInfo:
    """Check that `x` is a image or a batch of them and say what it holds. Costs microseconds: looks at no
    pixel.

    x: a numpy array or a torch tensor (on any device, contiguous or not) of shape [H, W], [H, W, C] or [B,
    H, W, C], C = 1, 3 or 4, of uint8 or of floats 0..1. Raises InvalidRequest with what was given and what
    is allowed.
    """
    given: Any = x
    torch = _torch_of(x)
    if torch is not None:
        if given.dtype not in _tensor_types():
            raise InvalidRequest.of("pixels.dtype", str(given.dtype).removeprefix("torch."), _DTYPES)
        if given.layout is not torch.strided or given.is_meta:
            what = f"a tensor without memory of its own ({given.layout}, {given.device})"
            raise InvalidRequest.of("pixels", what, "a dense tensor")
    elif isinstance(x, np.ndarray):
        if not (x.dtype == np.uint8 or (x.dtype.kind == "f" and x.dtype.itemsize in (2, 4, 8))):
            raise InvalidRequest.of("pixels.dtype", str(x.dtype), _DTYPES)
    else:
        kind = type(x)
        hint = " (of a PIL image: numpy.asarray(image))" if kind.__module__.startswith("PIL.") else ""
        what = f"{kind.__module__}.{kind.__qualname__}"
        raise InvalidRequest.of("pixels", what, f"a numpy array or torch tensor{hint}")
    return _measured(tuple(given.shape))


def copy_into(x: object, view: memoryview) -> None:
    """Write the bytes of `x` into `view`, as uint8 [B, H, W, C], C-contiguous.

    x: what `describe` accepts. view: writable, contiguous, exactly `describe(x).nbytes` long (else
    ValueError). A tensor on a GPU is turned into bytes there, which are then copied straight into `view`;
    the function returns when they have arrived. Raises InvalidRequest for what `describe` refuses and for
    NaN; `view` then holds rubbish.
    """
    info = describe(x)
    if view.nbytes != info.nbytes or view.readonly or not view.contiguous:
        raise ValueError(
            f"pixels of {info.nbytes} bytes need a writable view of just that length, not {view.nbytes}"
        )
    given: Any = x
    if isinstance(x, np.ndarray):
        _from_array(np.asarray(x), np.frombuffer(view, np.uint8).reshape(x.shape))
    elif given.device.type == "cpu":
        array = _array_of(given)
        _from_array(
            array,
            np.frombuffer(view, np.uint8).reshape(array.shape),
            bfloat=str(given.dtype) == "torch.bfloat16",
        )
    else:
        _from_device(given, view)


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
    return frozenset((torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64))


def _measured(shape: tuple[int, ...]) -> PixelInfo:
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
    return PixelInfo(batch, height, width, channels, math.prod((batch, height, width, channels)))


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


def _from_array(src: NDArray[Any], dst: NDArray[np.uint8], *, bfloat: bool = False) -> None:
    """Convert block by block, so that each stays in cache. `bfloat`: `src` holds the bits of bfloat16.

    src: any strides. dst: the same shape, C-contiguous or one channel of what is: it can be flattened.
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
            _refuse_nan(quantize_planes(batch, dst.reshape(-1, height, width, 3)))
            return
        for block in _blocks(src.shape[:-1], _BLOCK):
            for channel in range(src.shape[-1]):
                _from_array(src[block][..., channel], dst[block][..., channel], bfloat=bfloat)
        return
    if src.dtype == np.uint8:
        if src.ndim == 1 and src.flags.c_contiguous and dst.flags.c_contiguous:
            copy_bytes(src, dst)
        else:
            np.copyto(dst, src)
        return
    if src.dtype == np.float32 and src.flags.c_contiguous and dst.flags.c_contiguous:
        _refuse_nan(quantize(src, dst))
        return
    native, straight = src.dtype.newbyteorder("="), dst.flags.c_contiguous
    with np.errstate(invalid="ignore", over="ignore"):
        for block in _blocks(src.shape, _BLOCK):
            # A strided or byte-swapped block becomes a small plain one; a plain one stays a view.
            piece = np.ascontiguousarray(src[block], native)
            if straight:
                _convert(piece, dst[block], bfloat)
            else:
                plain = np.empty(piece.shape, np.uint8)
                _convert(piece, plain, bfloat)
                dst[block] = plain


def _convert(src: NDArray[Any], dst: NDArray[np.uint8], bfloat: bool) -> None:
    """Convert one block; both are C-contiguous."""
    if src.dtype.itemsize == 2:
        # Sixteen bits have few values: looking each up is exact, and thirteen times as fast as half floats
        # in numpy.
        bits = src.view(np.uint16)
        infinity = 0x7F80 if bfloat else 0x7C00
        _refuse_nan(int((bits & 0x7FFF).max()) > infinity)
        np.take(_table(bfloat), bits, out=dst, mode="clip")  # "raise" would copy the whole of dst first
        return
    if src.dtype.itemsize == 4:
        _refuse_nan(quantize(src, dst))
    else:
        _refuse_nan(math.isnan(np.minimum.reduce(src, axis=None)))  # a minimum is NaN if anything is
        product = np.multiply(src, 255.0)
        np.copyto(dst, np.clip(product, 0, 255, out=product), casting="unsafe")


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


def _refuse_nan(found: bool) -> None:
    if found:
        raise InvalidRequest(
            "pixels: NaN is not allowed; allowed: numbers, 0 to 1. A decoder that overflows in 16 bits "
            "makes it; run it in float32 (ComfyUI: --fp32-vae), or use torch.nan_to_num or numpy.nan_to_num.",
            "pixels",
            "NaN",
            "numbers, 0 to 1",
        )


def _array_of(tensor: Any) -> NDArray[Any]:
    """Return a CPU tensor as an array on the same memory; bfloat16, which numpy lacks, as its bits."""
    torch = sys.modules["torch"]
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        bits: NDArray[Any] = tensor.view(torch.int16).numpy()
        return bits.view(np.uint16)
    array: NDArray[Any] = tensor.numpy()
    return array


def _from_device(tensor: Any, view: memoryview) -> None:
    """Turn a tensor into bytes on its own device and copy those over; wait until they have arrived."""
    torch = sys.modules["torch"]
    tensor = tensor.detach()
    try:
        found_nan = _quantize_there(tensor, view)
    except torch.cuda.OutOfMemoryError:
        # Models fill the memory of a GPU to the brim: then the floats come over, piece by piece, to be
        # turned here.
        target = np.frombuffer(view, np.uint8).reshape(tensor.shape)
        for piece, place in _pieces(tensor, target):
            _from_array(_array_of(piece.cpu()), place, bfloat=tensor.dtype == torch.bfloat16)
        return
    finally:
        if tensor.is_cuda:  # nothing may still be writing into a slot that the caller gives back
            torch.cuda.current_stream(tensor.device).synchronize()
    _refuse_nan(found_nan)


def _quantize_there(tensor: Any, view: memoryview) -> bool:
    """Queue the work for a device and return whether it met NaN.

    Few and late calls, since for a image of a megapixel each costs more than the GPU's work: the search
    for NaN is queued while the bytes travel, and reading its answer waits for both.
    """
    torch = sys.modules["torch"]
    target = torch.frombuffer(view, dtype=torch.uint8).view(tensor.shape)
    lowest = None
    for piece, place in _pieces(tensor, target):
        if piece.dtype == torch.uint8:
            place.copy_(piece, non_blocking=tensor.is_cuda)
            continue
        floats = piece.float() if piece.dtype == torch.bfloat16 else piece
        place.copy_((floats * 255.0).clamp_(0, 255).to(torch.uint8), non_blocking=tensor.is_cuda)
        least = piece.amin()  # NaN if anything is
        lowest = least if lowest is None else torch.minimum(lowest, least)
    return lowest is not None and math.isnan(lowest.item())


def _pieces(tensor: Any, target: Any) -> Iterator[tuple[Any, Any]]:
    """Cut both alike, unless they are small."""
    if math.prod(tensor.shape) <= _DEVICE_BLOCK:
        yield tensor, target
    else:
        for block in _blocks(tuple(tensor.shape), _DEVICE_BLOCK):
            yield tensor[block], target[block]
