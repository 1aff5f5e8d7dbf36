"""Fuzzed frames against a real farm, with a good client beside them: what it costs, and whether it holds.

Three kinds of sender, as they come: peers without a token that send no protocol, such peers with a broken
hello, and a client that was let in and then sends nonsense of every degree.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import psutil

from luna_farm.core import frames, protocol
from luna_farm.core.messages import SaveOptions

HERE = Path(__file__).parent
sys.path += [str(HERE.parent / "security"), str(HERE.parent)]
from real_farm import IMPORTED_FROM, RealFarm  # noqa: E402

UNAUTHENTICATED = 0.02
"""Share of the frames that come each on a connection of its own."""
BURST = 64
"""Frames that a client sends before it reads."""
WARM_UP = 2000
IDLE_PINGS = 300
PATIENCE_S = 0.5
"""Where half a frame or pixels are missing, the farm waits, and its answer is not worth waiting for."""
HEADER = struct.Struct(">I")
COMMANDS = (
    *("ping", "status", "lease", "release", "save_images_async", "seal", "abort"),
    *("job", "jobs", "wait", "cancel", "retry"),
)
FIELDS = (
    *SaveOptions.__match_args__,
    *("job_id", "sizes", "leases", "want", "images", "limit", "timeout", "request_id", "embed_workflow"),
)
GOOD_CLIENT = """
import json, sys, time
import numpy as np
from luna_farm_client import FarmClient, SaveImage, SaveRequest
from luna_farm_client.endpoint import Endpoint
from pathlib import Path
port, state, out = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
pixels = np.zeros((64, 64, 3), np.uint8)
ping, submit, jobs, states = [], [], [], []
with FarmClient("127.0.0.1", port) as farm:
    farm.endpoint = Endpoint("127.0.0.1", port, None, state)
    print(farm.ping(), flush=True)
    for line in sys.stdin:
        if line == "end\\n":
            break
        ping.append(farm.ping())
        if len(ping) % 10 == 0:
            begun = time.perf_counter()
            jobs.append(farm.submit(SaveRequest([SaveImage(pixels)], output_dir=out, filename="good")).job_id)
            submit.append(time.perf_counter() - begun)
            if len(jobs) > 100:  # of older ones the farm may have dropped the report
                states.append(farm.wait(jobs.pop(0), 60).state)
        print(".", flush=True)
    states += [farm.wait(job_id, 60).state for job_id in jobs]
