"""Files that a worker elsewhere sends to their destination by itself.

The bridge offers it for an image that goes to one object store and nowhere else. The worker stores each file
under its reserved name, on the condition that nothing is there, with the token that the uploader would use.
So an attempt whose answer was lost and the next one, whose bytes go through the spool, store it once.
Whatever else happens (the name is taken, no credentials on that node, no answer in time), the bytes go back
to the farm and from there through the spool, as those of every other image. Credentials are those of the
node: none leave the farm.

This module must never import ray, never take another name, and never try again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late  # the builtin one from Python 3.11 on
from dataclasses import dataclass, replace
from typing import Any

from luna_farm.config_destinations import Destination, options_here
from luna_farm.config_ray import RayCluster
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.errors import FarmError, InvalidRequest
from luna_farm.imaging import checksum
from luna_farm.locations import SCHEMES, Location, belongs_to, is_url, parse
from luna_farm.storage.sinks import open_sink
from luna_farm.storage.sinks.refusals import refusal
from luna_farm.storage.sinks.sink import Decision, Sink, SinkError, described
from luna_farm.storage.upload_spool import token_of
from luna_farm.testing.faults import crash_point
from luna_farm.worker import writing
from luna_farm.worker.made import Made

FIRST_PAUSE_S, LAST_PAUSE_S = 10.0, 600.0
"""How long a node that could not send is not asked again; doubles with each failure in a row."""
AT_A_TIME = 4
"""Requests of one worker: more than one only where earlier ones hang."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Where a worker may send the files of an image."""

    location: Location
    destination: Destination
    send_s: float

    @property
    def place(self) -> str:
        """What fails or works as one: the destination of the configuration, or the bucket."""
        return self.destination.name or self.location.base


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a worker could not send. `about_image`: another image might be sent."""

    error: str
    about_image: bool


class Sender:
    """The connections of one worker."""

    def __init__(self) -> None:
        self._sinks: dict[str, Sink] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(AT_A_TIME, "send")

    def send(self, made: Made, offer: Offer) -> Made | Refused:
        """Send all files of an image, the image itself last; return what it is then. Ends in time even if the
        request does not: what it stores later is found by its token."""
        started = time.perf_counter()
        work = self._threads.submit(self._stored, made, offer)
        try:
            stored = work.result(offer.send_s)
        except SinkError as error:
            about_image = error.decision in (Decision.NEXT_NUMBER, Decision.FAIL)
            return Refused(str(error), about_image)
        except Late:
            work.cancel()
            return Refused(str(refusal(offer.location.base, "timeout")), False)
        except FarmError as error:
            return Refused(str(error), False)
        except Exception as error:  # a bug of a library: its text may hold anything
            return Refused(f"{offer.location.base}: {type(error).__name__}", False)
        for file in made.files:
            file.encoded.buffers = []
        ms = {**made.ms, "send": (time.perf_counter() - started) * 1e3}
        return replace(made, stored=stored, ms=ms)

    def _stored(self, made: Made, offer: Offer) -> tuple[Mapping[str, Any], ...]:
        sink = self._sink(offer)
        root, prefix = made.task.root, offer.location.prefix
        done: list[Mapping[str, Any]] = []
        for part, name, buffers, content_type in reversed(writing.parts(made, root, made.path, {})):
            body = b"".join(buffers)
            token = token_of(made.task.job_id, made.task.index, part)
            crash_point("ray.sending")
            stored = sink.put(
                f"{prefix}/{name}" if prefix else name,
                described(token, [body], content_type),
                memoryview(body),
                again=False,
            )
            crash_point("ray.stored")
            crc32 = None if stored.other else checksum.crc32([body])
            done.append({"spool": "", "root": root, "name": name, "bytes": stored.bytes, "crc32": crc32})
        return tuple(reversed(done))

    def _sink(self, offer: Offer) -> Sink:
        """Return the connection to a place; a request ends soon after its time is over."""
        with self._lock:
            if offer.location.base not in self._sinks:
                options = options_here(offer.destination, os.environ)
                timeout_s = min(float(options.get("timeout", offer.send_s)), offer.send_s)
                sink = open_sink(offer.location, {**options, "timeout": timeout_s})
                self._sinks[offer.location.base] = sink
            return self._sinks[offer.location.base]


class Offers:
    """Decides for the bridge which images workers may send, and leaves nodes alone that cannot."""

    def __init__(self, cluster: RayCluster, now: Callable[[], float] = time.monotonic) -> None:
        self._destinations = {at.name: at for at in cluster.destinations}
        self._places = [(at.name, parse("url", at.url)) for at in cluster.destinations]
        self._send_s = cluster.send_s
        self._now = now
        self._lock = threading.Lock()
        self._failing: dict[tuple[str, str], tuple[float, float]] = {}
        """(node, place) -> when it may be tried again, the pause that comes after that."""

    def of(self, node: str, task: ImageTask, options: SaveOptions) -> Offer | None:
        """Return the offer for an image, None if its bytes have to come back. The keys of C2PA are on the
        farm's machine, and so are folders, archives, and what an earlier attempt may have spooled or sent."""
        here = task.recovered or options.mirrors or task.archive or options.provenance == "c2pa"
        if here or not is_url(task.root):
            return None
        try:
            location = parse("output_dir", task.root)
        except InvalidRequest:  # accepted by an older version: the uploader says why it fails
            return None
        if not SCHEMES[location.scheme].tokens:
            return None
        name = belongs_to(location, self._places)
        destination = self._destinations.get(name) or Destination("", location.base)
        offer = Offer(location, destination, self._send_s)
        with self._lock:
            until, _ = self._failing.get((node, offer.place), (0.0, 0.0))
        return offer if self._now() >= until else None

    def came(self, node: str, offer: Offer, refused: Refused | None) -> str:
        """Take note of what came of an offer; return a line for the log, "" if there is no news."""
        key = node, offer.place
        with self._lock:
            if refused is None:
                known = self._failing.pop(key, None)
                return f"Workers on the node {node} send to {offer.place} again." if known else ""
            if refused.about_image:
                return ""
            _, pause_s = self._failing.get(key, (0.0, 0.0))
            next_s = min(LAST_PAUSE_S, 2 * pause_s or FIRST_PAUSE_S)
            self._failing[key] = self._now() + next_s, next_s
        if pause_s:
            return ""
        return f"Workers on the node {node} cannot send to {offer.place}, so the farm does: {refused.error}"
