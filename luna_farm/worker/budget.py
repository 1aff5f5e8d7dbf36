"""A bound on the pixels that are on their way to workers elsewhere."""

from __future__ import annotations

import threading


class Budget:
    """`limit` bytes, taken by many threads, each for an owner. One that is larger than all passes alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken: dict[int, int] = {}
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return sum(self._taken.values())

    def take(self, owner: int, size: int) -> bool:
        """Wait until there is room, and take it; False if the owner has left meanwhile."""
        with self._changed:
            self._taken.setdefault(owner, 0)
            while self.used and self.used + size > self.limit:
                self._changed.wait()
                if owner not in self._taken:
                    return False
            self._taken[owner] += size
        return True

    def give(self, owner: int, size: int) -> None:
        """Give back what an owner took."""
        with self._changed:
            if owner in self._taken:
                self._taken[owner] -= size
            self._changed.notify_all()

    def leave(self, owner: int) -> None:
        """Give back all that an owner took; it takes nothing any more."""
        with self._changed:
            self._taken.pop(owner, None)
            self._changed.notify_all()
