"""One blocking connection to the farm: a socket under a `Session`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any

from luna_farm.core import frames, protocol
from luna_farm.errors import FarmUnavailable, ProtocolError
from luna_farm_client.endpoint import CONNECT_S, Endpoint, why_not
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.session import Call, Copy, Send, Session, Steps

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
            raise FarmUnavailable(why_not(endpoint, error), endpoint.host, endpoint.port) from error
        try:
            endpoint.check_owner(self._socket)
            self.run(self.session.greet(endpoint.token()))
        except BaseException:
            self.close()
            raise

    def run(self, steps: Steps) -> Any:
        """Drive a generator of the session to its end and return what it returns."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Call):
                    step = steps.send(self.call(step))
                elif isinstance(step, Send):
                    self._say(step.message)
                    step = next(steps)
                else:
                    step = self._work(step, steps)
        except StopIteration as stop:
            return stop.value

    def _work(self, fill: Copy, steps: Steps) -> Call | Send | Copy:
        try:
            done = fill.work()
        except Exception as error:
            return steps.throw(error)
        return steps.send(done)

    def call(self, call: Call, timeout: float | None = None) -> dict[str, Any]:
        """Send one message, return its answer. Raises what the answer tells, and FarmUnavailable when none
        comes."""
        self._say(call.message, call.payload, again=call.told, timeout=timeout)
        try:
            answer = self._receive()
        except (OSError, ProtocolError) as error:
            raise self._unavailable(error) from error
        self.broken = "id" not in answer  # a refusal of the whole connection: the farm closes it
        protocol.check(answer)
        return answer

    def _say(
        self,
        message: dict[str, Any],
        payload: Sequence[memoryview] = (),
        *,
        again: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Send a message under the next id, or `again` under the last one."""
        self._calls += not again
        self.broken = True  # until the answer is here: whatever interrupts us leaves it to nobody
        try:
            self._socket.settimeout(self._timeout if timeout is None else timeout)
            self._socket.sendall(frames.encode({**message, "id": self._calls}))
            for data in payload:
                self._socket.sendall(data)
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> FarmUnavailable:
        host, port = self._endpoint.host, self._endpoint.port
        return FarmUnavailable(f"The farm at {self._endpoint} does not answer ({error}).", host, port)

    def _receive(self) -> dict[str, Any]:
        while True:
            answer = self._frames.next()
            if answer is not None:
                if answer.get("id", self._calls) == self._calls:  # another is to a submit that was taken back
                    return answer
                continue
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            self._frames.feed(data)

    def abandon(self) -> None:
        """Let go of the socket without a word: another process goes on using it."""
        self.broken = True
        self._socket.close()

    def close(self) -> None:
        """Close, and give back what was leased ahead: the farm would let it rest, for this process lives."""
        release_message = None if self.broken else self.session.release_message()
        if release_message is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(frames.encode(release_message))
        self.broken = True
        self._socket.close()
