"""Every error that Luna Farm raises on purpose: classes that hold data, each with a stable `code`.

A message says what was wrong, what was given, what is allowed and what to do. The code crosses the wire;
`from_code` turns an answer of the farm back into the class, so that a caller catches the same error on either
side. This module must never import anything of the project.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, ClassVar

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 240
_short.maxlist = _short.maxtuple = 16
_shortened = _short.repr


class FarmError(Exception):
    """Base of all errors of the farm. `code` is stable and machine-readable, `details()` is the data it
    holds."""

    code: ClassVar[str] = "error"

    def details(self) -> dict[str, Any]:
        """Return the data of this error as plain values (what goes on the wire beside code and message)."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


class FarmUnavailable(FarmError):
    """No farm listens at `host`:`port`, or it stopped answering."""

    code = "unavailable"

    def __init__(self, message: str, host: str = "", port: int = 0) -> None:
        super().__init__(message)
        self.host = host
        self.port = port


class FarmBusy(FarmError):
    """A bound is reached; nothing was taken over. `depth` images are ahead; try again after
    `retry_after_s`."""

    code = "busy"

    def __init__(self, message: str, depth: int = 0, retry_after_s: float = 0.1) -> None:
        super().__init__(message)
        self.depth = depth
        self.retry_after_s = retry_after_s


class FarmDraining(FarmError):
    """The farm is stopping: it finishes what it accepted and takes nothing new."""

    code = "draining"


class InvalidRequest(FarmError, ValueError):
    """Something in a request is not allowed: `field` was `given`, `allowed` says what would be."""

    code = "invalid"

    def __init__(self, message: str, field: str = "", given: str = "", allowed: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.given = given
        self.allowed = allowed

    @classmethod
    def of(cls, field: str, given: object, allowed: str) -> InvalidRequest:
        """Build the error with the one sentence that all of them share."""
        # Of what strangers send: neither deep nor large values may cost more than this sentence is worth.
        shown = _shortened(given[:120] if isinstance(given, bytes) else given)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        return cls(f"{field}: {shown} is not allowed; allowed: {allowed}.", field, shown, allowed)


class TooLarge(InvalidRequest):
    """An image, a job or a frame is larger than the farm is configured to take."""

    code = "too_large"


class Unauthorized(FarmError):
    """The token of the hello is not that of the farm."""

    code = "unauthorized"


class ProtocolError(FarmError):
    """What arrived is not the protocol: a wrong preamble, version, frame or field."""

    code = "protocol"


class StaleLease(FarmError):
    """A lease named in a submit is not held by this connection (the farm was restarted): lease again, fill,
    submit."""

    code = "stale_lease"


class UnknownJob(FarmError):
    """The farm knows no job of this id (never accepted, or its report was dropped from the bounded
    history)."""

    code = "unknown_job"

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class NotPossible(FarmError):
    """The command does not fit the state of the job, for example to cancel one that is done."""

    code = "not_possible"


class DiskError(FarmError):
    """A folder or file cannot be written now: full, read-only, denied, gone. The same write may succeed
    later."""

    code = "disk"

    def __init__(self, message: str, path: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.errno = errno


class ArenaError(FarmError):
    """Shared memory cannot be created, attached or is gone."""

    code = "arena"


class EncodeError(FarmError):
    """No encoder could make a file of these pixels."""

    code = "encode"


class ConfigError(FarmError):
    """A setting is unknown or out of range."""

    code = "config"

    def __init__(self, message: str, key: str = "", given: str = "", allowed: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.given = given
        self.allowed = allowed


class AlreadyRunning(FarmError):
    """Another supervisor holds the state folder."""

    code = "already_running"

    def __init__(self, message: str, pid: int = 0) -> None:
        super().__init__(message)
        self.pid = pid


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
