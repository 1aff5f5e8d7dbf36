"""The feed of a farm with its dashboard: how it starts, what pages may do, and how a browser is let in."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

from luna_farm import system
from luna_farm.catalogue import rows
from luna_farm.catalogue.search import Catalogue
from luna_farm.config import FEED_OFF, Config, is_loopback
from luna_farm.core import events, protocol
from luna_farm.errors import NotPossible
from luna_farm.feed.gallery import Gallery
from luna_farm.feed.metrics import Metrics
from luna_farm.feed.requests import Act
from luna_farm.feed.server import Feed
from luna_farm.feed.sessions import LINK_S
from luna_farm.storage import thumbnails
from luna_farm.storage.thumbnails import Thumbnails
from luna_farm.supervisor.executor import INTERNAL

Ask = Callable[[Callable[[int], events.Event]], Awaitable[dict[str, Any]]]
"""Has the core handle the event that is made with the number of a reply, and returns the answer."""


class Dashboard:
    """The feed of one farm. `ask` takes the actions of its pages, `status` tells what they show."""

    def __init__(
        self, config: Config, ask: Ask, status: Callable[[], dict[str, Any]], token: str, viewers: int
    ) -> None:
        self._config = config
        self._ask = ask
        self._status = status
        self._token = token
        self._viewers = viewers
        self.feed: Feed | None = None
        """Known while it listens."""
        self.problem = ""
        """Why it does not, though it should."""

    async def start(self, metrics: Metrics, tls: ssl.SSLContext | None) -> None:
        """Listen on the feed port, unless it is off."""
        config = self._config
        if config.feed_port == FEED_OFF:
            return
        feed = Feed(
            config.feed_port,
            config.host,
            self._status,
            self._act,
            self._token,
            metrics,
            tls=tls,
            max_connections=self._viewers,
            gallery=self._gallery(),
        )
        try:
            await feed.start()
        except OSError as error:
            why = system.why_not_listening(error) or error.strerror or str(error)
            self.problem = f"Feed port {config.feed_port} cannot be used ({why}): no dashboard, no metrics."
        else:
            self.feed = feed

    def login_link(self) -> dict[str, Any]:
        """What lets a browser into the dashboard, once. Raises NotPossible without a feed."""
        if self.feed is None:
            why = self.problem or "This farm has no dashboard: its feed port is off."
            raise NotPossible(f"{why} Restart the farm with a free --feed-port.")
        tls = self._config.tls_cert is not None
        return {
            "login": self.feed.sessions.link(),
            "feed_port": self.feed.port,
            "tls": tls,
            "expires_s": LINK_S,
        }

    async def _act(self, action: Act) -> dict[str, Any]:
        """Carry out an action of a page, as if a client had asked for it."""

        def event(reply: int) -> events.Event:
            if action.name in ("pause", "resume"):
                return events.PauseRequested(INTERNAL, reply, action.name == "pause")
            command = cast(events.JobCommand, action.name)
            return events.JobRequested(INTERNAL, reply, command, action.job_id, index=action.index)

        return dict(protocol.check(await self._ask(event)))

    def _gallery(self) -> Gallery | None:
        config = self._config
        if not config.catalogue:
            return None
        catalogue = Catalogue(config.state_dir / rows.NAME)
        kept = Thumbnails(config.state_dir / thumbnails.NAME, config.thumbnail_bytes)
        return Gallery(catalogue, kept, can_open=is_loopback(config.host))
