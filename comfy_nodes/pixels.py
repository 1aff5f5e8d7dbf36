"""Tensors before they are handed over: a mask becomes alpha, a batch becomes single images.

torch is imported when it is used, and only where a tensor came in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def one_by_one(batch: Any) -> Iterator[Any]:
    """Yield the images of a batch [B,H,W,C] one by one, without a copy; an image [H,W,C] as it is."""
    if getattr(batch, "ndim", 0) == 4:
        yield from batch
    else:
        yield batch


def with_alpha(image: Any, mask: Any) -> Any:
    """Return `image` as RGBA [B,H,W,4], transparent where `mask` is 1.

    image: [B,H,W,C], [H,W,C] or [H,W]. mask: [B,H,W] or [H,W].

    As ComfyUI's JoinImageWithAlpha has it: alpha is the inverse of the mask, and a mask of another size is
    resized. A mask is repeated for the images that it has none for. Alpha of the image is replaced. What is
    no image is returned as it is: the client says what is wrong with it. Raises ValueError for what is no
    mask.
    """
    import torch

    shape = tuple(getattr(image, "shape", ()))
    if len(shape) == 2:
        image, shape = image[..., None], (*shape, 1)
    if len(shape) not in (3, 4) or shape[-1] not in (1, 2, 3, 4):
        return image
    size = tuple(getattr(mask, "shape", ()))
    if not 2 <= len(size) <= 4 or (len(size) == 4 and size[1] != 1) or 0 in size:
        given = f"one of shape {list(size)}" if size else f"a value of type {type(mask).__name__}"
        raise ValueError(f"mask: {given} is not allowed; allowed: [H, W] or [B, H, W], at least one mask.")
    batch = torch.as_tensor(image).reshape(-1, *shape[-3:])
    count, height, width, channels = batch.shape
    alpha = 1.0 - torch.as_tensor(mask).reshape(-1, *size[-2:]).to(batch.device, torch.float32)
    if alpha.shape[1:] != (height, width):
        alpha = torch.nn.functional.interpolate(alpha[:, None], (height, width), mode="bilinear")[:, 0]
    alpha = alpha.repeat(-(-count // len(alpha)), 1, 1)[:count, ..., None]
    full = _FULL.get(str(batch.dtype))
    if full:  # integers, of other packages
        alpha = (alpha.nan_to_num(0).clamp(0, 1) * full + 0.5).floor()
    colours = batch[..., : 1 if channels < 3 else 3].expand(count, height, width, 3)
    return torch.cat((colours, alpha.to(batch.dtype)), dim=-1)


_FULL = {"torch.uint8": 255, "torch.uint16": 65_535}
"""What full alpha is, by dtype; 1 for floats."""
