"""A real farm in processes of its own, spoken to by clients, and by those who are none: raw sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from free_ports import free_port

import luna_farm
from luna_farm.core import frames, protocol
from luna_farm_client import FarmClient

IMPORTED_FROM = Path(luna_farm.__file__).parents[1]
LISTENS_S = 120.0


class RealFarm:
    """`luna-farm start` with its state and output below `home`; settings by their names, environment in
    capitals."""

    def __init__(self, home: Path, **given: Any) -> None:
        self.home, self.state, self.out = home, home / "state", home / "out"
        self.log_path = home / "standard-error"
        usual = {"arena_bytes": "32MiB", "max_workers": 2, "min_workers": 1, "feed_port": "0"}
        usual["port"] = str(free_port())  # a farm that is started again is found where it was
        self.settings = usual | {name: value for name, value in given.items() if not name.isupper()}
        self.environ = {name: value for name, value in given.items() if name.isupper()}
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command line: what other users of the machine may read."""
        command = [sys.executable, "-m", "luna_farm", "start", "--log-format", "json"]
        command += ["--output-dir", str(self.out)]
        for name, value in self.settings.items():
            command += [f"--{name.removesuffix('_s').replace('_', '-')}", str(value)]
        return command

    def environment(self) -> dict[str, str]:
        """What its processes inherit; without coverage, which would be measured with it."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "COV_CORE_"))}
        environ |= {"PYTHONPATH": str(IMPORTED_FROM), "HOME": str(self.home)}
        return environ | {"LUNA_FARM_STATE_DIR": str(self.state)} | self.environ

    def start(self) -> RealFarm:
        """Start it and return once it listens; its end is an AssertionError with what it said."""
        self.home.mkdir(exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stderr=log, env=self.environment(), cwd=self.home, stdin=subprocess.DEVNULL
            )
        end = time.monotonic() + LISTENS_S
        while self.endpoint.get("pid") != self.process.pid:
            assert self.process.poll() is None, f"the farm ended: {self.log()[-2000:]}"
            assert time.monotonic() < end, "the farm does not listen"
            time.sleep(0.01)
        return self

    @property
    def endpoint(self) -> dict[str, Any]:
        """What it says of where it listens."""
        try:
            found: dict[str, Any] = json.loads((self.state / "endpoint.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    @property
    def port(self) -> int:
        """Of the job listener."""
        return int(self.endpoint["port"])

    @property
    def feed_port(self) -> int:
        """Of the feed."""
        return int(self.endpoint["feed_port"])

    @property
    def token(self) -> str:
        """The token of this start."""
        return (self.state / "token").read_text().strip()

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        """Everything that it said so far, to standard error."""
        return self.log_path.read_text("utf-8", "replace")

    def said(self) -> str:
        """Everything in its state folder and output that is text for people: log files and notes."""
        texts = [self.log()]
        texts += [p.read_text("utf-8", "replace") for p in self.state.rglob("*.log*") if p.is_file()]
        return "\n".join(texts)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; returns the exit code."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.process.wait(timeout=180)

    def client(self, **given: Any) -> FarmClient:
        """A client that finds the token where clients do."""
        client = FarmClient("127.0.0.1", self.port, **given)
        client.endpoint = type(client.endpoint)(
            "127.0.0.1", self.port, given.get("token"), self.state, given.get("tls")
        )
        return client

    def knock(self, timeout: float = 10.0) -> socket.socket:
        """A plain connection to the job port."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def let_in(self) -> Wire:
        """A connection that said a right hello."""
        wire = Wire(self.knock())
        answer = wire.ask({**protocol.hello(self.token, os.getpid()), "id": 1})
        assert answer["protocol"] == protocol.NAME, answer
        return wire


class Wire:
    """Frames over a socket, without anything that a client does for its user."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._frames = frames.FrameBuffer()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self.sock.sendall(frames.encode(message))

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send one message and return the next that comes."""
        self.send(message)
        answer = self.hear()
        assert answer is not None, "the farm closed the connection"
        return answer

    def hear(self) -> dict[str, Any] | None:
        """Return the next message, None at the end of the connection."""
        while (message := self._frames.next()) is None:
            data = self.sock.recv(65536)
            if not data:
                return None
            self._frames.feed(data)
        return message

    def last_words(self) -> list[dict[str, Any]]:
        """Everything that still comes until the farm closes."""
        heard = []
        while (message := self.hear()) is not None:
            heard.append(message)
        return heard
