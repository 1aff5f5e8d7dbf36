"""Uploads on their way to a destination, and the circuit of each destination: when the next one may start.

A circuit opens when a destination fails several times in a row, or at once when nothing can work there (no
credentials, no connection). While it is open, one upload at a time finds out whether that has changed; the
uploads take turns, so that one that fails alone delays no other. Policy only: no instructions, no clocks.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from luna_farm.core.retry import LAST_DELAY_S, pause_s
from luna_farm.core.typed import typed

OPENS_AFTER = 3
"""Failures in a row that open a circuit."""
MAX_TRIES = 12
"""An upload that has failed so often while others got through has failed for good; its file is kept."""
OTHERS = 3
"""So many others count as "others got through"."""
LONGEST_WAIT_S = 600.0
"""The longest wait that a service may ask for."""
UPLOADS = 8
"""Uploads at a time to a destination that the configuration does not name."""


class UploadState(Enum):
    """Where one upload is."""

    __hash__ = object.__hash__

    WAITING = "waiting"
    RUNNING = "uploading"
    PACKED = "packed"
    """In its archive, on the disk; the archive is not at its final place yet."""
    SAVED = "saved"
    FAILED = "failed"


U = UploadState
UPLOAD_TRANSITIONS: dict[UploadState, frozenset[UploadState]] = {
    U.WAITING: frozenset({U.RUNNING, U.FAILED}),  # failed: its job was cancelled
    U.RUNNING: frozenset({U.WAITING, U.PACKED, U.SAVED, U.FAILED}),
    U.PACKED: frozenset({U.SAVED, U.FAILED}),
    U.FAILED: frozenset({U.WAITING, U.PACKED}),
    U.SAVED: frozenset(),
}


@dataclass(slots=True, eq=False)
class Upload:
    """One spooled file on its way to one place. `number` counts the uploads of an image."""

    job_id: str
    index: int
    number: int
    spool: str
    """The file in the spool; several uploads may share it."""
    root: str
    """Folder or URL below which `name` lies."""
    name: str
    state: UploadState = U.WAITING
    bytes: int = 0
    error: str = ""
    tries: int = 0
    again: bool = False
    """An earlier try may have stored it: look for it."""
    retry_at: float = 0.0
    others: int = 0
    """Successes of its destination when this upload first failed."""
    shard: str = ""
    """Id of the shard that it is a member of; `name` is its member then."""
    archive: str = ""
    """Path or URL of that archive."""
    given_up: bool = False
    """Its job was cancelled: it is not tried again."""
    place: str = ""
    """Of its circuit, once that was found."""
    mount: str = ""
    """Mount point of the disk that a folder belongs on, as in `ImageTask`."""

    def move(self, to: UploadState) -> None:
        """Change state along the table; anything else is a bug of the farm."""
        if to not in UPLOAD_TRANSITIONS[self.state]:
            raise AssertionError(f"the upload of {self.name} cannot go from {self.state.value} to {to.value}")
        self.state = to

    @property
    def path(self) -> str:
        """URL or path of the stored file, or of the archive that it is in."""
        return self.archive or f"{self.root.rstrip('/')}/{self.name}"

    @classmethod
    def of_record(cls, job_id: str, index: int, number: int, record: dict[str, Any]) -> Upload:
        """Return the upload of a predecessor's journal record. One that ran may have stored its file."""
        upload = cls(job_id, index, number, record["spool"], record["root"], record["name"])
        state = UploadState(record["state"])
        upload.state = U.WAITING if state is U.RUNNING else state
        upload.bytes, upload.error, upload.again = record.get("bytes", 0), record.get("error", ""), True
        upload.shard, upload.archive = record.get("shard", ""), record.get("archive", "")
        upload.given_up = record.get("given_up", False)
        upload.mount = record.get("mount", "")
        return typed(upload)

    def report(self) -> dict[str, Any]:
        """What a client gets to know about it."""
        told = {"path": self.path, "state": self.state.value, "bytes": self.bytes, "error": self.error}
        return {**told, "member": self.name} if self.shard else told

    def record(self) -> dict[str, Any]:
        """What the journal keeps of it."""
        kept = {"spool": self.spool, "root": self.root, "name": self.name, "state": self.state.value}
        return (
            kept
            | ({"bytes": self.bytes} if self.bytes else {})
            | ({"error": self.error} if self.error else {})
            | ({"given_up": True} if self.given_up else {})
            | ({"shard": self.shard, "archive": self.archive} if self.shard else {})
            | ({"mount": self.mount} if self.mount else {})
        )


def mount_at(disks: Mapping[str, str], root: str, name: str) -> str:
    """Return the mount point of the disk that the file `name` below a mirror belongs on, "" for that of the
    system. disks: `mirror_mounts` of the task."""
    folder = name
    while folder := folder.rpartition("/")[0]:
        if (at := f"{root}/{folder}") in disks:
            return disks[at]
    return disks.get(root, "")


class CircuitState(Enum):
    """CLOSED: uploads run. OPEN: none does until `retry_at`. PROBING: one finds out."""

    __hash__ = object.__hash__

    CLOSED = "ok"
    OPEN = "failing"
    PROBING = "probing"


C = CircuitState
CIRCUIT_TRANSITIONS: dict[CircuitState, frozenset[CircuitState]] = {
    C.CLOSED: frozenset({C.OPEN}),
    # Closed without a probe: an upload that ran when the circuit opened got through.
    C.OPEN: frozenset({C.PROBING, C.CLOSED}),
    C.PROBING: frozenset({C.OPEN, C.CLOSED}),
}


