"""The floor of a hand-over: the least that any program does that gives images to another process.

The pixels are copied (or quantised) into shared memory, one message goes over a loopback connection to
another Python process, one answer comes back, through plain blocking sockets: nothing is judged, named or
noted. Measured in turns with the farm's hand-overs it says what of them this machine asks for. It must never
get warm caches that the farm does not get.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from luna_farm.imaging.quantize import copy_bytes, quantize
from luna_farm.storage.arena import Arena
from luna_farm_client.device import is_on_gpu, register_cuda, unregister_cuda
from luna_farm_client.pixels import copy_into

MESSAGE_BYTES = 600
"""About what a submit and its answer have each."""
_STARTED_WITHIN_S = 30.0


def _echo(port: int) -> None:
    """Answer each message with the same bytes, until the other side closes. Runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl+C is for the one that measures
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while message := _receive(connection):
            connection.sendall(message)


def _receive(connection: socket.socket) -> bytes:
    """Return one whole message, b"" where the other side closed."""
    received = b""
    while len(received) < MESSAGE_BYTES:
        part = connection.recv(MESSAGE_BYTES - len(received))
        if not part:
            return b""
        received += part
    return received


class Floor:
    """Shared memory for the largest of some images, and a process that answers each message with itself.

    `pid` is that process."""

    def __init__(self, images: list[Any], answer: Callable[..., None] = _echo, *more: Any) -> None:
        """Take the memory and start the process. `images`: arrays or tensors, each one of `round`.
        `answer` connects to the port that it is given, with `more` behind it, and answers."""
        most = max(int(np.prod(pixels.shape)) for pixels in images)
        self._arena = Arena.create(f"shm:luna-floor-{os.urandom(4).hex()}", most)
        self._arena.warm()
        self._view = self._arena.view(0, most)
        self._locked = any(map(is_on_gpu, images)) and register_cuda(self._view)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(_STARTED_WITHIN_S)
            context = multiprocessing.get_context("spawn")
            self._process = context.Process(
                target=answer, args=(listener.getsockname()[1], *more), daemon=True
            )
            self._process.start()
            self.pid = self._process.pid or 0
            self._connection, _ = listener.accept()
        self._connection.settimeout(None)  # blocking: a timeout would cost another system call each time
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Floor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()  # which ends the process
        self._process.join()
        if self._locked:
            unregister_cuda(self._view)
        self._arena.unlink()
        self._arena.close()

    def round(self, pixels: Any) -> float:
        """Return the seconds that the copy of one of the images, a message and its answer took."""
        started = time.perf_counter()
        _fill(pixels, self._view[: int(np.prod(pixels.shape))])
        self.exchange(self._connection)
        return time.perf_counter() - started

    def exchange(self, connection: socket.socket) -> None:
        """Send one message and receive its answer."""
        connection.sendall(bytes(MESSAGE_BYTES))
        if not _receive(connection):
            raise ConnectionError("The process that answers messages for the floor of the hand-over ended.")


def _fill(pixels: Any, view: memoryview) -> None:
    if not isinstance(pixels, np.ndarray):
        copy_into(pixels, view)  # of a tensor on a GPU: there is no shorter way
        return
    target = np.frombuffer(view, np.uint8).reshape(pixels.shape)
    if pixels.dtype == np.uint8:
        copy_bytes(pixels.reshape(-1), target.reshape(-1))
    else:
        quantize(pixels, target)
