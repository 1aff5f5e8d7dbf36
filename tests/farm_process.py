"""A real farm in a process of its own, as a user starts it, on free ports and in folders that a test made."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from free_ports import free_port

from luna_farm.core import frames, protocol
from luna_farm.storage import arena, arena_size
from luna_farm_client import FarmClient

T = TypeVar("T")
PATIENCE_S = 120.0
"""How long a test waits for what must come; never reached when all is well."""


def until(condition: Callable[[], T], what: str) -> T:
    """Return what `condition` returns once that is true."""
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for: {what}"
        time.sleep(0.003)
    return value


class FarmProcess:
    """`luna-farm start` below `home`; `settings` are its options, such as `max_workers=4`. `program`: what
    Python runs, instead of the module."""

    program = ("-m", "luna_farm")

    def __init__(self, home: Path, **settings: Any) -> None:
        self.home, self.state, self.out = home, home / "state", home / "out"
        usual = {"port": free_port(), "feed_port": "off", "arena_bytes": "64MiB", "max_workers": 2}
        self.settings: dict[str, Any] = {**usual, **settings}
        self.open_after_s = 0.0
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> FarmProcess:
        """Start it, and return once it listens."""
        given = {"state_dir": self.state, "output_dir": self.out, **self.settings}
        options = [
            part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        before = self._endpoint()
        started = time.monotonic()
        with (self.home / "log").open("ab") as log:
            command = [sys.executable, *self.program, "start", "--log-format", "json", *options]
            self.process = subprocess.Popen(command, stderr=log, cwd=self.home)
        until(lambda: self._endpoint() != before or self.process.poll() is not None, "the farm listens")
        self.open_after_s = time.monotonic() - started
        assert self.process.poll() is None, self.log[-3000:]
        self.port = self._endpoint()["port"]
        return self

    def _endpoint(self) -> dict[str, Any]:
        try:
            return json.loads((self.state / "endpoint.json").read_text())
        except (OSError, ValueError):
            return {}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def token(self) -> str:
        return (self.state / "token").read_text()

    @property
    def log(self) -> str:
        return (self.home / "log").read_text("utf-8", "replace")

    def kill(self) -> None:
        """kill -9 of the supervisor."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def destroy(self) -> None:
        """Leave no farm and no memory, whatever state the test left it in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for name in arena_size.noted(self.state):
            arena.remove(name)

    def stop(self) -> int:
        """Have it stop as Ctrl-C does, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Start it again whenever it has died."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(0.01):
                if self.process is not None and self.process.poll() is not None:
                    try:
                        self.start()
                    except AssertionError:
                        if (self.process.poll() or 0) >= 0:  # else it was killed while it started
                            raise

        thread = threading.Thread(target=keep)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def client(self, **options: Any) -> FarmClient:
        """A client that reads the token of this farm's state folder."""
        os.environ["LUNA_FARM_STATE_DIR"] = str(self.state)
        try:
            return FarmClient("127.0.0.1", self.port, **options)
        finally:
            del os.environ["LUNA_FARM_STATE_DIR"]

    def wire(self) -> Wire:
        """A bare connection that has not said hello."""
        return Wire(self.port)


class Wire:
    """Frames over a socket, without a client: what a program in another language would do."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._frames = frames.FrameBuffer()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        self.socket.sendall(frames.encode(message) + payload)

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the farm has closed the connection."""
        while (message := self._frames.next()) is None:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._frames.feed(data)
        return message

    def ask(self, message: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
        self.send(message, payload)
        answer = self.receive()
        assert answer is not None, f"no answer to {message['cmd']}"
        return answer

    def hello(self, token: str) -> dict[str, Any]:
        return self.ask({**protocol.hello(token, os.getpid()), "id": 0})
