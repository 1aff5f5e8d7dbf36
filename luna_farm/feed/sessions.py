"""Who was let into the dashboard: links that work once, and the sessions that they or the token open.

A browser keeps a session, never the farm's token. Nothing here outlives the farm. This module must never
show a link or a session but to the one who is to have it.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")
LINK_S = 60.0
"""How long a link works."""
MAX_LINKS = 16
MAX_SESSIONS = 64
"""The oldest gives way."""


class Sessions:
    """Links and sessions of one farm. `now`: monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._links: dict[str, float] = {}
        self._sessions: dict[str, None] = {}

    def link(self) -> str:
        """Return the secret of a new link."""
        return _added(self._links, self._now() + LINK_S, MAX_LINKS)

    def follow(self, link: str) -> str:
        """Use up a link; return a new session, or "" for a link that is not known, was used or is too old."""
        found = [known for known in self._links if _same(known, link)]
        until = self._links.pop(found[0]) if found else 0.0
        return self.open() if self._now() < until else ""

    def open(self) -> str:
        """Return a new session."""
        return _added(self._sessions, None, MAX_SESSIONS)

    def knows(self, session: str) -> bool:
        """Tell whether this is an open session; compares with all of them, in constant time."""
        return sum(_same(known, session) for known in self._sessions) > 0


def _added(kept: dict[str, _Value], value: _Value, limit: int) -> str:
    secret = secrets.token_urlsafe(32)
    kept[secret] = value
    if len(kept) > limit:
        del kept[next(iter(kept))]
    return secret


def _same(known: str, given: str) -> bool:
    return hmac.compare_digest(known.encode(), given.encode("utf-8", "surrogatepass"))