@dataclass(slots=True, eq=False)
class Circuit:
    """One destination: what waits for it, how many uploads run, and whether it works."""

    place: str
    limit: int = UPLOADS
    timeout_s: float = 0.0
    ahead: int = 0
    """Uploads that are handed out beyond `limit` while it works: the uploader begins them without an answer
    in between, so that one message may carry several orders."""
    state: CircuitState = C.CLOSED
    error: str = ""
    since: float = 0.0
    failures: int = 0
    """In a row."""
    retry_at: float = 0.0
    running: int = 0
    """Handed out, and not answered."""
    successes: int = 0
    waiting: deque[Upload] = field(default_factory=deque)

    def _move(self, to: CircuitState) -> None:
        if to not in CIRCUIT_TRANSITIONS[self.state]:
            raise AssertionError(f"circuit {self.place} cannot go from {self.state.value} to {to.value}")
        self.state = to

    @property
    def busy(self) -> bool:
        """Whether it works and has something to do."""
        return self.state is C.CLOSED and bool(self.running or self.waiting)

    @property
    def idle(self) -> bool:
        """Whether it works and has nothing to do."""
        return self.state is C.CLOSED and not (self.running or self.waiting)

    def take(self, now: float) -> Upload | None:
        """Return the next upload that may start now, or None."""
        if not self.waiting or self.state is C.PROBING:
            return None
        if self.running >= self.limit + (0 if self.failures else self.ahead):
            return None
        if self.state is C.OPEN and (now < self.retry_at or self.running):
            return None
        upload = next((at for at in self.waiting if at.retry_at <= now), None)
        if upload is None:
            return None
        self.waiting.remove(upload)
        if self.state is C.OPEN:
            self._move(C.PROBING)
        upload.move(U.RUNNING)
        self.running += 1
        return upload

    def succeeded(self, upload: Upload, state: UploadState = U.SAVED) -> bool:
        """An upload is stored, and gets `state`. Returns whether the destination was failing until now."""
        self.running -= 1
        self.successes += 1
        self.failures = 0
        upload.move(state)
        upload.error = ""
        if self.state is C.CLOSED:
            return False
        self._move(C.CLOSED)
        self.error = ""
        return True

    def failed(self, upload: Upload, error: str, now: float, *, hold: bool, wait_s: float) -> bool:
        """An upload failed and goes to the end of the queue. Returns whether the circuit opens now.

        `hold`: nothing works there now. `wait_s`: how long the service asks to wait, 0 if it does not say.
        """
        self.running -= 1
        self.failures += 1
        if not upload.tries:
            upload.others = self.successes
        upload.tries += 1
        upload.again, upload.error = True, error
        upload.move(U.WAITING)
        wait_s = min(wait_s, LONGEST_WAIT_S)
        hold = hold or wait_s > 0
        upload.retry_at = now if hold else now + _jittered(pause_s(upload.tries), upload)
        self.waiting.append(upload)
        opened = self.state is C.CLOSED and (hold or self.failures >= OPENS_AFTER)
        if opened:
            self.since = now
        if opened or self.state is C.PROBING:
            self._move(C.OPEN)
            pauses = max(1, self.failures - (0 if hold else OPENS_AFTER - 1))
            self.retry_at = now + max(wait_s, _jittered(pause_s(pauses), upload))
        self.error = error
        if self.state is C.OPEN:
            upload.retry_at = now  # its turn is for the circuit to decide
        return opened

    def interrupted(self, upload: Upload) -> None:
        """The uploader ended in the middle: nothing is known of the destination."""
        self.running -= 1
        upload.move(U.WAITING)
        upload.again = True
        if self.state is C.PROBING:
            self._move(C.OPEN)
        self.waiting.appendleft(upload)

    def give_up(self, upload: Upload) -> None:
        """An upload that waits is not tried again. That nothing waits for a destination says no more that it
        fails."""
        self.waiting.remove(upload)
        upload.move(U.FAILED)
        upload.error = upload.error or "It was cancelled before it was sent."
        if self.state is C.OPEN and not (self.waiting or self.running):
            self._move(C.CLOSED)
            self.error, self.failures = "", 0

    def refused(self, upload: Upload, error: str) -> None:
        """An upload can never work; the destination does."""
        self.running -= 1
        upload.move(U.FAILED)
        upload.error = error
        if self.state is C.PROBING:
            self._move(C.OPEN)
            self.retry_at = 0.0

    def hopeless(self, upload: Upload) -> bool:
        """Whether an upload fails again and again while others get through."""
        return upload.tries >= MAX_TRIES and self.successes - upload.others >= OTHERS

    def status(self, now: float) -> dict[str, Any]:
        """What `status` says about it."""
        failing = self.state is not C.CLOSED
        return {
            "destination": self.place,
            "state": "failing" if failing else "ok",
            "error": self.error if failing else "",
            "since_s": max(0.0, now - self.since) if failing else 0.0,
            "retry_in_s": max(0.0, self.retry_at - now) if failing else 0.0,
            "uploading": min(self.running, self.limit),
            "waiting": len(self.waiting) + max(0, self.running - self.limit),
        }


def _jittered(seconds: float, upload: Upload) -> float:
    """Spread pauses over half to one and a half of `seconds`, so that many uploads do not come back at once.

    By a hash instead of a random number: the core decides the same twice.
    """
    key = f"{upload.job_id}-{upload.index}-{upload.number}-{upload.tries}".encode()
    return min(LAST_DELAY_S * 1.5, seconds * (0.5 + zlib.crc32(key) / 2**32))