print(json.dumps({"ping": ping, "submit": submit, "states": states}), flush=True)
"""


@dataclass(slots=True)
class Result:
    """What came of it. Times in milliseconds, sizes in bytes."""

    frames: int = 0
    connections: int = 0
    seconds: float = 0.0
    alive: bool = False
    rss_growth: int = 0
    idle_p99_ms: float = 0.0
    ping_p50_ms: float = 0.0
    ping_p99_ms: float = 0.0
    submit_p99_ms: float = 0.0
    pings: int = 0
    submits: int = 0
    unsaved: int = 0
    tracebacks: int = 0
    foreign_files: int = 0
    codes: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.frames:,} frames over {self.connections:,} connections in {self.seconds:.0f} s; farm "
            f"{'alive' if self.alive else 'DEAD'}, {self.tracebacks} tracebacks,"
            f" RSS {self.rss_growth / 1e6:+.1f} MB;"
            f" good client: ping alone p99 {self.idle_p99_ms:.2f} ms, beside them p50 {self.ping_p50_ms:.2f}"
            f" p99 {self.ping_p99_ms:.2f} ms (of {self.pings:,}), submit p99 {self.submit_p99_ms:.2f} ms"
            f" (of {self.submits}), unsaved {self.unsaved}; files of others"
            f" {self.foreign_files}; answers {self.codes}"
        )


class Nonsense:
    """Frames of every degree of wrongness, the same for the same seed."""

    def __init__(self, seed: int, token: str) -> None:
        self.random = random.Random(seed)
        self._hello = protocol.hello(token, os.getpid())
        self._corpus = [path.read_bytes() for path in sorted((HERE / "corpus" / "message_schema").iterdir())]

    def value(self, depth: int = 0) -> Any:
        """Any value, most of them small."""
        pick = self.random.randrange(12 if depth < 4 else 9)
        if pick == 0:
            return None
        if pick == 1:
            return self.random.random() < 0.5
        if pick == 2:
            return self.random.choice((0, -1, 1, 2**31, 2**63, -(2**63), 2**64 - 1))
        if pick == 3:
            return self.random.choice((0.0, float("nan"), float("inf"), 1e308, -0.5))
        if pick == 4:
            return self.random.randbytes(self.random.randrange(40))
        if pick in (5, 6):
            return self.random.choice(
                ("", "../../etc", "\u202e", "a\0b", "x" * self.random.choice((5, 5000)), "png", "/tmp")
            )
        if pick in (7, 8):
            return self.random.randrange(600)
        if pick == 9:
            return [self.value(depth + 1) for _ in range(self.random.randrange(5))]
        if pick == 10:
            return [self.value(4)] * (600 if self.random.random() < 0.002 else self.random.randrange(30))
        return {str(self.random.randrange(9)): self.value(depth + 1) for _ in range(self.random.randrange(4))}

    def message(self) -> dict[str, Any]:
        """A message with a command, mostly, and fields that are wrong, mostly."""
        message: dict[str, Any] = {"cmd": self.random.choice(COMMANDS), "id": self.random.randrange(2**32)}
        for name in self.random.sample(FIELDS, self.random.randrange(6)):
            message[name] = self.value()
        if self.random.random() < 0.3:
            image = {"shape": [1, 8, 8, 3], "format": "png"}
            image[self.random.choice(("shape", "dtype", "format", "affix", "subdir"))] = self.value()
            message["images"] = [image]
        if self.random.random() < 0.3:
            message["parts"] = [[self.random.randrange(50), self.random.choice((1, 2, self.value()))]]
        if message["cmd"] == "wait":
            message["timeout"] = 0.0
        if self.random.random() < 0.0005:
            message[self.random.choice(("prompt", "x", "images"))] = "x" * self.random.randrange(2**21)
        if self.random.random() < 0.005:
            message[self.random.choice(("id", "cmd"))] = self.value()
        return message

    def frame(self) -> bytes:
        """A frame for one who was let in."""
        pick = self.random.random()
        if pick < 0.99:
            return frames.encode(self.message())
        if pick < 0.994:
            body = bytearray(self.random.choice(self._corpus))
            for _ in range(self.random.randrange(1, 5)):
                body[self.random.randrange(len(body))] = self.random.randrange(256)
            return HEADER.pack(len(body)) + body
        if pick < 0.997:
            body = msgpack.packb(self.message())[: self.random.randrange(1, 30)]
            return HEADER.pack(len(body)) + body
        return self.random.randbytes(self.random.randrange(1, 60))

    def unauthenticated(self) -> bytes:
        """What a sender without the token sends."""
        pick = self.random.randrange(5)
        if pick == 0:
            return self.random.randbytes(self.random.randrange(1, 6000))
        if pick == 1:
            return b"GET /" + self.random.randbytes(20).hex().encode() + b" HTTP/1.1\r\n\r\n"
        if pick == 2:
            return frames.encode({**self._hello, "token": self.value(), "id": 1})
        if pick == 3:
            hello = bytearray(frames.encode(self._hello))
            hello[self.random.randrange(len(hello) - 50)] ^= 1 << self.random.randrange(8)
            return bytes(hello).replace(self._hello["token"].encode(), b"x" * len(self._hello["token"]))
        return HEADER.pack(2000) + b"\xdd\xff\xff\xff\xff" * 400

    def hello(self) -> bytes:
        """A right one."""
        return frames.encode({**self._hello, "id": 0})


class GoodClient:
    """A client in a process of its own, that asks when it is told to."""

    def __init__(self, farm: RealFarm) -> None:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(IMPORTED_FROM), *sys.path])}
        command = [sys.executable, "-c", GOOD_CLIENT, str(farm.port), str(farm.state), str(farm.out)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environ)
        self._hear()
        self._waiting = False

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def again(self, wait: bool = False) -> None:
        """Have it ask once more, unless it still waits for an answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._waiting and (wait or select.select([self._process.stdout], [], [], 0)[0]):
            self._hear()
            self._waiting = False
        if not self._waiting:
            self._process.stdin.write("go\n")
            self._waiting = True

    def end(self) -> dict[str, Any]:
        """Its measurements."""
        assert self._process.stdin is not None
        if self._waiting:
            self._hear()
        self._process.stdin.write("end\n")
        told: dict[str, Any] = json.loads(self._hear())
        self._process.communicate(timeout=60)
        return told


