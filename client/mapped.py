"""The farm's memory as this process has it mapped: attached once, and page-locked for the GPU once it is
wanted.

A GPU writes straight into page-locked memory, two to three times as fast as into other memory. Locking an
arena takes some tenths of a second, so it happens in a thread, while images go the slower way. This module
must never unmap memory that is still locked: the driver would go on writing to it.
"""

from __future__ import annotations

import threading
import time

from luna_farm.storage.arena import Arena, Segments
from luna_farm_client.device import is_on_gpu, register_cuda, unregister_cuda

CLAIM_S, CLAIM_POLL_S = 30.0, 0.05
"""How long the farm may take to have all memory of the arena there, and how often that is looked at."""


class MappedSegments(Segments):
    """The segments of one client. `lock_pages` is for those that GPU tensors are copied into."""

    def __init__(self) -> None:
        super().__init__()
        self._locking = threading.Lock()
        self._locked: dict[str, memoryview | None] = {}
        """Views of the arenas that were locked; None: being locked, or not to be had."""

    def about_to_fill(self, arena: Arena, pixels: object) -> None:
        """Have an arena page-locked from the first GPU tensor on that is copied into it."""
        if arena.name not in self._locked and is_on_gpu(pixels):
            self._locked[arena.name] = None
            threading.Thread(target=self._lock_pages, args=(arena,), name="page-lock", daemon=True).start()

    def _lock_pages(self, arena: Arena) -> None:
        # A GPU goes on writing to a page that was given back: first all of them must be there, for good.
        arena.claim()
        until = time.monotonic() + CLAIM_S
        while arena.reserved < arena.size:
            if time.monotonic() > until or arena.name not in self._locked:
                return  # no room for it: images go the slower way
            time.sleep(CLAIM_POLL_S)
        with self._locking:
            if arena.name in self._locked:  # not forgotten in the meantime
                view = arena.view(0, arena.size)
                arena.warm()
                if register_cuda(view):
                    self._locked[arena.name] = view

    def forget(self, segment: str) -> None:
        """Unlock and close a segment."""
        with self._locking:
            view = self._locked.pop(segment, None)
            if view is not None:
                unregister_cuda(view)
        super().forget(segment)
