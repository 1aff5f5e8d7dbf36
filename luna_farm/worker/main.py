"""The loop of a worker: a message from the supervisor, an image or a temporary link to tidy up, a message
back.

When the pipe ends the supervisor is dead: the worker has finished its file by then and leaves without a word.
It must never decide anything about jobs.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from luna_farm import system
from luna_farm.core import frames
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.errors import FarmError
from luna_farm.storage import writer
from luna_farm.storage.arena import Segments
from luna_farm.testing.faults import crash_point
from luna_farm.worker import pipeline

READ_BYTES = 256 * 1024


def serve(pipe: socket.socket, fsync: bool) -> None:
    """Serve until the supervisor says stop or its end of the pipe closes."""
    Worker(pipe, fsync).run()


class Worker:
    """One worker: its pipe, and the segments it has mapped."""

    def __init__(self, pipe: socket.socket, fsync: bool) -> None:
        self._pipe = pipe
        self._fsync = fsync
        self._segments = Segments()
        self._frames = frames.FrameBuffer()
        self._settled: list[list[str | int]] = []
        """Told with the next result: nobody waits for it, and every message wakes the supervisor up."""

    def run(self) -> None:
        """Report ready, then work through what comes."""
        created = system.process_started(os.getpid())
        self._send({"t": "ready", "pid": os.getpid(), "created": created, "encoders": pipeline.encoders()})
        while message := self._next():
            kind = message["t"]
            if kind == "stop":
                return
            if kind == "image":
                self._image(message)
            elif kind == "settle":
                self._settle(message)
            elif kind == "forget":
                self._segments.forget(message["segment"])

    def _next(self) -> dict[str, Any] | None:
        while True:
            message = self._frames.next()
            if message is not None:
                return message
            try:
                data = self._pipe.recv(READ_BYTES)
            except ConnectionError:
                return None
            if not data:
                return None
            self._frames.feed(data)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._pipe.sendall(frames.encode(message))
        except ConnectionError:
            return  # the next read finds the pipe closed

    def _image(self, message: dict[str, Any]) -> None:
        crash_point("worker.received")
        task = ImageTask.from_map(message["task"])
        options = SaveOptions.from_map(message["options"])
        result = self._made(task, options)
        settled, self._settled = self._settled, []
        key = {"job_id": task.job_id, "index": task.index}
        self._send({"t": "result", **key, "result": result.to_map(), "settled": settled})
        crash_point("worker.reported")

    def _made(self, task: ImageTask, options: SaveOptions) -> ImageResult:
        try:
            pixels = pipeline.view(self._segments, task)
            return pipeline.make(pixels, task, options, fsync=self._fsync)
        except FarmError as error:
            return ImageResult("failed", path=task.path, error=str(error), code=error.code)
        except MemoryError:
            return ImageResult(
                "failed", path=task.path, error="There is not enough memory to encode it.", code="memory"
            )
        except Exception as error:  # an encoder's bug must cost its image, not the worker
            return ImageResult(
                "failed", path=task.path, error=f"{type(error).__name__}: {error}", code="encode"
            )

    def _settle(self, message: dict[str, Any]) -> None:
        try:
            writer.settle(message["temp"], message["root"])
        except FarmError:
            return  # the folder is gone for now; the link is found again when the journal is read
        self._settled.append([message["job_id"], message["index"]])
