"""SFTP by `asyncssh`, one connection a sink, used from one thread.

Not by way of fsspec: its SFTP file systems replace the target of a rename and, unless told otherwise, accept
every host key. The plain SFTP rename refuses to replace (draft-ietf-secsh-filexfer-02, section 6.5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from luna_farm.locations import Location
from luna_farm.storage.sinks.refusals import check_files, of_exception, refusal
from luna_farm.storage.sinks.sink import SinkError, limit_s

BLOCK_BYTES = 1 << 20
"""The time limit counts for each block, so that a slow server is not taken for one that hangs."""
PORT = 22


class SftpServer:
    """An SFTP server as `files.FileServer` wants it."""

    def __init__(self, location: Location, options: Mapping[str, Any]) -> None:
        self.place = location.base
        self._host, _, port = (
            location.host.rpartition(":") if ":" in location.host else (location.host, "", "")
        )
        self._port = int(port or PORT)
        self._options = options
        self._timeout_s = float(options.get("timeout", 30.0))
        self._loop = asyncio.new_event_loop()
        self._connection: Any = None
        self._client: Any = None

    def size(self, path: str) -> int | None:
        """Size of what is there, None if nothing is."""

        async def stat(client: Any) -> int | None:
            import asyncssh

            try:
                return int((await client.lstat(path)).size or 0)
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return None

        size: int | None = self._run(stat)
        return size

    def make_folder(self, path: str) -> None:
        """Make one folder."""

        async def make(client: Any) -> None:
            import asyncssh

            try:
                await client.mkdir(path)
            except asyncssh.SFTPError:
                if not await client.isdir(path):  # made by another upload in the meantime
                    raise

        self._run(make)

    def write(self, path: str, body: memoryview) -> None:
        """Write a whole file."""

        async def start(client: Any) -> Any:
            return await client.open(path, "wb")

        file = self._run(start)
        for begin in range(0, len(body), BLOCK_BYTES):
            block = bytes(body[begin : begin + BLOCK_BYTES])
            self._run(lambda _, at=begin, block=block: file.write(block, at), len(block))

        async def end(client: Any) -> None:
            try:
                await file.fsync()
            except Exception as error:  # an extension of OpenSSH that other servers need not have
                if type(error).__name__ != "SFTPOpUnsupported":
                    raise
            await file.close()

        self._run(end)

    def read(self, path: str) -> Iterator[bytes]:
        """Read a file in blocks."""

        async def start(client: Any) -> Any:
            return await client.open(path, "rb")

        file = self._run(start)
        at = 0
        while block := self._run(lambda _, at=at: file.read(BLOCK_BYTES, at), BLOCK_BYTES):
            at += len(block)
            yield block
        self._run(lambda _: file.close())

    def rename(self, source: str, target: str) -> None:
        """Rename without replacing."""
        self._run(lambda client: client.rename(source, target))

    def remove(self, path: str) -> None:
        """Remove a file."""

        async def unlink(client: Any) -> None:
            import asyncssh

            try:
                await client.remove(path)
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return

        self._run(unlink)

    def close(self) -> None:
        """Close the connection and the loop."""
        self._drop()
        self._loop.close()

    def _run(self, work: Any, size: int = 0) -> Any:
        """Run `work(client)`, which moves `size` bytes, with its time limit; a failure of the connection
        drops it."""

        async def limited() -> Any:
            client = await self._connected()
            return await asyncio.wait_for(work(client), limit_s(self._timeout_s, size))

        try:
            return self._loop.run_until_complete(limited())
        except Exception as error:
            refused = self._refused(error)
            if refused.kind not in ("missing", "exists", "forbidden", "full"):
                self._drop()
            raise refused from None

    async def _connected(self) -> Any:
        import asyncssh

        if self._client is None:
            options = self._options
            check_files(self.place, options)
            given: dict[str, Any] = {"connect_timeout": self._timeout_s, "login_timeout": self._timeout_s}
            for ours, theirs in (
                ("user", "username"),
                ("password", "password"),
                ("known_hosts", "known_hosts"),
            ):
                if options.get(ours):
                    given[theirs] = str(options[ours])
            if options.get("private_key"):
                given["client_keys"] = [str(options["private_key"])]
            self._connection = await asyncio.wait_for(
                asyncssh.connect(self._host.strip("[]"), self._port, **given), 2 * self._timeout_s
            )
            self._client = await asyncio.wait_for(self._connection.start_sftp_client(), self._timeout_s)
        return self._client

    def _drop(self) -> None:
        connection, self._connection, self._client = self._connection, None, None
        if connection is None:
            return

        async def end() -> None:
            connection.abort()
            await asyncio.wait_for(connection.wait_closed(), 1.0)

        try:
            self._loop.run_until_complete(end())
        except Exception:
            return  # the other side is gone, which is what was wanted

    def _refused(self, error: Exception) -> SinkError:
        if isinstance(error, SinkError):
            return error
        kind = _kind_of(error)
        return refusal(self.place, kind, _NO_KEY if kind == "settings" else "")


_NO_KEY = "private_key: no private key, or one with a passphrase, which the SSH agent has to hold"
_KINDS = {
    "SFTPNoSuchFile": "missing",
    "SFTPNoSuchPath": "missing",
    "SFTPPermissionDenied": "forbidden",
    "SFTPWriteProtect": "forbidden",
    "SFTPFileAlreadyExists": "exists",
    "SFTPFailure": "other",
    "SFTPNoSpaceOnFilesystem": "full",
    "SFTPQuotaExceeded": "full",
    "SFTPInvalidFilename": "name",
    "SFTPNoConnection": "reset",
    "SFTPConnectionLost": "reset",
    "SFTPEOFError": "reset",
    "SFTPBadMessage": "reset",
    "ConnectionLost": "reset",
    "PermissionDenied": "credentials",
    "KeyImportError": "settings",
    "KeyEncryptionError": "settings",
    "HostKeyNotVerifiable": "host_key",
    "KeyExchangeFailed": "other",
    "DisconnectError": "reset",
}


def _kind_of(error: Exception) -> str:
    for kind in type(error).__mro__:
        if kind.__name__ in _KINDS:
            return _KINDS[kind.__name__]
    if isinstance(error, asyncio.TimeoutError):
        return "timeout"
    return of_exception(error)
