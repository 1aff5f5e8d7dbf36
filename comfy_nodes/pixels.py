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
    """Return `image` [B,H,W,3 or 4] float 0..1 as RGBA, transparent where `mask` [B,H,W] or [H,W] is 1.

    As ComfyUI's JoinImageWithAlpha has it: alpha is the inverse of the mask, and a mask of another size is
    resized. A mask is repeated for the images that it has none for. Alpha of the image is replaced.
    """
    import torch

    height, width = image.shape[1:3]
    alpha = 1.0 - mask.reshape(-1, *mask.shape[-2:]).to(image)
    if alpha.shape[1:] != (height, width):
        alpha = torch.nn.functional.interpolate(alpha[:, None], (height, width), mode="bilinear")[:, 0]
    count = len(image)
    alpha = alpha.repeat(-(-count // len(alpha)), 1, 1)[:count]
    return torch.cat((image[..., :3].expand(*image.shape[:3], 3), alpha[..., None]), dim=-1)
