"""Looks at the marks of images whose receipt was sent before they were sealed (`core/early.py`).

Their clients send no seal: a message would wake this process, often in the place of the very thread that has
just finished copying. So this process looks by itself: once that thread is gone, then less and less often,
before it takes any message of a client, and when a client is gone. Must never give up a mark but for a client
that is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from luna_farm.core import events
from luna_farm.core.open_submits import OpenSubmit
from luna_farm.core.schema import Part
from luna_farm.core.state import Farm
from luna_farm.errors import ArenaError
from luna_farm.storage.arena import Segments
from luna_farm.storage.marks import MARK_BYTES, Mark

FIRST_S, LONGEST_S = 0.005, 0.02
"""Pauses between two looks while a client copies. The first is longer than the copy of a large image: to
look, and to hand it on, takes a processor for half a millisecond, perhaps the one that copies."""


class Shell(Protocol):
    """What this needs of the supervisor."""

    farm: Farm

    @property
    def segments(self) -> Segments:
        """The segments that this process has mapped."""

    def handle_event(self, event: events.Event) -> None:
        """Have the core handle an event and execute what it decides."""


class Marked:
    """The open submits whose clients may have said by marks that their images are complete."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._timer: asyncio.TimerHandle | None = None

    def expect(self) -> None:
        """A submit was taken: look after it, if it is one of these."""
        if self._timer is None and self._some():
            self._in(FIRST_S)

    def _some(self) -> bool:
        """Whether there is a submit that names its leases. Its receipt may not be sent yet, or never be sent
        before its seal."""
        return any(opened.submit.into for opened in self._shell.farm.submitting.values())

    def _in(self, pause_s: float) -> None:
        again = min(2 * pause_s, LONGEST_S)
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._look_again, again)

    def _look_again(self, pause_s: float) -> None:
        self._timer = None
        self.look()
        if self._some():
            self._in(pause_s)

    @property
    def expects(self) -> bool:
        """Whether there may be such submits."""
        return self._timer is not None

    def look(self) -> None:
        """Have the images counted whose clients are done."""
        for opened in list(self._shell.farm.submitting.values()):
            if _is_early(opened):
                self._ask(opened, lambda mark: mark.flaws)

    def give_up(self, client: int) -> None:
        """A client is gone: what it was still copying is given up."""
        opened = self._shell.farm.submitting.get(client)
        if opened is not None and _is_early(opened):
            self._ask(opened, Mark.give_up)

    def _ask(self, opened: OpenSubmit, ask: Callable[[Mark], int | None]) -> None:
        """Have the images of a submit sealed if every mark says that they are complete."""
        images = opened.job.images if opened.job is not None else []
        parts = []
        for image in images:
            lease, at = image.task.mark
            try:
                found = ask(Mark(self._shell.segments.view(image.task.segment, at, MARK_BYTES), lease))
            except ArenaError:  # its segment was removed, and with it its pixels
                found = None
            if found is not None:
                parts.append(Part(lease, 1, (found,) if found else ()))
        if len(parts) == len(images):
            self._shell.handle_event(events.Sealed(opened.client, opened.reply, tuple(parts), time.time_ns()))


def _is_early(opened: OpenSubmit) -> bool:
    """Whether its images are not sealed yet, and its marks say when they are."""
    return opened.job is not None and opened.job.early and not opened.complete
