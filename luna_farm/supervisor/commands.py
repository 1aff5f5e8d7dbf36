"""What each command of a client means: an event for the core, or a question that is answered at once.

One table from the name of a command to the function for it. This module must never change the state of the
farm itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Protocol, get_args

from luna_farm import __version__, system
from luna_farm.config import Config
from luna_farm.core import events, fields, schema
from luna_farm.core.job_requests import unknown
from luna_farm.core.leases import MAX_LEASES
from luna_farm.core.protocol import NAME, VERSION, refusal
from luna_farm.core.state import Farm
from luna_farm.errors import FarmError, InvalidRequest, ProtocolError
from luna_farm.storage.arena import Arena, Segments
from luna_farm.supervisor.connection import ClientConnection
from luna_farm.supervisor.dashboard import Dashboard
from luna_farm.supervisor.finder import Finder
from luna_farm.supervisor.marked import Marked
from luna_farm.testing.faults import crash_point

log = logging.getLogger("luna_farm.commands")

ENDED_S = 0.1
"""Between two looks whether the process of a client that is gone has ended, while its slots rest."""
MAX_WAIT_S = 3600.0
MAX_INDEX = 10**5
"""Of an image in its job; `max_images` allows no more."""
IDS_TOGETHER = 256
"""Job ids whose random bytes the system is asked for at once."""
MAX_LISTED = 10_000
"""Jobs of one list; and about as many images of them, so that the list fits into a frame."""


class Shell(Protocol):
    """What commands need of the supervisor."""

    config: Config
    farm: Farm
    arena: Arena
    finder: Finder
    dashboard: Dashboard

    @property
    def segments(self) -> Segments:
        """The segments that this process has mapped."""

    def now(self) -> float:
        """Monotonic time in seconds."""

    def handle_event(self, event: events.Event) -> None:
        """Have the core handle an event and execute what it decides."""

    def status(self) -> dict[str, Any]:
        """The status of the whole farm."""

    def stop(self, now: bool) -> None:
        """Begin to stop: finish what was accepted, or leave it to the journal."""


class Commands:
    """Takes the messages of known clients. `defaults` stand for fields that a submit leaves out, `limits` are
    those that it is judged by."""

    def __init__(self, shell: Shell, defaults: Mapping[str, Any], limits: Mapping[str, int]) -> None:
        self._shell = shell
        self._defaults = defaults
        self._limits = limits
        self._random = b""
        """Bytes for the next job ids."""
        self._marked = Marked(shell)
        self._marks: set[str] = set()
        """Kinds of provenance that were logged."""
        self._table: dict[str, Callable[[ClientConnection, int, dict[str, Any]], dict[str, Any] | None]] = {
            "ping": lambda *_: {"pong": True},
            "status": lambda *_: shell.status(),
            "lease": self._lease,
            "release": self._release,
            "save_images_async": self._submit,
            "save_many": self._submit_many,
            "seal": self._seal,
            "abort": self._abort,
            "job": self._job,
            "jobs": self._jobs,
            **dict.fromkeys(get_args(events.JobCommand), self._job_command),
            "login": lambda *_: shell.dashboard.login_link(),
            "pause": self._pause,
            "resume": self._pause,
            "find": self._find,
            "drain": lambda *_: self._stop(False),
            "shutdown": lambda *_: self._stop(True),
        }

    def welcome(self) -> dict[str, Any]:
        """What a client learns when it is let in: who it speaks to, where the arena is, what the bounds
        are."""
        arena = self._shell.arena
        return {
            "protocol": NAME,
            "version": VERSION,
            "server": __version__,
            "state_dir": str(self._shell.config.state_dir.absolute()),
            "arena": {"segment": arena.name, "bytes": arena.size, "uuid": str(arena.uuid)},
            "limits": self._limits,
            "early": True,
        }

    def gone(self, connection: ClientConnection) -> None:
        """A client is gone. What it had copied by then counts, if it has its receipt."""
        self._marked.give_up(connection.number)
        self._shell.handle_event(events.ClientGone(connection.number, connection.may_write))
        self._look_for_end(connection.number, connection.pid)

    def _look_for_end(self, client: int, pid: int) -> None:
        """Free the slots of a client that is gone once its process is: one that is killed is still there when
        its connection ends."""
        if not self._shell.farm.slots.rest_of(client):
            return
        if system.process_started(pid) is None:
            self._shell.handle_event(events.ClientGone(client, may_write=False))
        else:
            asyncio.get_running_loop().call_later(ENDED_S, self._look_for_end, client, pid)

    def message(self, connection: ClientConnection, message: dict[str, Any]) -> None:
        """Carry out one command; its answer says what is wrong with it."""
        reply = message.get("id", 0)
        if type(reply) is not int:
            raise ProtocolError("`id` must be a whole number.")
        if self._marked.expects:
            self._marked.look()
        name = schema.command(message)
        run = self._table.get(name)
        if run is None:
            raise ProtocolError(f"There is no command {name!r}; there are {', '.join(self._table)}.")
        try:
            answer = run(connection, reply, message)
        except FarmError as error:
            if message.get("inline"):
                raise  # raw pixels follow that look like frames: the connection ends
            answer = refusal(error)
        if answer is not None:
            connection.send({**answer, "id": reply})

    def _lease(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> None:
        sizes = schema.sizes(message, "sizes", MAX_LEASES, 2**62)  # which bound they exceed says the core
        self._shell.handle_event(events.LeaseRequested(connection.number, reply, sizes))
        crash_point("supervisor.leased")

    def _release(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> dict[str, Any]:
        leases = schema.sizes(message, "leases", MAX_LEASES, 2**62)
        self._shell.handle_event(events.LeasesReturned(connection.number, leases))
        return {"success": True}

    def _submit(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> None:
        submit = schema.submit(message, self._defaults, self._limits)
        self._log_first_marks(submit.options.provenance)
        crash_point("supervisor.submitted")
        self._shell.handle_event(events.Submitted(connection.number, reply, submit, self._fresh_id()))
        if submit.into:
            self._marked.expect()

    def _submit_many(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> None:
        submits, want = schema.submit_many(message, self._defaults, self._limits)
        for submit in submits:
            self._log_first_marks(submit.options.provenance)
        ids: dict[str, None] = {}
        while len(ids) < len(submits):
            ids[self._fresh_id()] = None
        event = events.ManySubmitted(connection.number, reply, submits, tuple(ids), want)
        self._shell.handle_event(event)

    def _log_first_marks(self, provenance: str) -> None:
        if provenance != "off" and provenance not in self._marks:
            self._marks.add(provenance)
            log.info("[Image Save] Images are marked as generated from here on (provenance %s).", provenance)

    def _seal(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> None:
        parts = schema.parts(message, MAX_LEASES)
        event = events.Sealed(connection.number, reply, parts, time.time_ns())
        if not fields.boolean(message, "inline", False):
            self._shell.handle_event(event)
            return
        sizes = schema.sizes(message, "sizes", MAX_LEASES, 2**62)
        if len(sizes) != len(parts):  # a slot without pixels of its own holds those of another job
            raise InvalidRequest.of("sizes", len(sizes), f"{len(parts)} sizes, one for each part")
        views = [
            self._slot_view(connection.number, part.lease, size)
            for part, size in zip(parts, sizes, strict=True)
        ]
        connection.receive_pixels(views, lambda: self._shell.handle_event(event))

    def _slot_view(self, client: int, lease: int, size: int) -> memoryview:
        farm = self._shell.farm
        slot = farm.slots.held_by(client, lease)
        if slot is None or slot.size < size:
            raise InvalidRequest.of("lease", lease, "a lease of this connection with room for the pixels")
        return self._shell.segments.view(slot.segment or farm.segment, slot.offset, size)

    def _abort(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> None:
        self._shell.handle_event(events.Aborted(connection.number, reply))

    def _fresh_id(self) -> str:
        farm = self._shell.farm
        while True:
            self._random = self._random or os.urandom(4 * IDS_TOGETHER)
            job_id, self._random = self._random[:4].hex(), self._random[4:]
            if job_id not in farm.jobs and job_id not in farm.submits:
                return job_id

    def _job(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> dict[str, Any]:
        job = self._shell.farm.jobs.get(self._id(message))
        if job is None:
            raise unknown(self._id(message))
        return job.report()

    def _jobs(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> dict[str, Any]:
        limit = fields.integer(message, "limit", 1, MAX_LISTED, 100)
        listed: list[dict[str, Any]] = []
        images = 0
        for job in islice(reversed(self._shell.farm.jobs.values()), limit):
            images += len(job.images)
            if listed and images > MAX_LISTED:
                break
            listed.append(job.report())
        return {"jobs": listed}

    def _job_command(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> None:
        timeout_s = fields.number(message, "timeout", 0.0, MAX_WAIT_S, 30.0)
        command: events.JobCommand = message["cmd"]
        until = self._shell.now() + timeout_s
        job_id = self._id(message)
        index = None if "index" not in message else fields.integer(message, "index", 0, MAX_INDEX, 0)
        event = events.JobRequested(connection.number, reply, command, job_id, until, index)
        self._shell.handle_event(event)

    def _pause(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> None:
        self._shell.handle_event(events.PauseRequested(connection.number, reply, message["cmd"] == "pause"))

    def _find(self, connection: ClientConnection, reply: int, message: dict[str, Any]) -> None:
        self._shell.finder.ask(message, lambda answer: connection.send({**answer, "id": reply}))

    def _stop(self, now: bool) -> dict[str, Any]:
        # After this answer was written, so that the caller gets it.
        asyncio.get_running_loop().call_soon(self._shell.stop, now)
        return {"success": True, "pid": self._shell.status()["pid"]}

    def _id(self, message: Mapping[str, Any]) -> str:
        return fields.text(message, "job_id", limit=64)
