"""`[destinations.NAME]` of the settings file: where files may be sent and with which credentials.

One table of keys. Each may also come from the environment, `LUNA_FARM_DESTINATION_NAME_KEY`, so that secrets
need not lie in a file. What is not set here comes from the standard chain of the service (AWS_*,
GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_*, the SSH agent). A value that may be secret is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from luna_farm import config_values as read
from luna_farm.config_values import Reader
from luna_farm.errors import ConfigError, InvalidRequest
from luna_farm.locations import parse

SECTION = "destinations"
ENV = "LUNA_FARM_DESTINATION_"
TIMEOUT_S = 30.0
UPLOADS = 8
"""Uploads to one destination at a time."""


@dataclass(frozen=True, slots=True)
class Destination:
    """One destination: its name, the URL below which it counts, and how to reach it."""

    name: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def uploads(self) -> int:
        """How many uploads run at a time."""
        return int(self.options.get("uploads", UPLOADS))


def without_secrets(destinations: Iterable[Destination]) -> tuple[Destination, ...]:
    """Return destinations as they may leave this machine."""
    return tuple(
        Destination(at.name, at.url, {k: v for k, v in at.options.items() if not KEYS[k].secret})
        for at in destinations
    )


def options_here(at: Destination, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return how to reach a destination from this machine: the given options, and what its own environment
    adds. Raises ConfigError."""
    scheme, where = at.url.partition("://")[0], f"{SECTION}.{at.name}"
    own = {
        key: _checked(where, key, scheme, value, f"the environment, {variable}", Path.cwd())
        for variable, key, value in (_from_environment(at.name, environ) if at.name else ())
    }
    return {**at.options, **own}


class Key(NamedTuple):
    """One row: where a key applies, how it is read, what is allowed, whether it is secret."""

    schemes: tuple[str, ...]
    reader: Reader[Any]
    allowed: str
    help: str
    secret: bool = False


_CLOUD = ("s3", "gs", "az")
_REMOTE = ("sftp", "ftp", "ftps", "webdav+http", "webdav+https")
_WEB = (*_CLOUD, "ftps", "webdav+https")


_ENDPOINT = re.compile(r"https?://(?:[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[!->A-~]*)?")


def _endpoint(value: Any, _: Path) -> str:
    if not isinstance(value, str) or not _ENDPOINT.fullmatch(value):
        raise ValueError(value)
    if (urlsplit(value).port or 1) > 65535:  # .port raises ValueError as well
        raise ValueError(value)
    return value.rstrip("/")


# fmt: off
KEYS: dict[str, Key] = {
    "endpoint": Key(_CLOUD, _endpoint, "a URL such as https://s3.example.org",
                    "address of a service other than Amazon, Google or Microsoft"),
    "region": Key(("s3",), read.text, "a region such as eu-central-1", "region of the bucket"),
    "access_key_id": Key(("s3",), read.text, "printable text", "access key", True),
    "secret_access_key": Key(("s3",), read.text, "printable text", "secret of the access key", True),
    "session_token": Key(("s3",), read.text, "printable text", "token of temporary credentials", True),
    "service_account": Key(("gs",), read.path, "a path", "JSON file of a service account"),
    "account": Key(("az",), read.text, "printable text", "storage account"),
    "account_key": Key(("az",), read.text, "printable text", "key of the storage account", True),
    "sas_token": Key(("az",), read.text, "printable text", "shared access signature", True),
    "anonymous": Key(_CLOUD, read.switch, "true or false", "send requests without a signature"),
    "user": Key(_REMOTE, read.text, "printable text", "user name"),
    "password": Key(_REMOTE, read.text, "printable text", "password", True),
    "private_key": Key(("sftp",), read.path, "a path", "private key; without one the SSH agent is asked"),
    "known_hosts": Key(("sftp",), read.path, "a path", "keys of known hosts; default: ~/.ssh/known_hosts"),
    "ca_file": Key(_WEB, read.path, "a path", "certificates (PEM) of authorities that are trusted"),
    "timeout": Key((*_CLOUD, *_REMOTE), read.seconds(0.1, 3600), "seconds from 0.1 to 3600",
                   "time without an answer after which an upload counts as failed; default 30"),
    "uploads": Key((*_CLOUD, *_REMOTE), read.whole(1, 64), "a whole number from 1 to 64",
                   f"uploads at a time; default {UPLOADS}"),
}
# fmt: on


def destinations(
    section: Any, environ: Mapping[str, str], file: Path | None
) -> tuple[tuple[Destination, ...], tuple[str, ...]]:
    """Return the checked destinations and their secrets, for the log to hide. Raises ConfigError."""
    if not isinstance(section, dict):
        raise _refused(SECTION, "a table", f"tables [{SECTION}.NAME] with url = ...", f"{file}")
    found: list[Destination] = []
    secrets: list[str] = []
    used: set[str] = set()
    for name, table in section.items():
        where = f"{SECTION}.{name}"
        if not isinstance(table, dict) or not isinstance(table.get("url"), str):
            raise _refused(f"{where}.url", "nothing", "a URL such as s3://bucket/prefix", f"{file}")
        given = {key: (value, f"{file}, {where}.{key}") for key, value in table.items() if key != "url"}
        for variable, key, value in _from_environment(name, environ):
            given[key] = (value, f"the environment, {variable}")
            used.add(variable)
        url = _checked_url(where, table["url"], f"{file}")
        scheme = url.partition("://")[0]
        folder = file.absolute().parent if file else Path.cwd()
        options = {
            key: _checked(where, key, scheme, value, source, folder) for key, (value, source) in given.items()
        }
        secrets += [value for key, value in options.items() if KEYS[key].secret]
        found.append(Destination(name, url, options))
    unused = [variable for variable in environ if variable.startswith(ENV) and variable not in used]
    if unused:
        allowed = f"{ENV}NAME_KEY with a NAME of [{SECTION}.NAME] and a KEY of " + ", ".join(KEYS)
        raise _refused(unused[0], "(hidden)", allowed, "the environment")
    return tuple(found), tuple(secrets)


def is_known(variable: str) -> bool:
    """Whether an environment variable belongs to a destination."""
    return variable.startswith(ENV)


def _from_environment(name: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    prefix = f"{ENV}{name.upper().replace('-', '_')}_"
    for variable, value in environ.items():
        if variable.startswith(prefix) and value:
            key = variable[len(prefix) :].lower()
            if key in KEYS:
                yield variable, key, value


def _checked_url(where: str, url: str, source: str) -> str:

    try:
        return parse(f"{where}.url", url).url
    except InvalidRequest as error:
        raise ConfigError(f"{error} (from {source})", f"{where}.url", error.given, error.allowed) from None


def _checked(where: str, key: str, scheme: str, value: Any, source: str, folder: Path) -> Any:
    row = KEYS.get(key)
    if row is None or scheme not in row.schemes:
        known = ", ".join(name for name, at in KEYS.items() if scheme in at.schemes)
        text = (
            f"{where}.{key}: a {scheme}:// destination has no such setting (from {source}); it has: {known}."
        )
        raise ConfigError(text, f"{where}.{key}", "", known)
    try:
        return row.reader(value, folder)
    except (ValueError, TypeError, OverflowError, RuntimeError):
        hidden = row.secret or "@" in str(value)  # an endpoint with a password inside
        raise _refused(f"{where}.{key}", "(hidden)" if hidden else repr(value), row.allowed, source) from None


def _refused(key: str, given: str, allowed: str, source: str) -> ConfigError:
    return ConfigError(
        f"{key}: {given} is not allowed (from {source}); allowed: {allowed}.", key, given, allowed
    )
