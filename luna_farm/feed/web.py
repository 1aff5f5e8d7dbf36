"""What the feed port says to plain HTTP: the dashboard, health, metrics and the status.

A path is one of a handful or it is refused; the dashboard's files are read once, at start. This module must
never open a file for a request, nor put anything of a request into a path.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from luna_farm import DOCUMENTATION
from luna_farm.errors import FarmError, InvalidRequest, NotPossible
from luna_farm.feed.auth import FeedAuth
from luna_farm.feed.gallery import Gallery
from luna_farm.feed.metrics import FeedFacts, Metrics

log = logging.getLogger("luna_farm.feed")

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
_WORKING_STATES = frozenset({"idle", "busy"})
# The answer to a request without a token; none is in it.
_NEEDS_TOKEN = (
    f"Another user or machine needs the farm's token: Authorization: Bearer TOKEN ({DOCUMENTATION}feed/)."
)
WRONG_TOKEN = "The token is not that of the running farm. It is new after every start."  # noqa: S105  a sentence
_USED_LINK = "This link was used already, or is older than a minute. `luna-farm dashboard` makes a new one."
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "gallery.html": "text/html; charset=utf-8",
    "gallery.js": "text/javascript; charset=utf-8",
    "gallery_grid.js": "text/javascript; charset=utf-8",
    "gallery_preview.js": "text/javascript; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "link.js": "text/javascript; charset=utf-8",
    "login.js": "text/javascript; charset=utf-8",
    "results.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_PAGES = {"index.html": "/", "gallery.html": "/gallery"}
_STYLE_LINK = re.compile(rb'<link rel="stylesheet" href="/([a-z_]+\.css)">')
# Nothing from elsewhere, nothing inline but our own style, no string ever becomes script, no page frames the
# page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types"
)
_PAGE_HEADERS = (
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
)
_DATA_HEADERS = (
    ("Content-Security-Policy", "default-src 'none'; sandbox"),
    ("Content-Disposition", "attachment"),
)
_ALL_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Connection", "close"),
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the dashboard, in memory."""

    body: bytes
    content_type: str
    etag: str
    policy: str


def load_assets() -> Mapping[str, Asset]:
    """Read the dashboard's files; return them by the path under which they are served ("/" is the page).

    Styles go into the page: fewer requests before the first paint. The policy names them by their hashes.
    """
    folder = resources.files("luna_farm.feed.dashboard")
    assets = {}
    for name, content_type in _TYPES.items():
        digests: list[str] = []

        def style(link: re.Match[bytes], digests: list[str] = digests) -> bytes:
            text = folder.joinpath(link[1].decode()).read_bytes()
            digests.append(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'")
            return b"<style>" + text + b"</style>"

        body = _STYLE_LINK.sub(style, folder.joinpath(name).read_bytes())
        policy = _POLICY.format(styles=" ".join(digests) or "'none'")
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        assets[_PAGES.get(name, f"/{name}")] = Asset(body, content_type, etag, policy)
    return assets


def respond(status: int, body: bytes, content_type: str, extra: Iterable[tuple[str, str]] = ()) -> Response:
    """Build a response that no browser guesses about and no cache keeps, unless `extra` says so."""
    headers = Headers([*_ALL_HEADERS, ("Content-Type", content_type), ("Content-Length", str(len(body)))])
    for name, value in extra:
        headers[name] = value
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    return Response(status, http.HTTPStatus(status).phrase, headers, body)


def refuse(status: int, sentence: str, extra: Iterable[tuple[str, str]] = ()) -> Response:
    """Build a refusal in one plain sentence."""
    return respond(status, sentence.encode() + b"\n", TEXT, extra)


def page(asset: Asset, if_none_match: str) -> Response:
    """Serve one file of the dashboard: kept by the browser, but asked for again, so that an upgrade shows at
    once."""
    extra = [*_PAGE_HEADERS, ("ETag", asset.etag), ("Cache-Control", "no-cache")]
    extra.append(("Content-Security-Policy", asset.policy))
    if asset.etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(",")):
        return respond(304, b"", asset.content_type, extra)
    return respond(200, asset.body, asset.content_type, extra)


def not_ready(status: Mapping[str, Any]) -> str:
    """Return why a farm of this status accepts no jobs, "" if it does. A full queue is busy, not unready."""
    if not status.get("running"):
        return "the farm is starting or has stopped"
    if status.get("draining"):
        return "the farm is draining"
    if not any(worker.get("state") in _WORKING_STATES for worker in status.get("workers", ())):
        return "no worker is ready"
    return ""


