"""The HTTP side of the feed, by raw requests over real sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from fake_farm import TOKEN, FakeFarm
from feed_visitor import Answer, Visitor
from prometheus_client.parser import text_string_to_metric_families

from luna_farm import system
from luna_farm.feed import auth, web

BEARER = f"Bearer {TOKEN}"


async def test_the_page_and_its_parts(visitor: Visitor) -> None:
    weight = 0
    for path, content_type in {
        "/": "text/html; charset=utf-8",
        "/app.js": "text/javascript; charset=utf-8",
        "/charts.js": "text/javascript; charset=utf-8",
        "/link.js": "text/javascript; charset=utf-8",
        "/icon.svg": "image/svg+xml",
    }.items():
        answer = await visitor.ask(path)
        assert (answer.status, answer.headers["content-type"]) == (200, content_type)
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert answer.headers["x-content-type-options"] == "nosniff"
        weight += len(answer.body)
    assert weight < 150_000


async def test_the_page_allows_nothing_from_elsewhere(visitor: Visitor) -> None:
    answer = await visitor.ask("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    style = re.search(rb"<style>(.*)</style>", answer.body, re.DOTALL)
    assert style is not None
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style[1]).digest()).decode()}'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert b"http://" not in answer.body
    assert b"https://" not in answer.body
    assert "access-control-allow-origin" not in answer.headers


async def test_an_unchanged_file_is_not_sent_again(visitor: Visitor) -> None:
    first = await visitor.ask("/app.js")
    again = await visitor.ask("/app.js", If_None_Match=f'"other", W/{first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert (await visitor.ask("/app.js", If_None_Match='"other"')).status == 200


async def test_head_gives_the_headers_only(visitor: Visitor) -> None:
    whole, head = await visitor.ask("/"), await visitor.ask("/", method="HEAD")
    if head.status == 0:
        pytest.skip("this version of websockets answers GET only")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_do_nothing(visitor: Visitor, method: str) -> None:
    assert (await visitor.ask("/", method=method)).status in (405, 0)


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/style.css",
        "/app.js/",
        "//",
        "/../feed.py",
        "/%2e%2e/feed.py",
        "/..%2f..%2fetc/passwd",
        "/dashboard",
        "/__init__.py",
        "*",
        "/\\",
        "/token",
    ],
)
async def test_nothing_else_is_served(visitor: Visitor, path: str) -> None:
    assert (await visitor.ask(path)).status == 404


async def test_no_request_opens_a_file(visitor: Visitor) -> None:
    opened: list[str] = []
    watching = True

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        if watching and name == "open" and not str(arguments[0]).startswith("/proc/net/tcp"):
            opened.append(str(arguments[0]))

    paths = (
        "/",
        "/app.js",
        "/style.css",
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/status",
        "/../../etc/passwd",
    )
    for path in paths:  # once unwatched: what Python imports late is imported then
        await visitor.ask(path)
    sys.addaudithook(hook)
    for path in paths:
        await visitor.ask(path)
    watching = False
    assert opened == []


async def test_health_and_readiness(
    visitor: Visitor, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luna_farm.feed.server.STATUS_FRESH_S", 0.0)
    assert (await visitor.ask("/healthz")).json == {"alive": True}
    assert (await visitor.ask("/readyz")).json == {"ready": True, "reason": ""}
    farm.draining = True
    draining = await visitor.ask("/readyz")
    assert (draining.status, draining.json["reason"]) == (503, "the farm is draining")
    assert (await visitor.ask("/healthz")).status == 200


def test_what_ready_means() -> None:
    farm = FakeFarm()
    assert web.not_ready(farm.status()) == ""
    farm.queued_images = 10_000
    assert web.not_ready(farm.status()) == ""
    for row in farm.workers:
        row["state"] = "starting"
    assert web.not_ready(farm.status()) == "no worker is ready"
    assert web.not_ready({}) == "the farm is starting or has stopped"


async def test_a_scrape(visitor: Visitor, farm: FakeFarm) -> None:
    farm.job(images=2)
    answer = await visitor.ask("/metrics", Accept="text/plain")
    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"luna_farm_handover_seconds", "luna_farm_images_saved", "luna_farm_queue_images"} <= names


async def test_the_status_over_http(visitor: Visitor, farm: FakeFarm) -> None:
    answer = await visitor.ask("/api/status")
    assert answer.json == farm.status()
    assert answer.headers["cache-control"] == "no-store"


PATHS = ["/", "/app.js", "/healthz", "/readyz", "/metrics", "/api/status"]


@pytest.mark.parametrize("path", PATHS)
async def test_foreign_pages_and_rebound_names_get_nothing(visitor: Visitor, path: str) -> None:
    for headers in (
        {"Host": f"evil.example:{visitor.port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ):
        answer = await visitor.ask(path, **headers)
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers


async def status_of(visitor: Visitor, path: str, **headers: str) -> int:
    return (await visitor.ask(path, **headers)).status


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize("uid", [12345, None])
async def test_another_user_needs_the_token(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, uid: int | None
) -> None:
    monkeypatch.setattr(auth, "PLATFORM_TELLS", True)
    monkeypatch.setattr(system, "peer_uid", lambda sock: uid)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert await status_of(visitor, "/api/status") == 401
    assert await status_of(visitor, "/", **UPGRADE) == 401
    assert await status_of(visitor, "/api/status", Authorization="Bearer wrong") == 401
    assert await status_of(visitor, "/api/status", Authorization=BEARER) == 200
    assert [await status_of(visitor, path) for path in ("/", "/healthz", "/readyz", "/metrics")] == [200] * 4


async def test_where_the_platform_does_not_tell_loopback_has_to_do(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "PLATFORM_TELLS", False)
    assert await status_of(visitor, "/api/status") == 200


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can be another user for a moment"
)
async def test_a_real_other_user_is_refused(visitor: Visitor) -> None:
    code = (
        f"import http.client as h; c = h.HTTPConnection('127.0.0.1', {visitor.port});"
        "c.request('GET', '/api/status'); print(c.getresponse().status)"
    )
    run = await asyncio.create_subprocess_exec(
        "/usr/bin/python3",
        "-c",
        code,
        user=65534,
        group=65534,
        extra_groups=[],
        stdout=subprocess.PIPE,
        cwd="/",
    )
    out, _ = await run.communicate()
    assert out.strip() == b"401"


async def test_a_failing_status_is_an_answer_too(
    visitor: Visitor, farm: FakeFarm, caplog: pytest.LogCaptureFixture
) -> None:
    farm.workers = None  # type: ignore[assignment]
    assert (await visitor.ask("/api/status")).status == 500
    assert "A request to the feed failed" in caplog.text


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x80\x04\x95garbage\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
    ],
)
async def test_other_languages_are_hung_up_on(
    visitor: Visitor, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer: Answer = await visitor.send(raw + b"\r\n\r\n")
    assert answer.status in (0, 400)
    assert (await visitor.ask("/healthz")).status == 200
    assert not caplog.records


async def test_endless_headers_end(visitor: Visitor) -> None:
    start = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\n".encode()
    assert (await visitor.send(start + b"X: y\r\n" * 300 + b"\r\n")).status in (0, 431)
    assert (await visitor.send(start + b"X: " + b"y" * 20_000 + b"\r\n\r\n")).status in (0, 431)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make a certificate with")
async def test_tls(farm: FakeFarm, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    subject = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run([*make, *subject], check=True, capture_output=True)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=cert)
    server.load_cert_chain(cert, key)
    secure = FakeFarm()
    feed = await secure.serve(tls=server)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", feed.port, ssl=client, server_hostname="localhost"
    )
    writer.write(
        f"GET /readyz HTTP/1.1\r\nHost: localhost:{feed.port}\r\nOrigin: https://localhost:{feed.port}\r\n\r\n".encode()
    )
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()
    await feed.close()
