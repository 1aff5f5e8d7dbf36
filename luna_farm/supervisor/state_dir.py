"""The state folder of a farm: who holds it, its token, where it listens, what it left. Made 0700, files
0600.

This module must never write into a folder that another user owns, nor through a link.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luna_farm import system
from luna_farm.errors import DiskError
from luna_farm.logs import FILE_NAME
from luna_farm.storage.arena_size import NOTE
from luna_farm.storage.state_lock import StateLock

TOKEN = "token"  # noqa: S105  the name of its file
ENDPOINT = "endpoint.json"
LOCK = "lock"
JOURNAL = "journal"
NOTES = "notes"
ARCHIVES = "archives"
REPORTS = "reports"
UNCLAIMED = "unclaimed"
LEFT = "left.json"
FILES = frozenset({LOCK, TOKEN, ENDPOINT, JOURNAL, REPORTS, f"{REPORTS}.old", LEFT, NOTE, FILE_NAME})
"""Entries without which a farm cannot work, or works without a word of its troubles."""
FOLDERS = frozenset({NOTES, ARCHIVES, UNCLAIMED, "dead", "large", "spool", "uploads"})
LISTED = 3
"""Jobs and folders that a sentence names before it only counts."""


def secure(state_dir: Path) -> None:
    """Make the folder, or check that the one that is there is safe to write a token into.

    Another user may have made it first, and put links into it that lead to files of ours. Raises DiskError
    unless it is a folder of this user, closed to others, that holds no link, nothing of another user, and
    nothing of another kind under the names that the farm uses.
    """
    if state_dir.exists() and not state_dir.is_dir():
        raise DiskError(
            f"The state folder {state_dir} is no folder. Choose another one (--state-dir).",
            str(state_dir),
            errno.ENOTDIR,
        )
    try:
        made = [folder for folder in (state_dir, *state_dir.parents) if not folder.exists()]
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(state_dir)
        state_dir.chmod(0o700)
        with os.scandir(state_dir) as entries:
            for entry in entries:
                _check_entry(entry)
        (state_dir / NOTES).mkdir(mode=0o700, exist_ok=True)
        for folder in made:  # or a power cut could take the folder with all that was synced in it
            system.sync_folder(folder.parent)
    except OSError as error:
        raise system.disk_error("make the state folder", state_dir, error) from error


def unreadable(state_dir: Path) -> str:
    """Return a sentence if this user may not look into a state folder that is there, "" otherwise."""
    try:
        os.listdir(state_dir)
        return ""
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return (
            f"The state folder {state_dir} cannot be read: {error.strerror}. Run this as the user that it"
            " belongs to, or name another one with --state-dir."
        )


def _check_owner(state_dir: Path) -> None:
    if not hasattr(os, "getuid"):  # Windows: the folder lies in the profile of the user
        return
    of_link, of_folder = os.lstat(state_dir), os.stat(state_dir)
    allowed = {os.getuid(), 0} if stat.S_ISLNK(of_link.st_mode) else {os.getuid()}
    if of_link.st_uid in allowed and of_folder.st_uid == os.getuid():
        return
    owner = of_folder.st_uid if of_link.st_uid in allowed else of_link.st_uid
    raise DiskError(
        f"The state folder {state_dir} belongs to user {owner}, this farm runs as user {os.getuid()}: its"
        " token would be in that user's hands. Choose a folder of your own (--state-dir).",
        str(state_dir),
        errno.EPERM,
    )


def _check_entry(entry: os.DirEntry[str]) -> None:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # another farm that starts or stops here right now
        return
    if stat.S_ISLNK(found.st_mode):
        what = "is a symbolic link"
    elif hasattr(os, "getuid") and found.st_uid != os.getuid():
        what = f"belongs to user {found.st_uid}"
    elif entry.name in FILES and not stat.S_ISREG(found.st_mode):
        what = "is no file"
    elif entry.name in FOLDERS and not stat.S_ISDIR(found.st_mode):
        what = "is no folder"
    else:
        return
    raise DiskError(
        f"{entry.path} {what}. A farm only writes to its own files in its state folder: remove it, or choose"
        " another folder (--state-dir).",
        entry.path,
        errno.EPERM,
    )


def prepare(state_dir: Path) -> StateLock:
    """Secure the folder and take its lock. Raises AlreadyRunning, with the pid of the other, and
    DiskError."""
    secure(state_dir)
    return StateLock.acquire(state_dir / LOCK)


def write_token(state_dir: Path, given: str) -> str:
    """Write the token of this start (a new one unless `given`) for the clients of this user, and return
    it."""
    token = given or secrets.token_urlsafe(32)
    _write(state_dir / TOKEN, token)
    return token


def read_token(state_dir: Path) -> str:
    """Return the token that clients find, "" if there is none."""
    try:
        return (state_dir / TOKEN).read_text("utf-8")
    except (OSError, ValueError):
        return ""


def write_endpoint(state_dir: Path, endpoint: dict[str, Any]) -> None:
    """Say where this farm listens: host, port, feed_port, pid; `managed`: a service manager starts it again;
    `stopped`: it listened there and has stopped; `boot_id`: of the machine then."""
    _write(state_dir / ENDPOINT, json.dumps(endpoint))


def read_endpoint(state_dir: Path) -> dict[str, Any]:
    """Return where the farm of this folder listens or last listened; {} when there never was one."""
    try:
        found = json.loads((state_dir / ENDPOINT).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_left(state_dir: Path, images: int, jobs: Sequence[str], folders: Sequence[str]) -> None:
    """Note what a farm that stops leaves to the next start. Raises DiskError."""
    _write(state_dir / LEFT, json.dumps({"images": images, "jobs": jobs, "folders": folders}))


def read_left(state_dir: Path) -> str:
    """Return a sentence on what the last farm left to the next start, "" when that is nothing."""
    try:
        left = json.loads((state_dir / LEFT).read_text("utf-8"))
        jobs, folders = list(map(str, left["jobs"])), list(map(str, left["folders"]))
        images = int(left["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    what, them = ("image is", "it") if images == 1 else ("images are", "them")
    return (
        f"{images} {what} accepted and not written yet, of {_few(jobs, 'job', 'jobs')} for"
        f" {_few(folders, 'folder', 'folders')}. The next `luna-farm start` on {state_dir} writes {them}."
    )


def forget_left(state_dir: Path) -> None:
    """A farm runs again, and has taken up what was left."""
    (state_dir / LEFT).unlink(missing_ok=True)


def _few(names: Sequence[str], one: str, many: str) -> str:
    listed = ", ".join(names[:LISTED])
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{one if len(names) == 1 else many} {listed}{rest}"


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
        raise system.disk_error("write", path, error) from error
