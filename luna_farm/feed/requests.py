"""What a subscriber of the feed may ask: a strict reading of its messages.

This module must never act on a message: it turns untrusted text into one of three requests or raises.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from luna_farm.errors import InvalidRequest

MAX_BYTES = 4096
JOB_ACTIONS = ("retry", "cancel", "dismiss")
POOL_ACTIONS = ("pause", "resume")
ROW_ACTIONS = ("open_folder",)
ACTIONS = JOB_ACTIONS + POOL_ACTIONS + ROW_ACTIONS
TYPES = ("get_status", "resume", "action")
_TEXT_LIMIT = 256


@dataclass(frozen=True, slots=True)
class GetStatus:
    """Send the status now."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Send again what followed event `after` of the farm that called itself `epoch` ("": whichever runs)."""

    after: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Act:
    """Do `name` to job `job_id` or to its image `index`, to the pool (job_id ""), or for the image of a `row`
    of the catalogue, if the token is right. `tag` comes back in the answer."""

    name: str
    job_id: str
    token: str
    tag: str
    index: int | None = None
    row: int | None = None


Request = GetStatus | Resume | Act


def parse(message: str | bytes) -> Request:
    """Read one message. Raises InvalidRequest naming the field that is wrong."""
    if isinstance(message, bytes):
        raise InvalidRequest.of("message", "binary", "one JSON object as text")
    try:
        given = json.loads(message)
    except (ValueError, RecursionError):
        raise InvalidRequest.of("message", message[:80], "one JSON object as text") from None
    if not isinstance(given, dict):
        raise InvalidRequest.of("message", message[:80], "one JSON object as text")
    kind = given.get("type")
    if kind == "get_status":
        return GetStatus()
    if kind == "resume":
        return Resume(_sequence(given.get("after")), _text(given, "epoch", default=""))
    if kind == "action":
        name = given.get("name")
        if name not in ACTIONS:
            raise InvalidRequest.of("name", name, " or ".join(ACTIONS))
        # The token is read like any text but never shown: its error names the field only.
        token = given.get("token")
        if not isinstance(token, str) or len(token) > _TEXT_LIMIT:
            raise InvalidRequest.of("token", "(hidden)", f"text of at most {_TEXT_LIMIT} characters")
        job_id = _text(given, "job_id") if name in JOB_ACTIONS else ""
        row = _sequence(given.get("row"), "row") if name in ROW_ACTIONS else None
        tag = _text(given, "id", default="")
        return Act(str(name), job_id, token, tag, _index(given.get("index")), row)
    raise InvalidRequest.of("type", kind, ", ".join(TYPES))


def sequence(text: str) -> int:
    """Read a sequence number from a query string. Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise InvalidRequest.of("after", text, "a whole number from 0")
    return int(text)


def _index(value: Any) -> int | None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**6
    ):
        raise InvalidRequest.of("index", value, "the number of an image in its job, from 0")
    return value


def _sequence(value: Any, field: str = "after") -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise InvalidRequest.of(field, value, "a whole number from 0")
    return value


def _text(given: dict[str, Any], key: str, default: str | None = None) -> str:
    value = given.get(key, default)
    if not isinstance(value, str) or len(value) > _TEXT_LIMIT:
        raise InvalidRequest.of(key, value, f"text of at most {_TEXT_LIMIT} characters")
    return value
