"""Every error that Luna Farm raises on purpose: classes that hold data, each with a stable `code`.

A message says what was wrong, what was given, what is allowed and what to do. The code crosses the wire;
`from_code` turns an answer of the farm back into the class, so that a caller catches the same error on either
side. This module must never import anything of the project.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 240
_short.maxlist = _short.maxtuple = 16
_shortened = _short.repr


class FarmError(Exception):
    """Base of all errors. `code` is stable and machine-readable, `details()` is the data it holds, and
    `remedy` says in general what to do."""

    receipts: Sequence[Any] = ()
    """Of `submit_many`: the receipts of the requests that were accepted before this error."""
    code: ClassVar[str] = "error"
    remedy: ClassVar[str] = "Read the message; it names the value and what is allowed."

    def details(self) -> dict[str, Any]:
        """Return the data of this error as plain values (what goes on the wire beside code and message)."""
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name != "receipts"
        }


class FarmUnavailable(FarmError):
    """No farm listens at `host`:`port`, or it stopped answering."""

    code = "unavailable"
    remedy = (
        "Start a farm (`luna-farm start --detach`), or set `LUNA_FARM_HOST` and `LUNA_FARM_PORT` "
        "to the one that runs."
    )

    def __init__(self, message: str, host: str = "", port: int = 0) -> None:
        super().__init__(message)
        self.host = host
        self.port = port


class FarmBusy(FarmError):
    """A limit is reached and nothing was accepted. `depth` is the number of images in the queue."""

    code = "busy"
    remedy = (
        "Try again after `retry_after_s`. `FarmClient` does that by itself. If it lasts, see "
        "`luna-farm status`: a disk may be full."
    )

    def __init__(self, message: str, depth: int = 0, retry_after_s: float = 0.1) -> None:
        super().__init__(message)
        self.depth = depth
        self.retry_after_s = retry_after_s


class FarmDraining(FarmError):
    """The farm is stopping. It finishes accepted jobs and accepts no new ones."""

    code = "draining"
    remedy = "Wait until the farm has stopped, then start it again."


class InvalidRequest(FarmError, ValueError):
    """A field of a request has a value that is not allowed: `field`, `given`, `allowed`."""

    code = "invalid"
    remedy = "Change `field`; `allowed` lists what is accepted."

    def __init__(self, message: str, field: str = "", given: str = "", allowed: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.given = given
        self.allowed = allowed

    @classmethod
    def of(cls, field: str, given: object, allowed: str) -> InvalidRequest:
        """Build the error with the one sentence that all of them share."""
        # Values come from unauthenticated peers, too: deep or large ones must not make the sentence costly.
        shown = _shortened(given[:120] if isinstance(given, bytes) else given)
        if "\n" in shown:  # of an array
            shown = " ".join(shown.split())
        if len(shown) > 120:
            shown = shown[:117] + "..."
        return cls(f"{field}: {shown} is not allowed; allowed: {allowed}.", field, shown, allowed)

    def at(self, where: str) -> InvalidRequest:
        """Return the same error of a part of something larger."""
        return type(self)(f"{where}.{self}", f"{where}.{self.field}", self.given, self.allowed)


class TooLarge(InvalidRequest):
    """An image, a job or a frame is larger than the limits of the farm."""

    code = "too_large"
    remedy = "Send smaller images, or raise the setting that the message names."


class Unauthorized(FarmError):
    """The token of the client is not the token of the farm (`wrong_token`), or its user is not the farm's."""

    code = "unauthorized"
    remedy = (
        "Give the client the state folder of the farm (`LUNA_FARM_STATE_DIR`) or its token "
        "(`LUNA_FARM_TOKEN`)."
    )

    def __init__(self, message: str, wrong_token: bool = False) -> None:
        super().__init__(message)
        self.wrong_token = wrong_token


class ProtocolError(FarmError):
    """The other side sent something that is not this version of the protocol."""

    code = "protocol"
    remedy = "Install the same version of luna-farm on both sides, and use the job port, not the feed port."


