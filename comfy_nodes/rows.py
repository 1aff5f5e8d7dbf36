"""Rows: the images of a node, each with its affix, format and subfolder. A Luna Image Stack hands its rows on
to a saver, which so takes any number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import pixels, widgets

IMAGES = tuple(f"image_{n}" for n in widgets.SLOTS)
"""The inputs of a node for images."""


@dataclass(frozen=True, slots=True)
class Row:
    """`image`: a tensor [B,H,W,C] or [H,W,C]. The rest: as the widgets of the same names."""

    image: Any
    affix: str
    format: str
    subdir: bool


def own(inputs: Mapping[str, Any], affixes: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of a node whose image is connected. `affixes`: of inputs that a prompt leaves out."""
    return tuple(
        Row(
            inputs[name],
            inputs.get(f"affix_{n}", affix),
            inputs.get(f"format_{n}", "png"),
            inputs.get(f"subdir_{n}", True),
        )
        for n, name, affix in zip(widgets.SLOTS, IMAGES, affixes, strict=True)
        if inputs.get(name) is not None
    )


def of_saver(inputs: Mapping[str, Any]) -> list[Row]:
    """Return what a saver saves: its own images, then those of its stack, with its mask as alpha. Raises
    ValueError for a stack or a mask that is none."""
    stack = inputs.get("stack")
    stack = () if stack is None else stack
    if not isinstance(stack, tuple) or not all(isinstance(row, Row) for row in stack):
        raise ValueError(
            f"stack: a value of type {type(stack).__name__} is not allowed; connect a Luna Image Stack."
        )
    found = [*own(inputs, widgets.AFFIXES), *stack]
    mask = inputs.get("mask")
    if mask is None:
        return found
    return [replace(row, image=pixels.with_alpha(row.image, mask)) for row in found]


def of_stack(inputs: Mapping[str, Any]) -> tuple[Row, ...]:
    """Return the rows of the stack that is connected to a stack, then its own."""
    return (*(inputs.get("stack") or ()), *own(inputs, widgets.STACK_AFFIXES))
