"""The state folder of a farm: who holds it, its token, where it listens. Made 0700, files 0600."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from luna_farm import system
from luna_farm.errors import DiskError
from luna_farm.storage.state_lock import StateLock

TOKEN = "token"  # noqa: S105  the name of its file
ENDPOINT = "endpoint.json"
LOCK = "lock"
JOURNAL = "journal"


def prepare(state_dir: Path) -> StateLock:
    """Make the folder and take its lock. Raises AlreadyRunning, with the pid of the other, and DiskError."""
    try:
        made = [folder for folder in (state_dir, *state_dir.parents) if not folder.exists()]
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        state_dir.chmod(0o700)
        for folder in made:  # or a power cut could take the folder with all that was synced in it
            system.sync_folder(folder.parent)
    except OSError as error:
        raise system.disk_error("make the state folder", state_dir, error) from error
    return StateLock.acquire(state_dir / LOCK)


def write_token(state_dir: Path, given: str) -> str:
    """Write the token of this start (a new one unless `given`) for the clients of this user, and return
    it."""
    token = given or secrets.token_urlsafe(32)
    _write(state_dir / TOKEN, token)
    return token


def read_token(state_dir: Path) -> str:
    """Return the token of the farm that runs, "" when there is none."""
    try:
        return (state_dir / TOKEN).read_text("utf-8").strip()
    except OSError:
        return ""


def write_endpoint(state_dir: Path, endpoint: dict[str, Any]) -> None:
    """Say where this farm listens: host, port, feed_port, pid."""
    _write(state_dir / ENDPOINT, json.dumps(endpoint))


def read_endpoint(state_dir: Path) -> dict[str, Any]:
    """Return where the farm of this folder listens or last listened; {} when there never was one."""
    try:
        found = json.loads((state_dir / ENDPOINT).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, text: str) -> None:
    """Replace a file atomically, readable for this user only."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror}.", str(path), error.errno or 0
        ) from error
