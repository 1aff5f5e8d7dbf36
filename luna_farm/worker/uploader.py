"""The uploader: a process that sends spooled files, several at a time, and reports what came of each. It
writes archives as well (`archiver.py`).

A process of its own, because the libraries of the services bring threads and memory, and because a library
that hangs can be ended. When the pipe ends the supervisor is dead: the uploader ends at once, and what was on
its way is recognised by the next one. It must never decide whether an upload is tried again.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from luna_farm import system
from luna_farm.config_destinations import UPLOADS, Destination
from luna_farm.core import frames
from luna_farm.errors import DiskError, FarmError, InvalidRequest
from luna_farm.locations import Location, belongs_to, is_url, parse
from luna_farm.storage import mounts, upload_spool
from luna_farm.storage.sinks import open_sink, send
from luna_farm.storage.sinks.refusals import refusal
from luna_farm.storage.sinks.sink import Decision, Sink, SinkError, Stored
from luna_farm.storage.upload_spool import UploadSpool
from luna_farm.testing.faults import crash_point
from luna_farm.worker.archiver import Archiver

READ_BYTES = 64 * 1024
PLACES = 64
"""Places that keep their threads without anything to do."""
GATHER_S = 0.02
"""How long an answer waits for others. The next uploads do not wait for it: they are ordered ahead."""


def serve(pipe: socket.socket, destinations: Sequence[Destination], spool: str, shards: str) -> None:
    """Serve until the supervisor's end of the pipe closes. `spool` is the folder of the upload spool,
    `shards` the one of archives on their way to a destination."""
    Uploader(pipe, destinations, UploadSpool(spool), shards).run()


class Uploader:
    """One uploader process: its pipe, and for each destination the threads that send to it."""

    def __init__(
        self, pipe: socket.socket, destinations: Sequence[Destination], spool: UploadSpool, shards: str
    ) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._said = threading.Condition()
        self._answers: list[dict[str, Any]] = []
        self._in_hand = 0
        """Answers to come, one to each order."""
        self._frames = frames.FrameBuffer()
        self._destinations = {at.name: at for at in destinations}
        self._places = [(at.name, parse("url", at.url)) for at in destinations]
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._pending: Counter[str] = Counter()
        """Place -> uploads there that are not over."""
        self._shared: dict[str, Sink] = {}
        self._own = threading.local()
        self._archiver = Archiver(shards, spool, self._say)
        self._spool = spool
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="remove")
        threading.Thread(target=self._speak, daemon=True).start()

    def run(self) -> None:
        """Report ready, then send what comes; ends with the process. The supervisor orders nothing before."""
        ready = {"t": "ready", "pid": os.getpid(), "created": system.process_started(os.getpid())}
        self._send([ready])
        while message := self._next():
            if message["t"] == "stop":
                break
            self.take(message)
        os._exit(0)  # a request that hangs must not delay the end

    def take(self, message: dict[str, Any]) -> None:
        """Take an order; its answer follows once it is carried out."""
        with self._said:
            self._in_hand += 1
        if message["t"] == "upload":
            self._submit(message)
        elif message["t"] == "remove":
            self._remover.submit(self._remove, message)
        else:
            self._archiver.take(message)

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

    def _say(self, message: dict[str, Any]) -> None:
        with self._said:
            self._answers.append(message)
            self._said.notify()

    def _speak(self) -> None:
        """Send answers for as long as the process lives: together while more are to come, because each
        message wakes the supervisor, and it looks for what may begin after each."""
        while True:
            with self._said:
                self._said.wait_for(lambda: self._answers)
                self._said.wait_for(lambda: len(self._answers) >= self._in_hand, GATHER_S)
                answers, self._answers = self._answers, []
                self._in_hand -= len(answers)
            self._send(answers)

    def _send(self, answers: list[dict[str, Any]]) -> None:
        try:
            self._pipe.sendall(frames.encode({"t": "answers", "answers": answers}))
        except OSError:
            os._exit(0)

    def _submit(self, message: dict[str, Any]) -> None:
        root = message["root"]
        try:
            location = parse("output_dir", root) if is_url(root) else None
        except InvalidRequest as error:  # accepted by an older version
            self._say(
                {"t": "uploaded", "id": message["id"], "error": str(error), "decision": Decision.FAIL.value}
            )
            return
        name = belongs_to(location, self._places) if location else ""
        place = name or (location.base if location else root)
        if place not in self._threads:
            self._forget_idle()
            uploads = self._destinations[name].uploads if name else UPLOADS
            self._threads[place] = ThreadPoolExecutor(uploads, thread_name_prefix="upload")
        with self._lock:
            self._pending[place] += 1
        self._threads[place].submit(self._upload, message, location, name, place)

    def _forget_idle(self) -> None:
        """End the threads of places that are done with, once there are many: requests may name any number of
        folders and buckets."""
        if len(self._threads) < PLACES:
            return
        with self._lock:
            for place in [place for place in self._threads if not self._pending[place]]:
                self._threads.pop(place).shutdown(wait=False)
                self._shared.pop(place, None)
                del self._pending[place]

    def _upload(self, message: dict[str, Any], location: Location | None, name: str, place: str) -> None:
        """Send a file to the destination `name` of the configuration, "" for none of it."""
        crash_point("upload.sending")
        answer: dict[str, Any] = {"t": "uploaded", "id": message["id"]}
        try:
            stored = self._stored(message, location, self._destinations[name].options if name else {})
            crash_point("upload.stored")
            answer |= {"name": stored.key, "bytes": stored.bytes}
        except SinkError as error:
            answer |= {"error": str(error), "decision": error.decision.value, "wait_s": error.retry_after_s}
        except FarmError as error:
            answer |= {"error": str(error), "decision": Decision.RETRY.value}
        except BaseException as error:  # a bug of a library must cost a try, not the uploader
            failed = refusal(message["root"], "library", type(error).__name__)
            answer |= {"error": str(failed), "decision": failed.decision.value}
        if name and "error" in answer:
            answer["error"] = answer["error"].replace("[destinations.NAME]", f"[destinations.{name}]")
        with self._lock:
            self._pending[place] -= 1
        self._say(answer)

    def _stored(self, message: dict[str, Any], location: Location | None, options: Any) -> Stored:
        """Send one file; the name that it got is relative to the root, as the wanted one is."""
        spooled = upload_spool.read_to_send(message["path"])
        try:
            mounts.require(message["mount"], f"{message['root']}/{message['name']}")
        except DiskError as error:
            raise SinkError(str(error), Decision.HOLD, "disk") from error
        prefix = f"{location.prefix}/" if location and location.prefix else ""
        sink = self._sink(location or message["root"], options)
        with upload_spool.body_of(spooled) as body:
            stored = send(sink, prefix + message["name"], spooled.upload, body, again=message["again"])
        return Stored(stored.key[len(prefix) :], stored.bytes, stored.found)

    def _remove(self, message: dict[str, Any]) -> None:
        """Remove files that every destination has confirmed."""
        self._spool.remove_all(message["paths"])
        self._say({"t": "removed", "id": message["id"]})

    def _sink(self, place: Location | str, options: Any) -> Sink:
        base = place.base if isinstance(place, Location) else place
        with self._lock:
            if base in self._shared:
                return self._shared[base]
        mine: dict[str, Sink] = self._own.__dict__
        if base not in mine:
            sink = open_sink(place, options)
            if sink.thread_safe:
                with self._lock:
                    return self._shared.setdefault(base, sink)
            mine[base] = sink
        return mine[base]
