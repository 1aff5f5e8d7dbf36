"""One blocking connection to the farm: a socket under a `Session`."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from typing import Any

from luna_farm.core import frames, protocol
from luna_farm.errors import FarmUnavailable, ProtocolError, Unauthorized
from luna_farm_client.endpoint import CONNECT_S, Endpoint, why_not
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.session import Session
from luna_farm_client.steps import Copy, Receive, Send, Sleep, Steps

READ_BYTES = 256 * 1024


class Connection:
    """Connected and authenticated, or not at all. Not for several threads at once: `FarmClient` hands out one
    each."""

    def __init__(self, endpoint: Endpoint, timeout: float, segments: MappedSegments) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._frames = frames.FrameBuffer()
        self._unsent: list[bytes | memoryview] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._unanswered: set[int] = set()
        self.session = Session(segments)
        self.broken = False
        """An answer is open, or the connection failed: nothing else may be sent on it."""
        try:
            self._socket = _connected(endpoint, min(timeout, CONNECT_S))
        except OSError as error:
            raise FarmUnavailable(why_not(endpoint, error), endpoint.host, endpoint.port) from error
        try:
            endpoint.check_owner(self._socket)
            self.run(self.session.greet(endpoint.token()))
        except Unauthorized as error:
            self.close()
            raise endpoint.refused(error) from error
        except BaseException:
            self.close()
            raise

    def run(self, steps: Steps) -> Any:
        """Drive a generator of the session to its end and return what it returns."""
        try:
            step = steps.send(None)
            while True:
                try:
                    done = self._carry_out(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(done)
        except StopIteration as stop:
            return stop.value

    def _carry_out(self, step: Send | Receive | Copy | Sleep) -> Any:
        if isinstance(step, Send):
            self._send(step)
        elif isinstance(step, Receive):
            return self._receive(step)
        elif isinstance(step, Sleep):
            time.sleep(step.seconds)
        else:
            return step.work()
        return None

    def _send(self, step: Send) -> None:
        self.broken = True  # until its answer is here: whatever interrupts us leaves it unread
        self._unanswered.add(step.message["id"])
        self._unsent += [frames.encode(step.message), *step.payload]
        if step.flush:
            unsent, self._unsent = self._unsent, []
            try:
                self._wait_at_most(self._timeout)
                for data in _joined(unsent):
                    self._socket.sendall(data)
            except OSError as error:
                raise self._unavailable(error) from error

    def _receive(self, step: Receive) -> dict[str, Any] | None:
        while step.id not in self._answers:
            if not step.wait:
                return None
            try:
                self._wait_at_most(self._timeout if step.timeout is None else step.timeout)
                answer = self._next()
            except (OSError, ProtocolError) as error:
                raise self._unavailable(error) from error
            if "id" not in answer:  # a refusal of the whole connection: the farm closes it
                protocol.check(answer)
            self._answers[answer.get("id", step.id)] = answer
        answer = self._answers.pop(step.id)
        self._unanswered.discard(step.id)
        self.broken = bool(self._unanswered)
        protocol.check(answer)
        return answer

    def _wait_at_most(self, seconds: float) -> None:
        if self._socket.gettimeout() != seconds:  # setting it is a system call
            self._socket.settimeout(seconds)

    def _next(self) -> dict[str, Any]:
        while True:
            answer = self._frames.next()
            if answer is not None:
                return answer
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            self._frames.feed(data)

    def _unavailable(self, error: Exception) -> FarmUnavailable:
        host, port = self._endpoint.host, self._endpoint.port
        return FarmUnavailable(f"The farm at {self._endpoint} does not answer ({error}).", host, port)

    def abandon(self) -> None:
        """Close the socket without a message: another process goes on using it."""
        self.broken = True
        self._socket.close()

    def __del__(self) -> None:
        """Close a connection that its program forgot: nothing can be writing into its slots any more."""
        if hasattr(self, "_socket"):
            with contextlib.suppress(Exception):  # while the interpreter ends
                self.close()

    def close(self) -> None:
        """Close, and return prefetched leases: the farm would keep them in quarantine, for this process
        lives."""
        release_message = None if self.broken else self.session.release_message()
        if release_message is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(frames.encode(release_message))
        self.broken = True
        self._socket.close()


def _connected(endpoint: Endpoint, timeout: float) -> socket.socket:
    sock = socket.create_connection((endpoint.host, endpoint.port), timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return endpoint.tls.wrap_socket(sock, server_hostname=endpoint.host) if endpoint.tls else sock
    except BaseException:
        sock.close()
        raise


def _joined(unsent: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Join frames that follow one another, so that they go out in one write; pixels stay apart."""
    out: list[bytes | memoryview] = []
    for data in unsent:
        if isinstance(data, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += data
        else:
            out.append(data)
    return out
