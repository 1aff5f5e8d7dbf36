"""The one table of refusals: what kind of refusal leads to which decision, and what the message says.

Each sink turns the exceptions and status codes of its protocol into one of these kinds, and nothing else: the
decisions are the same for all services. A body or a header of an answer never reaches a message, because both
may repeat credentials.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

from luna_farm.storage.sinks.sink import Decision, SinkError

D = Decision


class Refusal(NamedTuple):
    """One row: the decision, what happened, what to do."""

    decision: Decision
    what: str
    remedy: str


_WAITS = "Nothing is lost; the farm tries again."
_KEPT = "The farm keeps the files and sends them then."
_ACCESS = (
    "Check user and keys in [destinations.NAME] of luna-farm.toml or in the environment of the farm. " + _KEPT
)

REFUSALS: dict[str, Refusal] = {
    "refused": Refusal(D.HOLD, "refuses connections", f"Is it running, is the port right? {_WAITS}"),
    "unknown_host": Refusal(D.HOLD, "cannot be found by its name", f"Check the host name. {_WAITS}"),
    "unreachable": Refusal(D.HOLD, "cannot be reached", f"Check the network. {_WAITS}"),
    "reset": Refusal(D.RETRY, "closed the connection in the middle", _WAITS),
    "timeout": Refusal(D.RETRY, "did not answer in time", f"{_WAITS} Setting: timeout."),
    "certificate": Refusal(
        D.HOLD,
        "has a certificate that is not trusted",
        f"Set ca_file in [destinations.NAME] for an authority of your own. {_KEPT}",
    ),
    "host_key": Refusal(
        D.HOLD, "has a host key that is not known", f"Add it to known_hosts, or set known_hosts. {_KEPT}"
    ),
    "credentials": Refusal(D.HOLD, "does not accept the credentials", _ACCESS),
    "no_credentials": Refusal(D.HOLD, "needs credentials, and none were found", _ACCESS),
    "settings": Refusal(
        D.HOLD,
        "cannot be used with its settings",
        f"Correct [destinations.NAME] of luna-farm.toml, or the file that it names. {_KEPT}",
    ),
    "forbidden": Refusal(
        D.RETRY,
        "does not allow writing there",
        f"Give the user of the farm the right to write and read there, and look whether its keys are right."
        f" {_KEPT}",
    ),
    "missing": Refusal(
        D.RETRY,
        "has no such bucket, container or folder",
        f"Create it, or cancel the job if the URL is wrong. {_KEPT}",
    ),
    "exists": Refusal(D.NEXT_NUMBER, "has an object of that name already", "The next number is taken."),
    "conflict": Refusal(D.RETRY, "is busy with the same name", _WAITS),
    "checksum": Refusal(D.RETRY, "received other bytes than were sent", _WAITS),
    "busy": Refusal(D.RETRY, "asks to slow down", _WAITS),
    "server": Refusal(D.RETRY, "has an internal error", _WAITS),
    "full": Refusal(D.HOLD, "has no space left", f"Free space there. {_WAITS}"),
    "name": Refusal(D.FAIL, "does not allow this name", "Use a shorter or simpler save_path and filename."),
    "other_name": Refusal(
        D.FAIL,
        "took the file, and it is not under its name there",
        "The server reads a character of the name as something else: look for the file there, and use a"
        " simpler save_path and filename.",
    ),
    "too_large": Refusal(
        D.FAIL, "does not take files of this size", "Raise its limit or send smaller files."
    ),
    "redirect": Refusal(
        D.HOLD, "answers with a redirect", f"Set the region or the endpoint of the bucket. {_KEPT}"
    ),
    "clock": Refusal(D.HOLD, "finds that the clock of this machine is wrong", f"Set the clock. {_KEPT}"),
    "library": Refusal(D.RETRY, "cannot be written to: the library for it failed", _WAITS),
    "other": Refusal(D.RETRY, "refused", _WAITS),
}

STATUS: dict[int, str] = {
    301: "redirect", 302: "redirect", 307: "redirect", 308: "redirect",
    400: "other", 401: "credentials", 403: "forbidden", 404: "missing", 405: "forbidden", 407: "forbidden",
    408: "timeout", 409: "conflict", 412: "exists", 413: "too_large", 414: "name", 423: "conflict",
    425: "busy", 429: "busy", 500: "server", 501: "server", 502: "server", 503: "busy", 504: "timeout",
    507: "full", 509: "busy",
}  # fmt: skip
"""HTTP status -> kind; any other 4xx is "other", any other 5xx "server"."""

CODES: dict[str, str] = {
    "NoSuchBucket": "missing",
    "ContainerNotFound": "missing",
    "NoSuchUpload": "conflict",
    "InvalidAccessKeyId": "credentials",
    "SignatureDoesNotMatch": "credentials",
    "ExpiredToken": "credentials",
    "InvalidToken": "credentials",
    "AuthenticationFailed": "credentials",
    "InvalidAuthenticationInfo": "credentials",
    "InvalidAuthorization": "credentials",
    "AuthorizationHeaderMalformed": "redirect",
    "PermanentRedirect": "redirect",
    "RequestTimeTooSkewed": "clock",
    "BadDigest": "checksum",
    "XAmzContentSHA256Mismatch": "checksum",
    "XAmzContentChecksumMismatch": "checksum",
    "InvalidDigest": "checksum",
    "Md5Mismatch": "checksum",
    "IncompleteBody": "reset",
    "KeyTooLongError": "name",
    "InvalidUri": "name",
    "InvalidResourceName": "name",
    "OutOfRangeInput": "name",
    "EntityTooLarge": "too_large",
    "RequestBodyTooLarge": "too_large",
    "SlowDown": "busy",
    "ServerBusy": "busy",
    "RequestTimeout": "timeout",
    "OperationTimedOut": "timeout",
    "ConditionalRequestConflict": "conflict",
    "OperationAborted": "conflict",
    "QuotaExceeded": "full",
}
"""`<Code>` of S3 ("Error responses"), Azure ("Blob service error codes") and Google (XML API)."""


def refusal(place: str, kind: str, detail: str = "", retry_after_s: float = 0.0) -> SinkError:
    """Build the error of a refusal by the destination at `place`; `detail` is shown, so nothing secret."""
    row = REFUSALS[kind]
    shown = f" ({detail})" if detail else ""
    message = f"{place} {row.what}{shown}. {row.remedy}"
    return SinkError(message, row.decision, kind, retry_after_s)


_FILES = ("private_key", "known_hosts", "ca_file", "service_account")
"""Settings that name a file of this machine."""


def check_files(place: str, options: Mapping[str, Any]) -> None:
    """Raise the refusal of a destination whose settings name a file that cannot be used. A library says the
    same of it as of a missing file at the service."""
    for name in _FILES:
        path = options.get(name)
        if not path:
            continue
        try:
            if name == "ca_file":
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            else:
                open(path, "rb").close()
        except ssl.SSLError:
            raise refusal(place, "settings", f"{name} {path}: no certificates (PEM) in it") from None
        except OSError as error:
            raise refusal(place, "settings", f"{name} {path}: {error.strerror}") from None


def of_status(status: int, code: str = "") -> str:
    """Return the kind of an HTTP status, made more precise by the error code of the service."""
    return CODES.get(code) or STATUS.get(status) or ("server" if status >= 500 else "other")


_ERRNO: dict[int, str] = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.EROFS: "forbidden",
    errno.ENOENT: "missing",
    errno.EEXIST: "exists",
    errno.ENAMETOOLONG: "name",
    errno.EFBIG: "too_large",
}


def of_exception(error: BaseException) -> str:
    """Return the kind of an exception of sockets, TLS and disks; its causes count as well."""
    import socket

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return "certificate"
        if isinstance(seen, socket.gaierror):
            return "unknown_host"
        if isinstance(seen, TimeoutError):
            return "timeout"
        if isinstance(seen, EOFError):
            return "reset"
        if isinstance(seen, OSError) and seen.errno in _ERRNO:
            return _ERRNO[seen.errno]
        seen = seen.__cause__ or seen.__context__
    return "reset" if isinstance(error, (ConnectionError, ssl.SSLError)) else "other"
