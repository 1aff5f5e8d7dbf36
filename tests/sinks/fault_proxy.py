"""A TCP proxy that fails on purpose: resets, stalls, slows down, damages bytes, swallows answers, or answers.

`fail(...)` plans the failure of the next connections; without a plan it only forwards.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass

METHODS = (b"PUT ", b"GET ", b"HEAD ", b"DELETE ", b"POST ")


@dataclass(frozen=True)
class Fault:
    """What happens to one connection. `after`: once that many bytes went from client to server."""

    kind: str
    """reset | stall | slow | flip | swallow | answer"""
    after: int = 0
    rate: int = 100_000
    """Bytes per second (slow)."""
    answer: bytes = b""
    """Sent in place of the server's answer once the request is whole (answer)."""


class FaultProxy:
    """Listens on `port` and forwards to `target`; use as a context manager."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._plan: deque[Fault] = deque()
        self.connections = 0
        self.faults = 0
        self.latency_s = 0.0
        self.refuse = False
        """Close every connection at once."""
        self.every = 0
        """Fail each so-manieth HTTP request: a reset in the middle, or its answer is swallowed; 0: none."""
        self.requests = 0
        self._open: set[socket.socket] = set()
        self._closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.close()
        self.drop()

    def fail(self, *faults: Fault) -> None:
        """Plan the failures of the next connections, in order; open ones are closed, so that the next request
        needs one."""
        self._plan.extend(faults)
        self.drop()

    def drop(self) -> None:
        """Close every connection that is open."""
        for sock in list(self._open):
            _reset(sock)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refuse:
                _reset(client)
                continue
            fault = self._plan.popleft() if self._plan else None
            self.faults += fault is not None
            threading.Thread(target=self._serve, args=(client, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault | None) -> None:
        self._open.add(client)
        if fault and fault.kind == "answer":
            _answer(client, fault.answer)
            return
        try:
            server = socket.create_connection(self._target)
        except OSError:
            _reset(client)
            return
        self._open.add(server)
        back = threading.Thread(target=self._back, args=(server, client, fault), daemon=True)
        back.start()
        self._forth(client, server, fault)

    def _forth(self, client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := client.recv(16384):
                if data.startswith(METHODS):
                    self.requests += 1
                    if self.every and self.requests % self.every == 0:
                        self.faults += 1
                        # Every second time the server gets the whole request, and the client no answer.
                        if self.requests % (2 * self.every):
                            server.sendall(data)
                            time.sleep(0.05)
                        _reset(server)
                        _reset(client)
                        return
                if self.latency_s:
                    time.sleep(self.latency_s)
                if fault and fault.kind == "slow":
                    time.sleep(len(data) / fault.rate)
                if fault and sent + len(data) > fault.after:
                    if fault.kind == "reset":
                        server.sendall(data[: fault.after - sent])
                        _reset(server)
                        _reset(client)
                        return
                    if fault.kind == "stall":
                        server.sendall(data[: fault.after - sent])
                        self._closing.wait(60)
                        return
                    if fault.kind == "flip" and sent <= fault.after:
                        at = fault.after - sent
                        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                server.sendall(data)
                sent += len(data)
            server.shutdown(socket.SHUT_WR)
        client.close()

    def _back(self, server: socket.socket, client: socket.socket, fault: Fault | None) -> None:
        with contextlib.suppress(OSError), server:
            while data := server.recv(65536):
                if fault and fault.kind == "swallow":
                    _reset(client)
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)


def http(status: str, headers: str = "", body: str = "") -> Fault:
    """An HTTP answer in place of the server's."""
    text = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n{body}"
    return Fault("answer", answer=text.encode("ascii"))


def s3_error(status: str, code: str, headers: str = "") -> Fault:
    """An error answer as S3 writes it; a real one repeats parts of the request, here a secret."""
    body = (
        f"<Error><Code>{code}</Code><Message>m</Message><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>"
    )
    return http(status, "Content-Type: application/xml\r\n" + headers, body)


def _answer(client: socket.socket, answer: bytes) -> None:
    """Read the whole request, then answer."""
    with contextlib.suppress(OSError):
        client.settimeout(60.0)
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536)
        head, _, rest = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(rest) < length:
            rest += client.recv(65536)
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        client.close()


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sock.close()