class StaleLease(FarmError):
    """A submit names a lease that this connection does not hold, for example after a restart of the farm."""

    code = "stale_lease"
    remedy = "`FarmClient` leases again by itself. Other clients lease, copy and submit again."


class UnknownJob(FarmError):
    """The farm has no job with this id: it was never accepted, or its report is no longer kept."""

    code = "unknown_job"
    remedy = "`luna-farm jobs` lists the known jobs; `kept_reports` sets how many finished ones are kept."

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class NotPossible(FarmError):
    """The job is in a state that does not allow the command, for example cancelling a finished job."""

    code = "not_possible"
    remedy = "Look at the job with `luna-farm job ID`: the message says in which state it is."


class NotInTime(FarmError, TimeoutError):
    """The file of `job_id` is not there within the time that the caller gives. The farm goes on with it."""

    code = "not_in_time"
    remedy = "Look at the job with `luna-farm job ID`; `luna-farm cancel ID` gives it up."

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class DiskError(FarmError):
    """A folder or file cannot be written now: disk full, read-only or gone, or permission missing."""

    code = "disk"
    remedy = "Make room or give write permission. The farm keeps the image and tries again by itself."

    def __init__(self, message: str, path: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.errno = errno
        self.noted: Mapping[str, Any] | None = None
        """What a file is known by that may have its name nevertheless, for the next attempt."""


class ArenaError(FarmError):
    """Shared memory cannot be created or opened, or it is gone."""

    code = "arena"
    remedy = "Restart the farm; `luna-farm doctor` says whether shared memory is too small."


class EncodeError(FarmError):
    """No encoder could make a file from these pixels."""

    code = "encode"
    remedy = "Choose another format or smaller images, then `luna-farm retry ID`."


class CatalogueUnavailable(FarmError):
    """The catalogue of saved images at `path` cannot be read or written, or there is none."""

    code = "catalogue"
    remedy = "`luna-farm catalogue rebuild DIR` makes it again from the image files below a folder."

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class ConfigError(FarmError):
    """A setting is unknown or its value is not allowed."""

    code = "config"
    remedy = "Correct the setting where the message says it came from."

    def __init__(self, message: str, key: str = "", given: str = "", allowed: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.given = given
        self.allowed = allowed


class AlreadyRunning(FarmError):
    """Another farm uses the same state folder."""

    code = "already_running"
    remedy = (
        "Use that farm, stop it with `luna-farm stop`, or give the new one its own `--state-dir` "
        "and `--port`."
    )

    def __init__(self, message: str, pid: int = 0) -> None:
        super().__init__(message)
        self.pid = pid


REPORT_CODES: Mapping[str, tuple[str, str]] = {
    "crash": (
        "Workers died several times on this image.",
        "`luna-farm retry ID`; please report it with the image's size and format.",
    ),
    "memory": (
        "There was not enough memory to encode the image.",
        "Free memory or use fewer workers, then `luna-farm retry ID`.",
    ),
    "dead_letter": (
        "The image could not be saved and waits in the state folder.",
        "Fix the reason in the report, then `luna-farm retry ID`.",
    ),
    "lost": (
        "The pixels are gone, for example after a power cut.",
        "Make the image again. `durable` keeps pixels on disk until they are saved.",
    ),
    "missing": (
        "The program that sends the images ended or stopped before it handed this one over.",
        "Save the image again; `luna-farm dismiss ID` takes its job off the list in `luna-farm status`.",
    ),
}
"""Codes that only reports carry: what each means, and what to do."""


def _all(base: type[FarmError]) -> dict[str, type[FarmError]]:
    found: dict[str, type[FarmError]] = {}
    for sub in base.__subclasses__():
        found.update(_all(sub))
    return {**found, base.code: base}  # a subclass elsewhere may share the code of the one above it


def from_code(code: str, message: str, details: Mapping[str, Any] | None = None) -> FarmError:
    """Rebuild the error that an answer carries; an unknown code (a newer farm) becomes a plain
    `FarmError`."""
    kind = _all(FarmError).get(code, FarmError)
    error = kind(message)
    for name, value in (details or {}).items():
        if name in vars(error):
            setattr(error, name, value)
    return error
