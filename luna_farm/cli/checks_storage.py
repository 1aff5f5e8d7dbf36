"""Checks of disks and folders for `luna-farm doctor`: room, rights, kind of file system, and what lies there.

Each judges facts that are handed to it and returns findings; the functions at the end gather the facts. A
trial leaves no file behind, and folders that are missing are not made.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from luna_farm import system
from luna_farm.cli.findings import FINE, NOTE, PROBLEM, Finding
from luna_farm.cli.terminal import size
from luna_farm.core.messages import temp_name
from luna_farm.errors import DiskError
from luna_farm.storage import writer
from luna_farm.storage.ways import Way
from luna_farm.supervisor.state_dir import JOURNAL, TOKEN

SCARCE_BYTES = 100 << 20
LOW_BYTES = 1 << 30
FEW_INODES = 1000
WAYS = {
    Way.UNNAMED: "",
    Way.LINK: "; files get their names by hard links",
    Way.RENAME: "; files get their names by a rename that replaces nothing",
    Way.CLAIM: "; an empty file takes each name first",
}
"""How files get their names in a folder. The first way is the usual one on Linux."""
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs")
VOLATILE = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of a folder. `error`: why nothing can be written there, "" if it can; `way`: how files
    get their names there (None: nothing was written); `inodes`: files that still fit, None if the file system
    has no such bound."""

    path: Path
    exists: bool
    error: str
    free: int
    total: int
    inodes: int | None
    way: Way | None
    kind: str


def folder(name: str, place: Place) -> list[Finding]:
    """Judge a folder that the farm writes to."""
    if place.error:
        return [Finding(name, PROBLEM, place.error, _advice(name))]
    found: list[Finding] = []
    room = f"{size(place.free)} of {size(place.total)} are free"
    if place.free < SCARCE_BYTES:
        found.append(
            Finding(name, PROBLEM, f"{place.path}: only {room}.", "Free some space, or choose another disk.")
        )
    elif place.free < LOW_BYTES:
        found.append(
            Finding(
                name, NOTE, f"{place.path}: only {room}.", "That is some hundred images; free some space."
            )
        )
    if place.inodes is not None and place.inodes < FEW_INODES:
        text = f"{place.path}: only {place.inodes} more files fit, however small (inodes)."
        found.append(Finding(name, PROBLEM, text, "Remove files you do not need; `df -i` shows the count."))
    if place.way is Way.CLAIM:
        text = (
            f"{place.path}: {place.kind or 'this file system'} has no hard links and no rename that replaces "
            "nothing. No file is ever replaced, but a new one is empty for an instant."
        )
        found.append(Finding(name, NOTE, text, "Where that matters, choose a disk of ext4, APFS or NTFS."))
    if found:
        return found
    kind = f" ({place.kind})" if place.kind else ""
    made = "" if place.exists else "; it is made when it is needed"
    way = WAYS[place.way] if place.way is not None else ""
    return [Finding(name, FINE, f"{place.path}{kind}: writable, {room}{way}{made}.")]


def _advice(name: str) -> str:
    return f"To use another folder: --{name.replace(' ', '-')} PATH."  # the error says what may be done there


def state_kind(place: Place) -> list[Finding]:
    """Judge the file system of the state folder: locks and memory maps want a local one that lasts."""
    if place.kind in NETWORK:
        text = f"{place.path} is on {place.kind}: locks and mapped files are not dependable across a network."
        return [Finding("state dir", NOTE, text, "Choose a local folder: --state-dir PATH.")]
    if place.kind in VOLATILE:
        text = (
            f"{place.path} is in memory ({place.kind}): the journal and durable jobs are gone after a boot."
        )
        return [Finding("state dir", NOTE, text, "Choose a folder on a disk: --state-dir PATH.")]
    return []


def permissions(owner: int, mode: int, token_mode: int | None, uid: int) -> Finding:
    """Judge who may read the state folder: prompts, pixels and the token lie there.

    owner: user id of the folder; mode, token_mode: permission bits of the folder and of the token (None:
    there is none); uid: this user.
    """
    name = "permissions"
    if owner != uid:
        text = f"The state folder belongs to user {owner}, this is user {uid}."
        return Finding(name, PROBLEM, text, "Run as that user, or choose another --state-dir.")
    if mode & 0o077 or (token_mode or 0) & 0o077:
        text = f"Others can look into the state folder (mode {mode:03o}, token {token_mode or 0:03o})."
        return Finding(
            name,
            PROBLEM,
            text,
            "`chmod 700` the folder and `chmod 600` what is in it; the next start does it.",
        )
    return Finding(name, FINE, "The state folder is for this user only.")


def left_aside(letters: int, tails: int, state_dir: Path) -> list[Finding]:
    """Report what earlier runs set aside: images that could not be saved, and damaged ends of journals."""
    found: list[Finding] = []
    if letters:
        text = f"Images that could not be saved: {letters}, in {state_dir / 'dead'}."
        found.append(
            Finding(
                "dead letters", NOTE, text, "`luna-farm jobs` names them, `luna-farm retry ID` tries again."
            )
        )
    if tails:
        text = (
            f"The journal was damaged {tails} times (a power cut, a full disk); the ends are kept beside it."
        )
        found.append(
            Finding("journal", NOTE, text, f"Nothing to do; `rm {state_dir / JOURNAL}.cut-*` clears them.")
        )
    return found


# --- gathering


def look(path: Path) -> Place:
    """Gather what is to know of a folder, trying a file in it, or in its nearest parent if it is missing."""
    exists, existing = path.is_dir(), path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    way, error = _try_writing(existing)
    try:
        free, total = system.disk_bytes(existing)
    except DiskError as failed:
        return Place(path, exists, str(failed), 0, 0, None, None, "")
    return Place(path, exists, error, free, total, _inodes(existing), way, kind_of(existing))


def _try_writing(folder: Path) -> tuple[Way | None, str]:
    """Publish a small file as a worker does, and remove it. Returns (how it got its name, why it did not)."""
    trial = temp_name(f"doctor{os.getpid()}", 0)
    path = folder.absolute() / trial.removesuffix(".tmp")
    try:
        published = writer.publish(
            str(path), [bytes(4096)], output_dir=str(path.parent), temp_name=trial, fsync=True
        )
    except DiskError as refused:
        return None, str(refused).replace(refused.path or str(path), str(folder))
    with contextlib.suppress(OSError):
        os.unlink(published.path)
    return writer.way_of(str(path.parent)), ""


def _inodes(path: Path) -> int | None:
    if sys.platform == "win32":
        return None
    found = os.statvfs(path)
    return found.f_favail if found.f_files else None  # btrfs and others make them as needed and say 0


def kind_of(path: Path) -> str:
    """Return the kind of file system that holds an existing path, such as "ext4" or "nfs4"; "" if nothing
    knows."""
    import psutil

    real = path.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if real.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


def look_at_permissions(state_dir: Path) -> Finding | None:
    """Gather the facts for `permissions`; None on Windows, and while there is no state folder."""
    if sys.platform == "win32" or not state_dir.is_dir():
        return None
    found = state_dir.stat()
    try:
        token = stat.S_IMODE((state_dir / TOKEN).stat().st_mode)
    except OSError:
        token = None
    return permissions(found.st_uid, stat.S_IMODE(found.st_mode), token, os.getuid())


def look_aside(state_dir: Path) -> list[Finding]:
    """Gather the facts for `left_aside`."""
    letters = sum(1 for _ in (state_dir / "dead").glob("*.json"))
    tails = sum(1 for _ in state_dir.glob(f"{JOURNAL}.cut-*"))
    return left_aside(letters, tails, state_dir)