def _drain(sock: socket.socket, buffer: frames.FrameBuffer, codes: dict[str, int], until_end: bool) -> bool:
    """Count the answers; False once the farm has closed or says no more."""
    wanted = BURST
    while until_end or wanted > 0:
        try:
            sock.settimeout(PATIENCE_S)
            data = sock.recv(262144)
        except OSError:
            return False
        if not data:
            return False
        buffer.feed(data)
        while (message := buffer.next()) is not None:
            code = str(message.get("code", "fine"))
            codes[code] = codes.get(code, 0) + 1
            wanted -= 1
    return True


def _bursts(farm: RealFarm, nonsense: Nonsense, result: Result) -> Iterator[int]:
    """Send bursts of frames for ever; yields how many after each."""
    sock: socket.socket | None = None
    buffer = frames.FrameBuffer()
    try:
        while True:
            for _ in range(round(BURST * UNAUTHENTICATED / (1 - UNAUTHENTICATED)) or 1):
                with farm.knock(30) as peer, contextlib.suppress(OSError):
                    peer.sendall(nonsense.unauthenticated())
                    peer.shutdown(socket.SHUT_WR)
                    _drain(peer, frames.FrameBuffer(), result.codes, True)
                result.connections += 1
                yield 1
            if sock is None:
                sock, buffer = farm.knock(30), frames.FrameBuffer()
                result.connections += 1
                sock.sendall(nonsense.hello())
            burst = b"".join(nonsense.frame() for _ in range(BURST))
            try:
                sock.sendall(burst)
                sock.sendall(frames.encode({"cmd": "ping", "id": 1}))
                alive = _drain(sock, buffer, result.codes, False)
            except OSError:
                alive = False
            if not alive or nonsense.random.random() < 0.05:
                sock.close()
                sock = None
            yield BURST
    finally:
        if sock is not None:
            sock.close()


def fuzz(
    farm: RealFarm, count: int, seed: int = 1, every: float = 0.002, say: Any = None, step_back: int = 0
) -> Result:
    """Send `count` frames to `farm`; a good client beside them asks at most every `every` seconds.

    `step_back`: niceness of this process, so that what is measured waits for the farm, not for a processor.
    """
    result = Result()
    nonsense = Nonsense(seed, farm.token)
    good = GoodClient(farm)
    for _ in range(IDLE_PINGS):
        good.again(True)
    if step_back and hasattr(os, "nice"):
        os.nice(step_back)
    memory = psutil.Process(farm.pid)
    started = asked = said = time.monotonic()
    before = 0
    for sent in _bursts(farm, nonsense, result):
        result.frames += sent
        now = time.monotonic()
        if now - asked >= every:
            good.again()
            asked = now
        if not before and result.frames >= min(WARM_UP, count // 2):
            before = memory.memory_info().rss
        if say and now - said > 10:
            said = now
            say(f"{result.frames:,} frames, {memory.memory_info().rss / 1e6:.1f} MB")
        if result.frames >= count:
            break
    result.seconds = time.monotonic() - started
    told = good.end()
    result.alive = farm.process is not None and farm.process.poll() is None
    result.rss_growth = memory.memory_info().rss - before if result.alive else 0
    idle = sorted(told["ping"][:IDLE_PINGS])
    result.idle_p99_ms = idle[int(len(idle) * 0.99)] * 1e3
    pings, submits = sorted(told["ping"][IDLE_PINGS:]), sorted(told["submit"])
    result.pings, result.submits = len(pings), len(submits)
    result.ping_p50_ms = pings[len(pings) // 2] * 1e3
    result.ping_p99_ms = pings[int(len(pings) * 0.99)] * 1e3
    result.submit_p99_ms = submits[int(len(submits) * 0.99)] * 1e3 if submits else 0.0
    result.unsaved = sum(state != "done" for state in told["states"])
    result.tracebacks = farm.said().count("Traceback")
    result.foreign_files = sum(not p.name.startswith((".luna", "good")) for p in farm.out.rglob("*.*"))
    return result
