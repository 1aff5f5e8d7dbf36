"""The part of Google Cloud Storage's XML API that a destination uses: `gcs_server.py PORT`.

As Google documents it (Cloud Storage, XML API reference, "PUT Object" and "Reference headers"): an object is
stored by PUT, with `x-goog-if-generation-match: 0` only if there is none (else 412); `x-goog-meta-*` headers
are its metadata; the ETag is its MD5 in quotes. No emulator has all of it: gcp-storage-emulator 2026.7
ignores the condition, fake-gcs-server refuses the PUT, Google's storage-testbench 0.45 sends no ETag and
keeps no metadata.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

OBJECTS: dict[str, tuple[bytes, dict[str, str]]] = {}
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) < int(self.headers["Content-Length"]):
            return None  # the connection broke in the middle
        kept = {n.lower(): v for n, v in self.headers.items() if n.lower().startswith("x-goog-meta-")}
        kept |= {"Content-Type": self.headers.get("Content-Type", "")}
        kept |= {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "x-goog-generation": "1"}
        with LOCK:
            if self.headers.get("x-goog-if-generation-match") == "0" and self._key in OBJECTS:
                return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            OBJECTS[self._key] = body, kept
        return self._answer(200, b"", kept)

    def do_GET(self) -> None:
        if urlsplit(self.path).query.startswith("list-type") or self._key.count("/") == 1:
            return self._list()
        if self._key not in OBJECTS:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        body, kept = OBJECTS[self._key]
        return self._answer(200, body, kept)

    do_HEAD = do_GET  # noqa: N815  the name that the base class looks for

    def do_DELETE(self) -> None:
        OBJECTS.pop(self._key, None)
        self._answer(204, b"")

    def _list(self) -> None:
        bucket = self._key.split("/")[1]
        prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
        rows = "".join(
            f"<Contents><Key>{escape(key[len(bucket) + 2 :])}</Key><Size>{len(body)}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{kept['ETag']}</ETag></Contents>"
            for key, (body, kept) in sorted(OBJECTS.items())
            if key.startswith(f"/{bucket}/{prefix}")
        )
        self._answer(200, f"<ListBucketResult>{rows}</ListBucketResult>".encode())

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Last-Modified": formatdate(usegmt=True), **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
