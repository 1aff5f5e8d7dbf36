"""The loop of a worker: an image from the supervisor, a result back. While one image is written and synced,
the next is encoded; results go back in order.

When the pipe ends the supervisor is dead: the worker has finished its file by then and leaves without a word.
It must never decide anything about jobs.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from luna_farm import system
from luna_farm.config_provenance import UNSIGNED, Signing
from luna_farm.core import frames
from luna_farm.core.messages import ImageResult, ImageTask, Note, SaveOptions
from luna_farm.locations import is_url
from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.storage.arena import Segments
from luna_farm.storage.notes import Notes
from luna_farm.storage.thumbnails import Thumbnails
from luna_farm.storage.upload_spool import UploadSpool
from luna_farm.testing.faults import crash_point
from luna_farm.worker import pipeline, writing
from luna_farm.worker.attempt import attempt
from luna_farm.worker.made import Made
from luna_farm.worker.thumbnails import QUIET_S, ThumbnailMaker

IDLE_S = 5.0
"""After so long without work, memory that the encoders freed goes back to the system."""
READ_BYTES = 256 * 1024
ASIDE_BYTES = 256 * 1024
"""Smaller images are written without the thread: handing them over to it costs more than it gains (0.94
times as many images of 64x64)."""


def serve(
    pipe: socket.socket,
    fsync: bool,
    notes: str,
    signing: Signing = UNSIGNED,
    uploads: str = "",
    allowed: Allowed = ANYWHERE,
    catalogue: Sequence[str] | None = None,
    thumbnails: tuple[str, int] = ("", 0),
) -> None:
    """Serve until the supervisor says stop or its end of the pipe closes; `notes` is the file for them,
    `uploads` the folder of the upload spool, `allowed` says where files may be written, `catalogue` what rows
    of the catalogue keep (None: no catalogue), `thumbnails` is the file for those and the bytes it may have
    (0: none are kept)."""
    path, max_bytes = thumbnails
    maker = ThumbnailMaker(Thumbnails(path, max_bytes)) if max_bytes else None
    spool = UploadSpool(uploads) if uploads else None
    Worker(pipe, fsync, Notes(notes), signing, spool, allowed, catalogue, maker).run()


class Worker:
    """One worker: its pipe, the segments it has mapped, and a thread that writes while the next image is
    encoded."""

    def __init__(
        self,
        pipe: socket.socket,
        fsync: bool,
        notes: Notes,
        signing: Signing = UNSIGNED,
        uploads: UploadSpool | None = None,
        allowed: Allowed = ANYWHERE,
        catalogue: Sequence[str] | None = None,
        thumbnails: ThumbnailMaker | None = None,
    ) -> None:
        self._thumbnails = thumbnails
        self._allowed = allowed
        self._pipe = pipe
        self._catalogue = catalogue
        self._fsync = fsync
        self._notes = notes
        self._signing = signing
        self._uploads = uploads
        self._segments = Segments()
        self._frames = frames.FrameBuffer()
        self._disk = ThreadPoolExecutor(1, "disk")
        self._writing: Future[None] | None = None
        """At most one image is being written; until it is reported, nothing else is."""
        self._worked = False
        """Something was encoded since memory was last given back."""

    def run(self) -> None:
        """Report ready, then work through what comes."""
        created = system.process_started(os.getpid())
        self._send({"t": "ready", "pid": os.getpid(), "created": created, "encoders": pipeline.encoders()})
        while message := self._next():
            kind = message["t"]
            if kind == "stop":
                break
            if kind == "image":
                self._image(message)
            elif kind == "forget":
                self._segments.forget(message["segment"])
        self._wait_for_disk()
        if self._thumbnails is not None:
            self._thumbnails.close()

    def _next(self) -> dict[str, Any] | None:
        while True:
            message = self._frames.next()
            if message is not None:
                return message
            self._use_pause()
            try:
                data = self._pipe.recv(READ_BYTES)
            except ConnectionError:
                return None
            if not data:
                return None
            self._frames.feed(data)

    def _use_pause(self) -> None:
        """Until a message arrives, make the thumbnails that wait, once nothing came for a moment; after a
        long while give memory back."""
        maker, quiet_s = self._thumbnails, QUIET_S
        while True:
            waits = maker is not None and (maker.waits or self._writing)
            if not (waits or self._worked):
                return
            if select.select([self._pipe], [], [], quiet_s if waits else IDLE_S)[0]:
                return
            if maker is not None and waits:
                self._wait_for_disk()  # its image wants a thumbnail too
                maker.make_one()
                quiet_s = 0.0
            else:
                self._worked = False
                system.release_memory()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._pipe.sendall(frames.encode(message))
        except ConnectionError:
            return  # the next read finds the pipe closed

    def _image(self, message: dict[str, Any]) -> None:
        crash_point("worker.received")
        self._worked = True
        task = ImageTask.from_values(message["task"])
        options = SaveOptions.from_values(message["options"])
        elsewhere = is_url(task.root) or bool(task.archive)  # no file that could be read later
        sampled = self._thumbnails is not None and (message["last"] or elsewhere)
        made = attempt(task, lambda: self._encoded(task, options, sampled))
        self._wait_for_disk()
        if isinstance(made, ImageResult):
            self._report(task, made)
        elif made.task.nbytes >= ASIDE_BYTES and self._more_is_here():
            self._writing = self._disk.submit(self._write, made)
        else:
            self._write(made)

    def _encoded(self, task: ImageTask, options: SaveOptions, sampled: bool) -> Made | ImageResult:
        pixels = pipeline.view(self._segments, task)
        return pipeline.encoded(pixels, task, options, self._signing, sampled=sampled)

    def _write(self, made: Made) -> None:
        def note(note: Note) -> None:
            self._notes.write(note, sync=self._fsync and made.options.durable)

        result = attempt(
            made.task,
            lambda: writing.written(
                made,
                self._uploads,
                fsync=self._fsync,
                note=note,
                allowed=self._allowed,
                catalogue=self._catalogue,
            ),
        )
        self._report(made.task, result)
        if self._thumbnails is not None and result.state != "failed":
            at = made.task.job_id, made.task.index
            self._thumbnails.add(*at, made.sample, result.path, made.files[0].bytes)

    def _wait_for_disk(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _more_is_here(self) -> bool:
        """Whether there is something to do while the disk is waited for."""
        return bool(self._frames.pending or select.select([self._pipe], [], [], 0)[0])

    def _report(self, task: ImageTask, result: ImageResult) -> None:
        key = {"job_id": task.job_id, "index": task.index}
        self._send({"t": "result", **key, "result": result.values()})
        crash_point("worker.reported")
