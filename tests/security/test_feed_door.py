"""The feed port of a real farm: who is refused, and what it never says. The rest: tests/feed."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable

import numpy as np
import pytest
from real_farm import RealFarm
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from luna_farm_client import SaveImage, SaveRequest

Start = Callable[..., RealFarm]
PATHS = [
    "/",
    "/app.js",
    "/api/status",
    "/metrics",
    "/healthz",
    "/readyz",
    "/token",
    "/../token",
    "/out/",
    "/..",
]
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def ask(farm: RealFarm, path: str, headers: dict[str, str], host: str | None = None) -> tuple[int, str, str]:
    """Status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", farm.feed_port, timeout=60)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in {"Host": host or f"127.0.0.1:{farm.feed_port}", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    told = (answer.status, str(answer.headers), answer.read().decode("utf-8", "replace"))
    connection.close()
    return told


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "https://127.0.0.1:1", "http://127.0.0.1", "file://", ""]
)
@pytest.mark.parametrize("more", [{}, UPGRADE], ids=["http", "websocket"])
def test_pages_from_elsewhere_are_refused(
    farm: RealFarm, path: str, origin: str, more: dict[str, str]
) -> None:
    status, headers, body = ask(farm, path, {"Origin": origin, **more})
    assert status == 403
    assert "access-control" not in headers.lower()
    assert farm.token not in headers + body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1.nip.io:{port}", "*"]
)
@pytest.mark.parametrize("more", [{}, UPGRADE], ids=["http", "websocket"])
def test_rebound_names_are_refused(farm: RealFarm, host: str, more: dict[str, str]) -> None:
    assert ask(farm, "/", more, host.format(port=farm.feed_port))[0] == 403


def test_the_page_shuts_everything_else_out(farm: RealFarm) -> None:
    status, headers, body = ask(farm, "/", {})
    assert status == 200
    policy = next(line for line in headers.splitlines() if line.startswith("Content-Security-Policy"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert farm.token not in body


def test_nothing_is_listed_and_no_file_is_served(farm: RealFarm) -> None:
    for path in (
        "/dashboard/",
        "/static",
        "/token",
        "/%2e%2e/token",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/journal",
    ):
        status, _, body = ask(farm, path, {})
        assert status == 404
        assert "root:" not in body


def test_what_the_feed_tells_holds_no_secret(start: Start) -> None:
    token = "explicit-token-0815-4711"
    farm = start(LUNA_FARM_TOKEN=token)
    heard: list[str] = []

    async def listen() -> None:
        async with connect(f"ws://127.0.0.1:{farm.feed_port}/?after=0&thumbnails=1") as feed:
            heard.append(str(await feed.recv()))

            def save() -> None:
                with farm.client(token=token) as client:
                    sent = SaveRequest(
                        [SaveImage(np.zeros((8, 8, 3), np.uint8))],
                        output_dir=farm.out,
                        filename="a",
                        prompt={"1": {"inputs": {"api_key": "hunter2-hunter2"}, "class_type": "Ask"}},
                    )
                    client.wait(client.submit(sent).job_id, 60)

            await asyncio.to_thread(save)
            await feed.send(json.dumps({"type": "action", "name": "retry", "job_id": "x", "token": "wrong"}))
            await feed.send(json.dumps({"type": "action", "name": "retry", "job_id": "x", "token": token}))
            while not any('"unknown_job"' in text for text in heard):
                heard.append(str(await asyncio.wait_for(feed.recv(), 60)))

    asyncio.run(listen())
    told = "".join(heard)
    assert "image_saved" in told
    assert '"unauthorized"' in told
    for path in ("/metrics", "/api/status", "/readyz"):
        told += ask(farm, path, {})[2]
    for secret in (token, "hunter2"):
        assert secret not in told
        assert secret not in farm.said()


def test_a_websocket_from_an_evil_page_gets_nothing(farm: RealFarm) -> None:
    async def knock() -> None:
        async with connect(f"ws://127.0.0.1:{farm.feed_port}/", origin="https://evil.example"):
            raise AssertionError("it was let in")

    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(knock())
    assert refused.value.response.status_code == 403
