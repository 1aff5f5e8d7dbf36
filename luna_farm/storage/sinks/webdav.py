"""WebDAV by `httpx`: PUT under a temporary name, GET to compare, MOVE with `Overwrite: F` (RFC 4918, section
9.9), which the server refuses with 412 if something is there.
"""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from luna_farm.locations import Location
from luna_farm.storage.sinks.files import CHUNK_BYTES
from luna_farm.storage.sinks.refusals import check_files, of_exception, of_status, refusal
from luna_farm.storage.sinks.sink import SinkError, limit_s

ANSWERS = (200, 201, 204, 207)


class WebdavServer:
    """A WebDAV server as `files.FileServer` wants it."""

    def __init__(self, location: Location, options: Mapping[str, Any]) -> None:
        self.place = location.base
        self._url = f"{location.scheme.removeprefix('webdav+')}://{location.host}"
        self._options = options
        self._timeout_s = float(options.get("timeout", 30.0))
        self._client: Any = None

    def size(self, path: str) -> int | None:
        """Size of what is there, None if nothing is."""
        response = self._send("HEAD", path, allowed=(*ANSWERS, 404, 405))
        if response.status_code == 404:
            return None
        return int(response.headers.get("content-length", 0))

    def make_folder(self, path: str) -> None:
        """Make one folder; 405 says that it is there."""
        self._send("MKCOL", path + "/", allowed=(*ANSWERS, 405))

    def write(self, path: str, body: memoryview) -> None:
        """Write a whole file."""
        blocks = (bytes(body[at : at + CHUNK_BYTES]) for at in range(0, len(body), CHUNK_BYTES))
        # The server answers once it has everything, and most may still be in buffers on the way.
        seconds = limit_s(self._timeout_s, len(body))
        self._send("PUT", path, content=blocks, headers={"Content-Length": str(len(body))}, timeout=seconds)

    def read(self, path: str) -> Iterator[bytes]:
        """Read a file in blocks."""
        try:
            with self._open().stream("GET", self._url + quote(path)) as response:
                self._check(response, ANSWERS)
                yield from response.iter_bytes(CHUNK_BYTES)
        except SinkError:
            raise
        except Exception as error:
            raise refusal(self.place, self._kind_of(error)) from None

    def rename(self, source: str, target: str) -> None:
        """Move without replacing."""
        headers = {"Destination": self._url + quote(target), "Overwrite": "F"}
        self._send("MOVE", source, headers=headers)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._send("DELETE", path, allowed=(*ANSWERS, 404))

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> Any:
        import httpx

        if self._client is None:
            options = self._options
            check_files(self.place, options)
            user, password = str(options.get("user", "")), str(options.get("password", ""))
            context = ssl.create_default_context(cafile=options.get("ca_file"))
            # The limit of httpx counts for each read and write, not for the whole request.
            self._client = httpx.Client(
                auth=(user, password) if user else None,
                verify=context,
                timeout=self._timeout_s,
            )
        return self._client

    def _send(self, method: str, path: str, *, allowed: tuple[int, ...] = ANSWERS, **given: Any) -> Any:
        try:
            response = self._open().request(method, self._url + quote(path), **given)
        except SinkError:
            raise
        except Exception as error:
            raise refusal(self.place, self._kind_of(error)) from None
        self._check(response, allowed)
        return response

    def _check(self, response: Any, allowed: tuple[int, ...]) -> None:
        status = response.status_code
        if status not in allowed:
            kind = "missing" if status == 409 else of_status(status)  # 409: a folder above is missing
            wait_s = _seconds(response.headers.get("retry-after", ""))
            raise refusal(self.place, kind, f"HTTP {status}", wait_s)

    def _kind_of(self, error: Exception) -> str:
        import httpx

        if isinstance(error, httpx.TimeoutException):
            return "timeout"
        found = of_exception(error)
        if found == "other" and isinstance(error, httpx.TransportError):
            return "reset"
        return found


def _seconds(retry_after: str) -> float:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110, section 10.2.3)."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
