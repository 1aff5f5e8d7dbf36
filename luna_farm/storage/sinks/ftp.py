"""FTP and FTPS by the standard library's `ftplib`, one connection a sink, used from one thread.

FTP has no way to create a file only if there is none: the name is looked at before the rename, and a file
that another program puts there in that instant is replaced (docs/destinations.md).
"""

from __future__ import annotations

import contextlib
import ftplib
import io
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from luna_farm.locations import Location
from luna_farm.storage.sinks.files import CHUNK_BYTES
from luna_farm.storage.sinks.refusals import check_files, of_exception, refusal
from luna_farm.storage.sinks.sink import SinkError, limit_s

T = TypeVar("T")
PORT = 21


class FtpServer:
    """An FTP server as `files.FileServer` wants it."""

    def __init__(self, location: Location, options: Mapping[str, Any]) -> None:
        self.place = location.base
        self._tls = location.scheme == "ftps"
        self._host, _, port = (
            location.host.rpartition(":") if ":" in location.host else (location.host, "", "")
        )
        self._port = int(port or PORT)
        self._options = options
        self._timeout_s = float(options.get("timeout", 30.0))
        self._ftp: ftplib.FTP | None = None

    def size(self, path: str) -> int | None:
        """Size of a file, 0 for a folder, None if there is nothing."""

        def look(ftp: ftplib.FTP) -> int | None:
            ftp.voidcmd("TYPE I")
            try:
                return int(ftp.size(path) or 0)
            except ftplib.error_perm:  # no file; SIZE of a folder is refused as well
                return 0 if _is_folder(ftp, path) else None

        return self._run(look)

    def make_folder(self, path: str) -> None:
        """Make one folder."""

        def make(ftp: ftplib.FTP) -> None:
            try:
                ftp.mkd(path)
            except ftplib.error_perm:
                if not _is_folder(ftp, path):  # else made by another upload in the meantime
                    raise

        self._run(make)

    def write(self, path: str, body: memoryview) -> None:
        """Write a whole file."""

        def store(ftp: ftplib.FTP) -> None:
            assert ftp.sock is not None, "it is connected"
            # The answer comes once the server has everything, and most may still be in buffers on the way.
            ftp.sock.settimeout(limit_s(self._timeout_s, len(body)))
            ftp.storbinary(f"STOR {path}", _Reader(body), CHUNK_BYTES)
            ftp.sock.settimeout(self._timeout_s)

        self._run(store)

    def read(self, path: str) -> Iterator[bytes]:
        """Read a file in blocks."""
        blocks: list[bytes] = []
        connection = self._run(lambda ftp: ftp.transfercmd(f"RETR {path}"))
        try:
            while block := self._run(lambda _: connection.recv(CHUNK_BYTES)):
                blocks.append(block)
                yield blocks.pop()
        finally:
            connection.close()
        self._run(lambda ftp: ftp.voidresp())

    def rename(self, source: str, target: str) -> None:
        """Rename, unless the target is there now."""
        if self.size(target) is not None:
            raise refusal(self.place, "exists")
        self._run(lambda ftp: ftp.rename(source, target))

    def remove(self, path: str) -> None:
        """Remove a file."""

        def delete(ftp: ftplib.FTP) -> None:
            with contextlib.suppress(ftplib.error_perm):
                ftp.delete(path)

        self._run(delete)

    def close(self) -> None:
        """Close the connection."""
        ftp, self._ftp = self._ftp, None
        if ftp is not None:
            ftp.close()

    def _run(self, work: Callable[[ftplib.FTP], T]) -> T:
        try:
            if self._ftp is None:
                self._ftp = self._connect()
            return work(self._ftp)
        except SinkError:
            raise
        except Exception as error:
            kind, detail = _kind_of(error)
            if kind not in ("missing", "forbidden", "exists", "full", "name"):
                self.close()
            raise refusal(self.place, kind, detail) from None

    def _connect(self) -> ftplib.FTP:
        options = self._options
        check_files(self.place, options)
        if self._tls:
            context = ssl.create_default_context(cafile=options.get("ca_file"))
            ftp: ftplib.FTP = ftplib.FTP_TLS(  # noqa: S321  the user chose this protocol
                context=context, timeout=self._timeout_s, encoding="utf-8"
            )
        else:
            ftp = ftplib.FTP(timeout=self._timeout_s, encoding="utf-8")  # noqa: S321  the user chose it
        try:
            ftp.connect(self._host.strip("[]"), self._port)
            ftp.login(str(options.get("user", "")), str(options.get("password", "")))
            if isinstance(ftp, ftplib.FTP_TLS):
                ftp.prot_p()
        except BaseException:
            ftp.close()
            raise
        return ftp


class _Reader(io.RawIOBase):
    """Reads a buffer for `storbinary`, without a copy of all of it."""

    def __init__(self, body: memoryview) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        block, self._body = self._body[:size], self._body[size:]
        return bytes(block)


def _is_folder(ftp: ftplib.FTP, path: str) -> bool:
    here = ftp.pwd()
    try:
        ftp.cwd(path)
    except ftplib.error_perm:
        return False
    ftp.cwd(here)
    return True


_REPLIES = {
    "421": "busy", "425": "reset", "426": "reset", "430": "credentials", "450": "conflict", "451": "server",
    "452": "full", "500": "other", "530": "credentials", "532": "credentials", "550": "forbidden",
    "552": "full", "553": "name",
}  # fmt: skip
"""Reply code (RFC 959, section 4.2) -> kind."""


def _kind_of(error: Exception) -> tuple[str, str]:
    if isinstance(error, (ftplib.error_perm, ftplib.error_temp, ftplib.error_reply, ftplib.error_proto)):
        reply = str(error)[:3]
        return _REPLIES.get(reply, "other"), f"FTP {reply}" if reply.isdigit() else ""
    return of_exception(error), ""
