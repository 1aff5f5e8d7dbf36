"""A number with its noun, as a person writes it."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return `1 image`, `2 images`, `1,200 images`; `noun` is one that takes an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
