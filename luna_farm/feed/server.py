"""The status feed: every event and the status, to all who may see them, over WebSocket and HTTP on one
port.

Each message is encoded once, as the very frame that goes out; the frames of a window go to every subscriber
in one write. Without a connection there is no timer and no status is computed. This module must never make
the farm wait: `publish` only appends, and a subscriber that reads too slowly is dropped. It takes no decision
about jobs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from luna_farm import system
from luna_farm.errors import FarmBusy, FarmError, InvalidRequest
from luna_farm.feed import requests, web
from luna_farm.feed.actions import Action, Actions
from luna_farm.feed.auth import FeedAuth, choose_subprotocol
from luna_farm.feed.gallery import Gallery
from luna_farm.feed.history import History, Published
from luna_farm.feed.metrics import Metrics
from luna_farm.feed.sessions import Sessions
from luna_farm.feed.subscriber import (
    CLOSE_S,
    KERNEL_BYTES,
    Subscriber,
    event_frame,
    frame,
    guest_type,
    utc_text,
)

log = logging.getLogger("luna_farm.feed")

WINDOW_S = 0.05
WRITES_PER_S = 500
"""With many subscribers the window grows, so that sending never takes more than a few percent of the farm's
loop."""
STATUS_EVERY_S = 1.0
STATUS_FRESH_S = 0.1
THUMBNAILS_PER_S = 4
MAX_SUBSCRIBERS = 128
MAX_CONNECTIONS = 256
BACKLOG = 128
"""Connections that the system lets wait to be accepted."""
OPEN_TIMEOUT_S = 5.0

Status = Callable[[], dict[str, Any]]


class Feed:
    """Serves subscribers, dashboard, health and metrics of one farm.

    `status` returns the status as a dict (docs/feed.md) within a few milliseconds; `action` carries out an
    `Act` and raises FarmError; `token` is what actions need, and readers of other users or machines. `tls` is
    required beyond loopback. `names` are further names that clients use for this machine; `gallery` answers
    for saved images and is closed with the feed; more than `max_connections` at a time are turned away.
    Everything is called in the thread of
    the event loop, `start` first.
    """

    def __init__(
        self,
        port: int,
        host: str,
        status: Status,
        action: Action,
        token: str,
        metrics: Metrics,
        *,
        tls: ssl.SSLContext | None = None,
        names: Iterable[str] = (),
        gallery: Gallery | None = None,
        max_connections: int | None = None,
    ) -> None:
        self._max_connections = MAX_CONNECTIONS if max_connections is None else max_connections
        self.port = port
        self.epoch = secrets.token_hex(4)
        self.dropped = 0
        self.sessions = Sessions(time.monotonic)
        self._host = host
        self._status = status
        self._actions = Actions(action, gallery, lambda given: self._auth.knows(given))
        self._token = token
        self._metrics = metrics
        self._tls = tls
        self._names = tuple(names)
        self._gallery = gallery
        self._site = web.Site(self._current, metrics, lambda: (len(self._subscribers), self.dropped), gallery)
        self._history = History()
        self._pending: list[bytes] = []
        self._subscribers: set[Subscriber] = set()
        self._connections: set[ServerConnection] = set()
        self._thumbnail_times = deque([-math.inf] * THUMBNAILS_PER_S, maxlen=THUMBNAILS_PER_S)
        self._flush_timer: asyncio.TimerHandle | None = None
        self._status_timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._snapshot: tuple[float, dict[str, Any]] = (-math.inf, {})
        self._server: Server | None = None

    # --- the farm's side

    async def start(self) -> None:
        """Listen. Afterwards `port` is the real one. Raises OSError if the port is taken."""
        self._loop = asyncio.get_running_loop()
        # Malformed requests are expected: the library would log a stack for each port scan.
        quiet = logging.getLogger("luna_farm.feed.wire")
        quiet.setLevel(logging.CRITICAL)
        self._server = await serve(
            self._serve_subscriber,
            self._host,
            self.port,
            process_request=self._answer,
            select_subprotocol=choose_subprotocol,
            compression=None,
            server_header=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_S,
            max_size=requests.MAX_BYTES,
            max_queue=4,
            logger=quiet,
            create_connection=guest_type(self._connections, self._max_connections),
            backlog=system.ACCEPT_AT_ONCE,
            ssl=self._tls,
            ssl_handshake_timeout=OPEN_TIMEOUT_S if self._tls else None,
        )
        system.let_wait(self._server.sockets, BACKLOG)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self._auth = FeedAuth.of(
            self._host, self._names, self.port, self._token, self.sessions, tls=self._tls is not None
        )

    def publish(self, event: Mapping[str, Any]) -> None:
        """Count an event and send it to all subscribers within a window. Never blocks and never raises. Adds
        `seq`, and `timestamp` and `job_id` (null: of no job) if they are missing; turns the bytes of a
        `thumbnail` into base64.
        """
        at = time.time()
        try:
            self._metrics.observe(event)
            if not self._subscribers:
                self._history.later(at, event)
                return
            encoded = event_frame(Published(self._history.last + 1, at, event))
        except (TypeError, ValueError, KeyError):
            log.exception("An event could not be sent and is left out: %r", event)
            return
        self._history.add(encoded)
        self._pending.append(encoded)
        if self._flush_timer is None:
            # The first event after a pause goes out at once, those of a burst together.
            window = max(WINDOW_S, len(self._subscribers) / WRITES_PER_S)
            delay = self._flushed_at + window - self._loop.time()
            self._flush_timer = self._loop.call_later(max(0.0, delay), self._flush)

    def wants_thumbnail(self) -> bool:
        """Return whether the next image should bring a thumbnail: a reader looks, and had fewer than four in
        this second."""
        if not self._subscribers or not any(subscriber.thumbnails for subscriber in self._subscribers):
            return False
        now = self._loop.time()
        if now - self._thumbnail_times[0] < 1.0:
            return False
        self._thumbnail_times.append(now)
        return True

    async def close(self) -> None:
        """Send what is pending, close every connection and stop listening; takes at most about
        `CLOSE_S`."""
        if self._server is None:
            return
        self._flush()
        if self._status_timer is not None:
            self._status_timer.cancel()
            self._status_timer = None
        self._server.close()  # with code 1001, "going away"
        # Half-open connections and subscribers that do not read would hold up the end.
        last_call = self._loop.call_later(CLOSE_S, self._abort_all)
        await self._server.wait_closed()
        last_call.cancel()
        self._server = None
        if self._gallery is not None:
            self._gallery.close()

    # --- subscribers

    def _answer(
        self, connection: ServerConnection, request: Request
    ) -> Response | Awaitable[Response] | None:
        """Answer plain HTTP; None lets a WebSocket in."""
        response = self._site.answer(self._auth, connection, request)
        if response is None and len(self._subscribers) >= MAX_SUBSCRIBERS:
            sentence = f"All {MAX_SUBSCRIBERS} places of the feed are taken; try again later."
            return web.refuse(503, sentence, [("Retry-After", "5")])
        return response

    async def _serve_subscriber(self, connection: ServerConnection) -> None:
        request = connection.request
        query = parse_qs(request.path.partition("?")[2], max_num_fields=8) if request is not None else {}
        sock = connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        now = self._loop.time()
        subscriber = Subscriber(connection, thumbnails=query.get("thumbnails") == ["1"], now=now)
        # In one go, without an await: what is pending goes to the others, then this one starts behind it,
        # without a hole.
        self._flush()
        self._history.catch_up(event_frame)
        subscriber.push(self._status_frame())
        if "after" in query:
            try:
                self._replay(subscriber, requests.sequence(query["after"][0]), query.get("epoch", [""])[0])
            except InvalidRequest as error:
                subscriber.push(frame(_error(error)))
        self._subscribers.add(subscriber)
        if self._status_timer is None:
            self._status_timer = self._loop.call_later(STATUS_EVERY_S, self._tick)
        try:
            async for message in connection:
                await self._hear(subscriber, message)
        except ConnectionClosed:
            pass  # however it ended, it ended
        finally:
            self._subscribers.discard(subscriber)

    async def _hear(self, subscriber: Subscriber, message: str | bytes) -> None:
        """Answer one message of a subscriber."""
        if not subscriber.may_ask(self._loop.time()):
            subscriber.drop(CloseCode.POLICY_VIOLATION, "too many requests")
            return
        self._flush()  # an answer never overtakes an event
        try:
            request = requests.parse(message)
        except InvalidRequest as error:
            self._send(subscriber, frame(_error(error)))
            return
        if isinstance(request, requests.GetStatus):
            self._send(subscriber, self._status_frame())
        elif isinstance(request, requests.Resume):
            self._replay(subscriber, request.after, request.epoch)
        else:
            answer = await self._actions.answer(request)
            self._flush()
            self._send(subscriber, frame(answer))

    def _replay(self, subscriber: Subscriber, after: int, epoch: str) -> None:
        """Send the history after `after`; one piece at a time, so that it cannot be asked for faster than it
        is read."""
        # Sequence numbers start again with every farm: those of another one say nothing.
        replayed = self._history.after(after if epoch in ("", self.epoch) else -1)
        header = {
            "type": "resumed",
            "epoch": self.epoch,
            "after": after,
            "first": replayed.first,
            "last": replayed.last,
            "complete": replayed.complete,
        }
        if not subscriber.idle:
            self._send(
                subscriber, frame(_error(FarmBusy("Resume again once the earlier messages have been read.")))
            )
        elif not subscriber.replay(b"".join((frame(header), *replayed.frames))):
            self._drop(subscriber)

    # --- sending

    def _send(self, subscriber: Subscriber, buffer: bytes) -> None:
        if not subscriber.push(buffer):
            self._drop(subscriber)

    def _drop(self, subscriber: Subscriber) -> None:
        if subscriber in self._subscribers:
            self._subscribers.discard(subscriber)
            self.dropped += 1
            subscriber.drop(CloseCode.TRY_AGAIN_LATER, "read too slowly; come back and resume")

    def _flush(self, tail: bytes = b"") -> None:
        """Send what is pending, and `tail` behind it, to every subscriber in one write each."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if not self._pending and not tail:
            return
        buffer = b"".join((*self._pending, tail))
        self._pending.clear()
        self._flushed_at = self._loop.time()
        for subscriber in tuple(self._subscribers):
            self._send(subscriber, buffer)

    def _tick(self) -> None:
        """Send the status, and come back in a second while there are subscribers."""
        self._status_timer = None
        if self._subscribers:
            self._status_timer = self._loop.call_later(STATUS_EVERY_S, self._tick)
            self._flush(self._status_frame())

    def _status_frame(self) -> bytes:
        message = {
            "type": "status",
            "timestamp": utc_text(time.time()),
            "epoch": self.epoch,
            "seq": self._history.last,
            "oldest": self._history.oldest,
            "data": self._current(),
        }
        return frame(message)

    def _current(self) -> dict[str, Any]:
        """Return the status, not asked for more often than `STATUS_FRESH_S` however many want it."""
        taken_at, status = self._snapshot
        now = self._loop.time()
        if now - taken_at >= STATUS_FRESH_S:
            status = self._status()
            self._snapshot = (now, status)
        return status

    def _abort_all(self) -> None:
        for connection in tuple(self._connections):
            connection.transport.abort()


def _error(error: FarmError) -> dict[str, Any]:
    return {"type": "error", "code": error.code, "error": str(error)}
