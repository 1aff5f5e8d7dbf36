"""What a session leases, seals and sends together: images into windows, windows into seals, requests into one
message. Pure."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from luna_farm.core.schema import ALIGNMENT, MOST_TOGETHER, aligned
from luna_farm_client.conversion import Flaws
from luna_farm_client.outgoing import Outgoing, Piece

SEAL_BYTES = 32 * 2**20
"""After so many bytes a seal is sent, so that workers begin while the next images are copied. With 8 MiB the
hand-over of five images of 1024x1024 took 1.8 times as long on two cores, since the workers compete with the
copy."""
WINDOW_SHARE = 4
"""1 / WINDOW_SHARE of the arena is what one submit leases at a time."""
WINDOW_LEASES = 256
TEXTS_TOGETHER = 8 * 2**20
"""Bytes of metadata of the requests in one message: half of what a frame holds."""


def together(outs: Sequence[Outgoing], most: int) -> int:
    """Return how many of the requests, from the first on, go into one message and `most` bytes of memory."""
    size = texts = 0
    for count, out in enumerate(outs):
        size += out.nbytes + ALIGNMENT * len(out.infos)
        texts += out.text_bytes
        if count >= MOST_TOGETHER or size > most or texts > TEXTS_TOGETHER or out.moving:
            return count
    return len(outs)


def layout(outs: Sequence[Outgoing]) -> tuple[list[int], int]:
    """Return where the images of each batch begin in a slot that all share, and the size of it."""
    offsets, at = [], 0
    for out in outs:
        for info in out.infos:
            offsets.append(aligned(at))
            at = offsets[-1] + info.nbytes
    return offsets, at


def windows_of(pieces: Sequence[Piece], arena_bytes: int) -> Generator[list[Piece], None, None]:
    """Group pieces into what is leased together."""
    window: list[Piece] = []
    size = 0
    for piece in pieces:
        if window and (size + piece.nbytes > arena_bytes // WINDOW_SHARE or len(window) >= WINDOW_LEASES):
            yield window
            window, size = [], 0
        window.append(piece)
        size += piece.nbytes
    yield window


def sealed_together(pieces: Sequence[Piece]) -> Generator[list[Piece], None, None]:
    """Group pieces into what one seal says is complete."""
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += piece.nbytes
        if size >= SEAL_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def counts(piece: Piece, found: Flaws) -> list[list[int]]:
    """Return how many values of each image are flawed, nothing where none is. Frames are one image."""
    if not found:
        return []
    if piece.images == 1:
        return [[sum(found.values())]]
    return [[found.get(index, 0) for index in range(piece.images)]]
