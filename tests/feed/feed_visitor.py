"""Clients of the feed for its tests: HTTP by raw sockets, WebSocket by the library."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from fake_farm import FakeFarm
from websockets.asyncio.client import ClientConnection, connect

PATIENCE_S = 60.0
"""How long a test waits for what must come; never reached when all is well."""


async def settles(true: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Let the loop run until something is true; fail if it never is."""
    loop = asyncio.get_running_loop()
    patience = loop.time() + patience_s
    while not true():
        assert loop.time() < patience, "it never became so"
        await asyncio.sleep(0)


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Visitor:
    """Speaks to one farm: `ask` over HTTP, `subscribe` over WebSocket."""

    def __init__(self, farm: FakeFarm) -> None:
        self.farm = farm

    @property
    def port(self) -> int:
        assert self.farm.feed is not None
        return self.farm.feed.port

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send one request exactly as given; an underscore in a header's name stands for a dash."""
        named = {
            "Host": f"127.0.0.1:{self.port}",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        lines = "".join(f"{name}: {text}\r\n" for name, text in named.items() if text)
        return await self.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())

    async def send(self, raw: bytes) -> Answer:
        """Send raw bytes and read to the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        with contextlib.suppress(ConnectionError):
            whole = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        head, _, body = whole.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        pairs = (line.partition(": ") for line in rest)
        return Answer(
            int(first.split(" ")[1]) if first else 0, {name.lower(): text for name, _, text in pairs}, body
        )

    @contextlib.asynccontextmanager
    async def subscribe(self, query: str = "", **options: Any) -> AsyncIterator[Subscription]:
        async with connect(f"ws://127.0.0.1:{self.port}/{query}", max_size=2**25, **options) as connection:
            yield Subscription(connection)


class Subscription:
    """A subscriber that reads when it is asked to."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def next(self) -> dict[str, Any]:
        """Return the next message."""
        text = await asyncio.wait_for(self.connection.recv(), PATIENCE_S)
        assert isinstance(text, str)
        return json.loads(text)

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return all messages up to the first that is wanted."""
        seen = [await self.next()]
        while not wanted(seen[-1]):
            seen.append(await self.next())
        return seen

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def answer(self, **message: Any) -> dict[str, Any]:
        """Send a message and return its answer."""
        await self.send(**message)
        seen = await self.until(lambda heard: heard.get("type") in ("answer", "error", "resumed"))
        return seen[-1]