class Site:
    """Answers every plain request. `current` returns the status, `subscribers` and `dropped` what the feed
    counts."""

    def __init__(
        self,
        current: Callable[[], dict[str, Any]],
        metrics: Metrics,
        counts: Callable[[], tuple[int, int]],
        gallery: Gallery | None,
    ):
        self._gallery = gallery
        self._current = current
        self._metrics = metrics
        self._counts = counts
        self._assets = load_assets()

    def answer(
        self, auth: FeedAuth, connection: ServerConnection, request: Request
    ) -> Response | Awaitable[Response] | None:
        """Answer one request, now or later; None: it wants the WebSocket at / and may have it. Never
        raises."""
        # websockets below 17 parses GET only, and has no attribute for it.
        method = getattr(request, "method", "GET")
        try:
            response = self._judge(auth, connection, request, method)
        except Exception:
            log.exception("A request to the feed failed.")
            response = refuse(500, "The farm could not answer; its log says why.")
        if isinstance(response, Response) and method == "HEAD":
            response.body = b""  # Content-Length stays what GET would bring
        return response

    def _judge(
        self, auth: FeedAuth, connection: ServerConnection, request: Request, method: str
    ) -> Response | Awaitable[Response] | None:
        refusal = auth.refusal(request.headers)
        if refusal:
            return refuse(403, refusal)
        if method not in ("GET", "HEAD"):
            return refuse(
                405,
                f"Only GET: actions travel over the WebSocket ({DOCUMENTATION}feed/).",
                [("Allow", "GET, HEAD")],
            )
        path, _, query = request.path.partition("?")
        if path == "/api/login":
            return _login(auth, request.headers)
        upgrade = "Upgrade" in request.headers
        of_gallery = self._gallery is not None and self._gallery.has(path)
        if of_gallery or path == "/api/status" or (path == "/" and upgrade):
            # Paths and images are for the farm's own user, and for requests with the token.
            if not auth.brings_token(request.headers) and not auth.is_own_user(connection):
                return refuse(401, _NEEDS_TOKEN, [("WWW-Authenticate", "Bearer")])
            if of_gallery:
                return self._of_gallery(path, query, method)
            return None if path == "/" else _json(200, self._current())
        return self._public(path, request.headers)

    async def _of_gallery(self, path: str, query: str, method: str) -> Response:
        """Answer what the gallery asks for: read in a thread, and never run as a page."""
        gallery = self._gallery
        assert gallery is not None, "its paths are known"
        loop = asyncio.get_running_loop()
        try:
            body, kind = await loop.run_in_executor(gallery.threads, gallery.answer, path, query)
        except InvalidRequest as error:
            return refuse(400, str(error))
        except FarmError as error:
            return refuse(404 if isinstance(error, NotPossible) else 503, str(error))
        except Exception:
            log.exception("A request of the gallery failed.")
            return refuse(500, "The farm could not answer; its log says why.")
        response = respond(200, body, kind, _DATA_HEADERS)
        if method == "HEAD":
            response.body = b""
        return response

    def _public(self, path: str, headers: Headers) -> Response:
        """Answer what any user of this machine may ask: it names no path, no image and no job."""
        asset = self._assets.get(path)
        if asset is not None:
            return page(asset, ", ".join(headers.get_all("If-None-Match")))
        if path == "/healthz":  # the loop that answers is the loop that works
            return _json(200, {"alive": True})
        if path == "/readyz":
            reason = not_ready(self._current())
            return _json(503 if reason else 200, {"ready": not reason, "reason": reason})
        if path == "/metrics":
            status = self._current()
            subscribers, dropped = self._counts()
            facts = FeedFacts(not not_ready(status), subscribers, dropped)
            body, content_type = self._metrics.render(status, facts, ", ".join(headers.get_all("Accept")))
            return respond(200, body, content_type)
        return refuse(404, "There is nothing here. The dashboard is at /.")


def _login(auth: FeedAuth, headers: Headers) -> Response:
    """Open a session. It takes the token or a link even from the farm's own user, who may read without."""
    session = auth.login(headers)
    if session:
        return _json(200, {"session": session})
    given = ", ".join(headers.get_all("Authorization")).lower()
    sentence = _USED_LINK if given.startswith("login ") else WRONG_TOKEN
    return refuse(401, sentence, [("WWW-Authenticate", "Bearer")])


def _json(status: int, value: Mapping[str, Any]) -> Response:
    return respond(status, json.dumps(value).encode() + b"\n", JSON)
