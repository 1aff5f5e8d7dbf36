"""One blocking connection to the farm: a socket under a `Session`."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from luna_farm.core import frames, protocol
from luna_farm.errors import FarmUnavailable, ProtocolError
from luna_farm_client.endpoint import CONNECT_S, Endpoint, why_not
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.session import Call, Session, Steps

READ_BYTES = 256 * 1024


class Connection:
    """Connected and let in, or not at all. Not for several threads at once: `FarmClient` hands out one
    each."""

    def __init__(self, endpoint: Endpoint, timeout: float, segments: MappedSegments) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._frames = frames.FrameBuffer()
        self._calls = 0
        self.session = Session(segments)
        self.broken = False
        try:
            sock = socket.create_connection((endpoint.host, endpoint.port), min(timeout, CONNECT_S))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = (
                endpoint.tls.wrap_socket(sock, server_hostname=endpoint.host) if endpoint.tls else sock
            )
        except OSError as error:
            raise FarmUnavailable(why_not(endpoint, error), *self._address()) from error
        try:
            endpoint.check_owner(self._socket)
            self.run(self.session.greet(endpoint.token()))
        except BaseException:
            self.close()
            raise

    def _address(self) -> tuple[str, int]:
        return self._endpoint.host, self._endpoint.port

    def run(self, steps: Steps, timeout: float | None = None) -> Any:
        """Drive a generator of the session to its end and return what it returns."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Call):
                    step = steps.send(self.call(step, timeout))
                else:
                    step.work()
                    step = next(steps)
        except StopIteration as stop:
            return stop.value

    def call(self, call: Call, timeout: float | None = None) -> dict[str, Any]:
        """Send one message, return its answer. Raises what the answer tells, and FarmUnavailable when none
        comes."""
        self._calls += 1
        self.broken = True  # until the answer is here: whatever interrupts us leaves it to nobody
        try:
            self._socket.settimeout(self._timeout if timeout is None else timeout)
            self._socket.sendall(frames.encode({**call.message, "id": self._calls}))
            for data in call.payload:
                self._socket.sendall(data)
            answer = self._receive()
        except (OSError, ProtocolError) as error:
            raise FarmUnavailable(
                f"The farm at {self._endpoint} does not answer ({error}).", *self._address()
            ) from error
        self.broken = "id" not in answer  # a refusal of the whole connection: the farm closes it
        protocol.check(answer)
        return answer

    def _receive(self) -> dict[str, Any]:
        while True:
            message = self._frames.next()
            if message is not None:
                return message
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            self._frames.feed(data)

    def close(self) -> None:
        """Close, and give back what was leased ahead: the farm would let it rest, for this process lives."""
        farewell = None if self.broken else self.session.farewell()
        if farewell is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(frames.encode(farewell))
        self.broken = True
        self._socket.close()
