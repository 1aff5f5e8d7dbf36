"""The protocol, sans input and output: what is said first, and how an answer is read. See docs/protocol.md.

Both clients and the listener use these; this module knows messages, not sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luna_farm.errors import FarmError, ProtocolError, from_code

NAME = "luna-farm"
VERSION = 2


def hello(token: str, pid: int) -> dict[str, Any]:
    """Return the first message of a client. `pid` lets the farm know when no process can write into a slot
    any more."""
    return {"cmd": "hello", "protocol": NAME, "version": VERSION, "token": token, "pid": pid}


def check(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an answer, or raise the error that it holds."""
    if "error" not in answer or "code" not in answer:
        return answer
    details = answer.get("details")
    if not isinstance(details, Mapping):
        raise ProtocolError("The farm answered an error without its details.")
    raise from_code(str(answer["code"]), str(answer["error"]), details)


def refusal(error: FarmError, job_id: str = "") -> dict[str, Any]:
    """The answer that holds an error."""
    return {"error": str(error), "code": error.code, "job_id": job_id, "details": error.details()}
