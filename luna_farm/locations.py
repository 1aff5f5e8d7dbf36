"""The language of destinations: what a URL may look like, which destination of the farm it belongs to, which
keys result.

A URL names a place, never a way in: user, password and query are refused, and an error never repeats them.
This module must never open a connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from luna_farm.errors import InvalidRequest

KEY_BYTES = 1024
"""The longest key that S3, Google Cloud Storage and Azure Blob Storage all take, in bytes of UTF-8 (S3 User
Guide, "Object key naming"; Google "Object naming"; Azure counts 1,024 characters)."""

NUMBER_BYTES = 24
"""Room that a key leaves for a number and for ".json"."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One kind of destination: the extra that installs it ("" for none), the modules that it needs, what
    `host` is called.

    `tokens`: it keeps our token with an object, so that an upload is recognised even where it was encoded
    anew.
    """

    extra: str
    modules: tuple[str, ...]
    host: str
    tokens: bool = False


SCHEMES: dict[str, Scheme] = {
    "s3": Scheme("cloud", ("obstore",), "bucket", tokens=True),
    "gs": Scheme("cloud", ("obstore",), "bucket", tokens=True),
    "az": Scheme("cloud", ("obstore",), "container", tokens=True),
    "sftp": Scheme("remote", ("asyncssh",), "server"),
    "ftp": Scheme("", (), "server"),
    "ftps": Scheme("", (), "server"),
    "webdav+http": Scheme("remote", ("httpx",), "server"),
    "webdav+https": Scheme("remote", ("httpx",), "server"),
}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[$A-Za-z0-9_][A-Za-z0-9._\-]*)(:[0-9]{1,5})?")
_SHOWN = re.compile(r"[$A-Za-z0-9._\-]*(?:\[[0-9A-Fa-f:.]*)?(?::[0-9]*)?")
"""What may be repeated of a host that is none: not what a secret could be."""
_MISSPELT = re.compile(rf"({'|'.join(map(re.escape, SCHEMES))}):[/\\\\]", re.IGNORECASE)
"""A URL with one slash, or with backslashes."""
_PADDED = re.compile(r"[\s\"'<\u200b\ufeff]+([A-Za-z][A-Za-z0-9+.\-]+):[/\\]{2}")
"""A URL behind what came along when it was copied."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


def is_url(text: str) -> bool:
    """Whether an output folder is a URL. `C:\\x`, `C:/x` and `//server/share` are none."""
    return _URL.match(text) is not None


def check_folder(field: str, text: str) -> None:
    """Raise InvalidRequest for a folder that looks like a misspelt URL: `s3:/bucket` would become a folder of
    that name, and ` s3://user:password@bucket` one that shows the password."""
    padded = _PADDED.match(text)
    if padded:
        allowed = "a URL without blanks and quotes in front of it"
        raise InvalidRequest.of(field, f"{text[: padded.start(1)]}{padded[1].lower()}://...", allowed)
    found = None if is_url(text) else _MISSPELT.match(text)
    if found:
        scheme = found[1].lower()
        allowed = (
            f"{scheme}://{SCHEMES[scheme].host.upper()}/PREFIX, or ./{scheme}:/... for a folder of that name"
        )
        raise InvalidRequest.of(field, f"{scheme}:/...", allowed)


@dataclass(frozen=True, slots=True)
class Location:
    """A place at a service: `s3://bucket/prefix`. `prefix` has no slash at either end and may be empty."""

    scheme: str
    host: str
    prefix: str = ""

    @property
    def base(self) -> str:
        """The URL of the bucket, container or server."""
        return f"{self.scheme}://{self.host}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.base}/{self.prefix}" if self.prefix else self.base

    def below(self, other: Location) -> bool:
        """Whether this place is `other` or lies below it."""
        if self.base != other.base:
            return False
        return not other.prefix or f"{self.prefix}/".startswith(f"{other.prefix}/")


@lru_cache(maxsize=256)
def parse(field: str, url: str) -> Location:
    """Return the place that a URL names. Raises InvalidRequest; user, password and query are not repeated.

    The path is taken as it stands: `%20` is three characters, as for the command lines of the services.
    """
    found = _URL.match(url)
    scheme = found[1].lower() if found else ""
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise InvalidRequest.of(
            field, f"{scheme}://..." if found else url, f"a folder, or a URL with {known}"
        )
    rest = url[len(scheme) + 3 :]
    host, _, path = rest.partition("/")
    wanted = _HOST.fullmatch(host)
    # A secret may hold slashes: what is in front of a later @ is no host then.
    if "@" in host or ("@" in path and ":" in host and (not wanted or SCHEMES[scheme].host != "server")):
        raise _with_secret(
            field, scheme, rest.rpartition("@")[2].partition("/")[0], "a user name or password"
        )
    if "?" in rest:
        raise _with_secret(field, scheme, host.partition("?")[0], "a query")
    if not wanted or not _is_port(scheme, wanted[2]):
        kind = SCHEMES[scheme].host
        form = f"{kind.upper()}/PREFIX"
        if wanted and kind == "server":
            form = "SERVER:PORT/PREFIX with a port from 1 to 65535"
        shown = _SHOWN.match(host)
        assert shown is not None, "it matches nothing, too"
        rest_of_it = "..." if shown.end() < len(host) else ""
        raise InvalidRequest.of(field, f"{scheme}://{shown[0]}{rest_of_it}", f"{scheme}://{form}")
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") for part in parts) or _CONTROLS.search(path):
        raise InvalidRequest.of(
            field, url, "a prefix without . and .., backslashes, control characters and lone surrogates"
        )
    return Location(scheme, host if SCHEMES[scheme].host != "server" else host.lower(), "/".join(parts))


def _is_port(scheme: str, port: str | None) -> bool:
    """Whether `:PORT` or nothing may stand behind the host of a scheme."""
    return port is None or (SCHEMES[scheme].host == "server" and 0 < int(port[1:]) <= 65535)


def _with_secret(field: str, scheme: str, host: str, what: str) -> InvalidRequest:
    shown = f"{scheme}://{host}/..."
    allowed = (
        f"a URL without {what}; put credentials into [destinations.NAME] of the farm's luna-farm.toml,"
        " or into the standard environment variables of the service"
    )
    return InvalidRequest(
        f"{field}: {shown} with {what} inside is not allowed; allowed: {allowed}.", field, shown, allowed
    )


def check_key(field: str, key: str) -> None:
    """Raise InvalidRequest for a key that is too long for the services, with room for a number."""
    size = len(key.encode("utf-8", "surrogatepass"))
    if size > KEY_BYTES - NUMBER_BYTES:
        raise InvalidRequest.of(
            field,
            f"a key of {size} bytes ({key[:40]}...)",
            f"at most {KEY_BYTES - NUMBER_BYTES} bytes of UTF-8: a shorter prefix, save_path or filename",
        )


def belongs_to(location: Location, configured: Iterable[tuple[str, Location]]) -> str:
    """Return the name of the configured destination that the place lies in, the longest prefix first; "" for
    none."""
    names = [(len(at.prefix), name) for name, at in configured if location.below(at)]
    return max(names, default=(0, ""))[1]
