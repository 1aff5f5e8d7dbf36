"""Tensors in the memory of a GPU: turned into bytes there, copied straight into a slot.

This module must never import torch: a caller that passes a tensor has loaded it.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm.imaging.quantize import LARGEST
from luna_farm_client.conversion import Flaws, blocks, from_array, inspected

_DEVICE_BLOCK = 16 * 1024 * 1024  # elements: 64 MB of float32 beside the models in the memory of a GPU


def torch_of(x: object) -> Any:
    """Return torch if `x` is a tensor, else None. While torch is still being imported there are none."""
    torch = sys.modules.get("torch")
    return torch if isinstance(x, getattr(torch, "Tensor", ())) else None


def array_of(tensor: Any) -> NDArray[Any]:
    """Return a CPU tensor as an array on the same memory; bfloat16, which numpy lacks, as its bits."""
    torch = sys.modules["torch"]
    bfloat = tensor.dtype == torch.bfloat16
    if bfloat:
        tensor = tensor.detach().resolve_neg().view(torch.int16)
    try:
        array: NDArray[Any] = tensor.numpy()
    except RuntimeError:  # autograd follows it, or it is negated where it is read, as imaginary parts are
        array = tensor.detach().resolve_neg().numpy()
    return array.view(np.uint16) if bfloat else array


def is_on_gpu(x: object) -> bool:
    """Return whether `x` is a tensor in the memory of a CUDA device."""
    return bool(getattr(x, "is_cuda", False)) and torch_of(x) is not None


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


def from_device(tensor: Any, view: memoryview) -> Flaws:
    """Turn a tensor into bytes on its own device and copy those over; wait until they have arrived."""
    torch = sys.modules["torch"]
    tensor = tensor.detach().resolve_neg()  # as imaginary parts have it
    bfloat = tensor.dtype == torch.bfloat16
    try:
        odd = _quantize_there(tensor, view)
    except torch.cuda.OutOfMemoryError:
        # Models fill the memory of a GPU to the brim: then the floats come over, piece by piece, to be
        # turned here.
        odd = False
        target = np.frombuffer(view, np.uint8).reshape(tensor.shape)
        for piece, place in _pieces(tensor, target):
            odd |= from_array(array_of(piece.cpu()), place, bfloat=bfloat)
    finally:
        if tensor.is_cuda:  # nothing may still be writing into a slot that the caller gives back
            torch.cuda.current_stream(tensor.device).synchronize()
    return inspected(array_of(tensor.cpu()), bfloat, limited=True) if odd else {}


def _quantize_there(tensor: Any, view: memoryview) -> bool:
    """Queue the work for a device and return whether a value needs a closer look, as `from_array` does.

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
        for block in blocks(tuple(tensor.shape), _DEVICE_BLOCK):
            yield tensor[block], target[block]
