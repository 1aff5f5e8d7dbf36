"""Object stores by `obstore`: Amazon S3 and compatible ones, Google Cloud Storage, Azure Blob Storage.

One conditional request stores an object (`If-None-Match: *`); its answer carries the MD5 where the service
computes one, else the object is read back. The retries of the library are off, because the farm has its own.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from luna_farm.locations import Location
from luna_farm.storage.sinks.refusals import check_files, of_status, refusal
from luna_farm.storage.sinks.sink import SinkError, Stored, Upload, is_body, limit_s

CHUNK_BYTES = 1 << 20
SMALLEST_STEP = 64 * 1024
"""Requests up to this size share one client, and so do those up to twice, four times, ... this size: the
library sets its time limit for a client, not for a request."""
TOKEN, SHA256 = "lunaupload", "lunasha256"
"""Names of the metadata by which the farm recognises its own objects. Azure takes identifiers only."""

_STATUS = re.compile(r"\bstatus: (\d{3}),|status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_CONFIG = {
    "s3": {
        "region": "region",
        "access_key_id": "access_key_id",
        "secret_access_key": "secret_access_key",
        "session_token": "session_token",
        "anonymous": "skip_signature",
    },
    "gs": {"service_account": "service_account", "anonymous": "skip_signature"},
    "az": {
        "account": "account_name",
        "account_key": "account_key",
        "sas_token": "sas_key",
        "anonymous": "skip_signature",
    },
}
"""Our setting -> that of the library."""


class ObjectSink:
    """A bucket or container. `options`: the settings of the destination (`config_destinations.py`)."""

    thread_safe = True

    def __init__(self, location: Location, options: Mapping[str, Any]) -> None:
        self._location = location
        self._options = options
        self._timeout_s = float(options.get("timeout", 30.0))
        self._stores: dict[int, Any] = {}
        self._lock = threading.Lock()

    def exists(self, key: str) -> bool:
        """Whether there is an object under `key`."""
        return self._head(key) is not None

    def put(self, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
        """Store `body` under `key` unless something is there; with its own token that counts as stored."""
        attributes = {"Content-Type": upload.content_type, TOKEN: upload.token, SHA256: upload.sha256}
        store = self._store(upload.bytes)
        try:
            # The object is written by one request: a conditional request is not to be had in parts.
            result = store.put(key, body, mode="create", attributes=attributes)
        except BaseException as error:
            refused = self._refused(error)
            if refused.kind not in ("exists", "conflict"):
                raise refused from None
            return self._found(key, upload, again)
        if not _is_md5(result["e_tag"], upload):
            self._read_back(key, upload)
        return Stored(key, upload.bytes)

    def close(self) -> None:
        """Drop the connections."""
        self._stores.clear()

    def own(self, key: str, upload: Upload) -> Stored | None:
        """Return the object under `key` if its metadata says that it is this upload."""
        found = self._head(key)
        return self._confirmed(key, upload, found) if found and _is_own(found, upload, True) else None

    def _found(self, key: str, upload: Upload, again: bool) -> Stored:
        """Return the object that was in the way if an earlier try stored it, else raise."""
        found = self._head(key)
        if found is None:  # 409 of a request that runs at the same time, or it was removed since
            raise refusal(self._location.base, "conflict")
        if not _is_own(found, upload, again):
            raise refusal(self._location.base, "exists")
        return self._confirmed(key, upload, found)

    def _confirmed(self, key: str, upload: Upload, found: _Head) -> Stored:
        if found.attributes.get(SHA256) != upload.sha256:
            stored = replace(upload, bytes=found.size, sha256=found.attributes.get(SHA256, ""))
            self._read_back(key, stored)
            return Stored(key, found.size, found=True, other=True)
        if found.size != upload.bytes or not _is_md5(found.e_tag, upload):
            self._read_back(key, upload)
        return Stored(key, upload.bytes, found=True)

    def _head(self, key: str) -> _Head | None:
        import obstore

        try:
            result = obstore.get(self._store(0), key, options={"head": True})
        except FileNotFoundError:
            return None
        except BaseException as error:
            raise self._refused(error) from None
        attributes = {str(name).lower(): value for name, value in result.attributes.items()}
        return _Head(attributes, result.meta["size"], result.meta["e_tag"] or "")

    def _read_back(self, key: str, upload: Upload) -> None:
        """Compare the stored object, byte by byte in effect; remove it if it is not what was sent."""
        import obstore

        def chunks() -> Iterator[bytes]:
            for chunk in obstore.get(self._store(upload.bytes), key).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

        try:
            if is_body(upload, chunks()):
                return
            obstore.delete(self._store(0), key)  # ours: it was stored on the condition that nothing was there
        except BaseException as error:
            raise self._refused(error) from None
        raise refusal(self._location.base, "checksum")

    def _store(self, size: int) -> Any:
        """Return the store whose time limit fits a request of `size` bytes."""
        step = (size // SMALLEST_STEP).bit_length()
        with self._lock:
            if step not in self._stores:
                self._stores[step] = self._open(
                    limit_s(self._timeout_s, SMALLEST_STEP << step if step else 0)
                )
            return self._stores[step]

    def _open(self, seconds: float) -> Any:
        from obstore import store

        at, options = self._location, self._options
        client: dict[str, Any] = {
            "timeout": timedelta(seconds=seconds),
            "connect_timeout": timedelta(seconds=min(seconds, self._timeout_s)),
        }
        endpoint = str(options.get("endpoint", ""))
        if endpoint.startswith("http://"):
            client["allow_http"] = True
        try:
            check_files(at.base, options)
            if options.get("ca_file"):
                with open(options["ca_file"], "rb") as file:
                    client["root_certificate"] = file.read()
            config = {theirs: options[ours] for ours, theirs in _CONFIG[at.scheme].items() if ours in options}
            if "service_account" in config:
                config["service_account"] = str(config["service_account"])  # a Path is refused by the library
            retry = {"max_retries": 0, "retry_timeout": timedelta(seconds=seconds)}
            kind: dict[str, Any] = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}
            if endpoint:
                config["base_url" if at.scheme == "gs" else "endpoint"] = endpoint
            if at.scheme == "gs" and config.pop("skip_signature", False):
                config["service_account_key"] = _no_account(endpoint)
            if at.scheme == "s3":
                config.setdefault("virtual_hosted_style_request", not endpoint)
            return kind[at.scheme](at.host, config=config, client_options=client, retry_config=retry)
        except BaseException as error:
            raise self._refused(error) from None

    def _refused(self, error: BaseException) -> SinkError:
        """Turn an exception of the library into ours. Its text is searched and never shown: it holds the
        whole answer of the service, in which S3 repeats parts of the request."""
        if isinstance(error, SinkError):
            return error
        if type(error).__name__ == "PanicException":  # of Rust, no Exception of Python
            return refusal(self._location.base, "library", "PanicException")
        if not isinstance(error, Exception):
            raise error
        kind, detail = _kind_of(error)
        return refusal(self._location.base, kind, detail)


def _no_account(endpoint: str) -> str:
    """Return what makes the library ask Google for no token: with `skip_signature` alone it asks all the
    same."""
    no_account = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    place = {"gcs_base_url": endpoint or "https://storage.googleapis.com"}
    return json.dumps({**no_account, **place, "disable_oauth": True})


class _Head(NamedTuple):
    """What a service says about an object."""

    attributes: Mapping[str, str]
    size: int
    e_tag: str


def _is_own(found: _Head, upload: Upload, again: bool) -> bool:
    """Whether an object is this upload. One of an earlier attempt may have been encoded by another worker,
    with other bytes; where there was none, token and bytes have to be the same."""
    same_bytes = found.attributes.get(SHA256) == upload.sha256
    return found.attributes.get(TOKEN) == upload.token and (again or same_bytes)


def _is_md5(e_tag: str | None, upload: Upload) -> bool:
    return (e_tag or "").strip('"').lower() == upload.md5


def _kind_of(error: Exception) -> tuple[str, str]:
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if status:
        number = int(status[1] or status[2])
        name = code[1] if code else ""
        kind = of_status(number, name)
        # S3 and Azure say 409 as well where others say 412: the object is looked at in both cases.
        return kind, f"HTTP {number}" + (f", {name}" if name else "")
    for mark, kind in _MARKS:
        if mark in text:
            return kind, mark if kind == "settings" else ""
    return ("other", type(error).__name__) if not isinstance(error, FileNotFoundError) else ("missing", "")


_MARKS = (
    ("AlreadyExists", "exists"),
    ("service account file", "settings"),
    ("Invalid RSA key", "settings"),
    ("Invalid Access Key", "credentials"),
    ("SAS query", "credentials"),
    ("Connection refused", "refused"),
    ("ConnectionRefused", "refused"),
    ("InvalidCertificate", "certificate"),
    ("UnknownIssuer", "certificate"),
    ("certificate", "certificate"),
    ("dns error", "unknown_host"),
    ("failed to lookup address", "unknown_host"),
    ("NetworkUnreachable", "unreachable"),
    ("HostUnreachable", "unreachable"),
    ("No route to host", "unreachable"),
    ("kind: Timeout", "timeout"),
    ("TimedOut", "timeout"),
    ("operation timed out", "timeout"),
    ("ConnectionReset", "reset"),
    ("IncompleteMessage", "reset"),
    ("BrokenPipe", "reset"),
    ("UnexpectedEof", "reset"),
    ("connection closed", "reset"),
    ("kind: Interrupted", "reset"),
    ("kind: Request", "reset"),
    ("kind: Connect", "unreachable"),
    ("Unable to extract metadata", "other"),  # no service of that kind: headers are missing
    ("MissingCredentials", "no_credentials"),
    ("Missing", "no_credentials"),
    ("redentials", "no_credentials"),
    ("metadata", "no_credentials"),
)
"""What the library writes for failures below HTTP, the more precise first."""
