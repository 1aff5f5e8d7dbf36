"""Real servers for the tests of destinations, each a process on a free port of 127.0.0.1 with a folder of its
own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from free_ports import free_port

HERE = Path(__file__).parent
START_S = 60.0
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The published key of Azurite's only account, devstoreaccount1."""


@dataclass(frozen=True)
class Server:
    """A server that runs: how to reach it, the settings of a destination there, where its files lie."""

    scheme: str
    port: int
    url: str
    """Of the bucket, container or server, when reached directly."""
    options: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    bucket: str = "luna"

    def through(self, port: int) -> tuple[str, dict[str, Any]]:
        """URL and settings of the same server behind a proxy on `port`."""
        url = self.url.replace(f":{self.port}", f":{port}")
        options = {
            name: value.replace(f":{self.port}", f":{port}") if isinstance(value, str) else value
            for name, value in self.options.items()
        }
        return url, options


@contextlib.contextmanager
def process(command: list[str], port: int, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; enter the block once it accepts connections."""
    # Coverage measures the farm, not these.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")} | env
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environ)
        try:
            deadline = time.monotonic() + START_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1.0).close()
                    break
                except OSError:
                    if running.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}") from None
                    time.sleep(0.02)
            yield running
        finally:
            running.kill()
            running.wait()


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """S3 by moto's server."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with process(command, port, folder / "moto.log"):
        endpoint = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/luna", method="PUT"), timeout=60).close()
        yield Server("s3", port, "s3://luna", {"endpoint": endpoint, "region": "us-east-1", **_keys("test")})


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[Server]:
    """S3 by SeaweedFS, which checks signatures and writes to disk."""
    weed = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    (folder / "s3.json").write_text(
        '{"identities": [{"name": "luna", "actions": ["Admin", "Read", "Write", "List"],'
        ' "credentials": [{"accessKey": "luna", "secretKey": "luna-secret-key"}]}]}'
    )
    command = [
        weed,
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=20",
        f"-master.port={ports['master']}",
        f"-volume.port={ports['volume']}",
        "-filer",
        f"-filer.port={ports['filer']}",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.port={ports['s3']}",
        f"-s3.config={folder / 's3.json'}",
        *(f"-{name}.port.grpc={free_port()}" for name in ("master", "volume", "filer", "s3")),
    ]
    with process(command, ports["s3"], folder / "weed.log"):
        options = {"endpoint": f"http://127.0.0.1:{ports['s3']}", "region": "us-east-1"}
        options |= {"access_key_id": "luna", "secret_access_key": "luna-secret-key"}
        _wait_for_bucket(options)
        yield Server("s3", ports["s3"], "s3://luna", options)


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[Server]:
    """Azure Blob Storage by Azurite."""
    port = free_port()
    command = [
        azurite_command() or "",
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--location",
        str(folder),
        "--silent",
        "--skipApiVersionCheck",
        "--disableTelemetry",
    ]
    with process(command, port, folder / "azurite.log"):
        endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
        options = {"endpoint": endpoint, "account": "devstoreaccount1", "account_key": ACCOUNT_KEY}
        _make_container(options, port)
        yield Server("az", port, "az://luna", options)


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[Server]:
    """Google Cloud Storage as its documents describe it."""
    port = free_port()
    with process([sys.executable, str(HERE / "gcs_server.py"), str(port)], port, folder / "gcs.log"):
        yield Server("gs", port, "gs://luna", {"endpoint": f"http://127.0.0.1:{port}", "anonymous": True})


def azurite_command() -> str | None:
    """Where Azurite is: on the path, or where scripts/test.py installs it."""
    beside = Path(sys.executable).parents[1] / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    return shutil.which("azurite-blob") or (str(beside) if beside.exists() else None)


@contextlib.contextmanager
def file_server(kind: str, folder: Path) -> Iterator[Server]:
    """SFTP by asyncssh, FTP by pyftpdlib or WebDAV by wsgidav; `folder` is what they serve."""
    port, root = free_port(), folder / "files"
    root.mkdir()
    command = [sys.executable, "-W", "ignore", str(HERE / "file_servers.py"), kind, str(port), str(root)]
    with process(command, port, folder / f"{kind}.log"):
        options: dict[str, Any] = {"user": "luna", "password": "luna-password"}
        if kind == "sftp":
            known = folder / "known_hosts"
            known.write_text(f"[127.0.0.1]:* {(root.parent / 'host_key.pub').read_text()}")
            options["known_hosts"] = str(known)
        scheme = "webdav+http" if kind == "webdav" else kind
        yield Server(scheme, port, f"{scheme}://127.0.0.1:{port}", options, root)


def _keys(word: str) -> dict[str, str]:
    return {"access_key_id": word, "secret_access_key": f"{word}-secret-key"}


def _wait_for_bucket(options: dict[str, Any]) -> None:
    """SeaweedFS makes a bucket when an administrator first writes to it, once all of its parts run."""
    from obstore.store import S3Store

    config = {**options, "virtual_hosted_style_request": False}
    store = S3Store("luna", config=config, client_options={"allow_http": True})
    deadline = time.monotonic() + START_S
    while True:
        try:
            store.put("first", b"x")
            store.delete("first")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _make_container(options: dict[str, Any], port: int) -> None:
    """Create the container by a request signed with the account's key."""
    import base64
    import email.utils
    import hashlib
    import hmac

    date = email.utils.formatdate(usegmt=True)
    version = "2021-08-06"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}\n"
    resource = "/devstoreaccount1/devstoreaccount1/luna\nrestype:container"
    to_sign = "PUT\n\n\n\n\n\n\n\n\n\n\n\n" + headers + resource
    key = base64.b64decode(options["account_key"])
    signature = base64.b64encode(hmac.new(key, to_sign.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/devstoreaccount1/luna?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": version,
            "Authorization": f"SharedKey devstoreaccount1:{signature}",
        },
    )
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except urllib.error.HTTPError as error:
        raise RuntimeError(error.read().decode()) from error
