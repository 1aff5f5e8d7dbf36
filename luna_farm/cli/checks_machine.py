"""Checks of the machine for `luna-farm doctor`: shared memory, open files, ports, RemoveIPC, clock.

Each judges facts that are handed to it and returns a finding; the functions at the end gather the facts.
Nothing here may change the machine or disturb a farm that runs: what is tried is undone at once.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from luna_farm.cli.findings import FINE, NOTE, PROBLEM, Finding
from luna_farm.cli.terminal import duration, size
from luna_farm.errors import ArenaError
from luna_farm.storage import arena_size
from luna_farm.storage.arena import Arena

FEW_FILES = 64
"""With fewer open files the farm starts, but takes only a handful of connections."""
LEAST_MEMORY = 128 << 20
"""What a supervisor, two workers and a small arena need to save images of a usual size."""
FIRST_RELEASE = datetime(2025, 1, 1, tzinfo=timezone.utc).timestamp()
"""A clock before this is wrong: the program did not exist then."""
JUMP_S = 3600.0
"""Files that lie further in the future than this show that the clock was set back."""
_TRIAL_BYTES = 1 << 20


# --- memory


def memory(machine: int, limit: tuple[int, str] | None, farm: int) -> Finding:
    """Judge how much memory there is. machine: bytes of this machine; limit: of the control groups, and the
    file that sets it; farm: what the farm and its arena take by default."""
    name = "memory"
    if limit is None or limit[0] >= machine:
        return Finding(name, FINE, f"This machine has {size(machine)}, and nothing limits the farm to less.")
    text = f"{size(machine)}, of which this program may use {size(limit[0])} ({limit[1]})"
    if limit[0] < farm:
        advice = f"Allow at least {size(farm)}: MemoryMax= of the service, or `docker run --memory`."
        return Finding(name, PROBLEM, f"{text}: too little for a farm.", advice)
    return Finding(name, FINE, f"{text}.")


# --- shared memory


def shared_memory(
    room: tuple[int, int] | None, memory: int, asked: int, trial: str, running: bool
) -> Finding:
    """Judge whether the arena finds its place.

    room: (free, total) bytes of its file system, None where memory is the only bound; memory: of this
    machine; asked: the setting, 0 for the default; trial: what went wrong when a small segment was made,
    "" nothing.
    """
    name = "shared memory"
    if trial:
        return Finding(name, PROBLEM, f"It does not work here: {trial}", _MORE_SHM)
    if asked > memory // 2:
        advice = "Set [arena] bytes to less, or to 0 for the default."
        return Finding(name, PROBLEM, f"[arena] bytes is {size(asked)} of {size(memory)} memory.", advice)
    if room is None:
        return Finding(name, FINE, f"It works; the bound is the memory of {size(memory)}.")
    free, total = room
    text = f"{size(free)} of {size(total)} are free"
    if running:
        return Finding(name, FINE, f"{text}, and the running farm has its arena.")
    wanted = asked or max(
        arena_size.MIN_BYTES, min(int(memory * arena_size.MEMORY_SHARE), arena_size.MAX_DEFAULT_BYTES)
    )
    usable = int(free * arena_size.FREE_SHARE)
    if usable >= wanted:
        return Finding(name, FINE, f"{text}; the arena takes {size(wanted)}.")
    if usable < min(wanted, arena_size.MIN_BYTES):
        return Finding(
            name, NOTE, f"{text}: too little for an arena, a file in the state folder stands in.", _MORE_SHM
        )
    return Finding(
        name, NOTE, f"{text}: the arena gets at most {size(usable)} instead of {size(wanted)}.", _MORE_SHM
    )


_MORE_SHM = (
    "In a container: `docker run --shm-size=2g` (compose: `shm_size: 2gb`). Otherwise look there for what"
    " others left, or enlarge it: `mount -o remount,size=50% /dev/shm`."
)


def try_shared_memory() -> str:
    """Make, write, attach and remove a small segment. Returns what went wrong, "" if nothing did."""
    name, _ = arena_size.fresh_names(".")
    try:
        made = Arena.create(name, _TRIAL_BYTES)
    except (ArenaError, OSError) as error:
        return str(error)
    try:
        made.view(0, 4)[:] = b"luna"
        seen = Arena.attach(name)
        same = bytes(seen.view(0, 4)) == b"luna"
        seen.close()
        return "" if same else "what is written there is not read back."
    except (ArenaError, OSError) as error:
        return str(error)
    finally:
        made.unlink()
        made.close()


# --- open files


def open_files(hard: int, connections: int) -> Finding:
    """Judge the hard limit of open files (the farm raises the soft one by itself) against [limits]
    max_connections."""
    name = "open files"
    if hard < 0 or hard >= connections + FEW_FILES:
        shown = "without limit" if hard < 0 else f"up to {hard}"
        return Finding(name, FINE, f"This user may open files {shown}; {connections} connections fit.")
    level = PROBLEM if hard < FEW_FILES else NOTE
    return Finding(
        name,
        level,
        f"This user may open only {hard} files; {connections} connections and the farm itself need"
        f" {connections + FEW_FILES}.",
        "Raise `ulimit -Hn` (or LimitNOFILE in the service), or lower [limits] max_connections.",
    )


# --- ports


@dataclass(frozen=True, slots=True)
class Holder:
    """Who listens on a port; pid 0 when the system does not say (another user's process)."""

    pid: int
    name: str


def port(
    what: str, host: str, number: int, refused: int, holder: Holder | None, farm_pid: int | None
) -> Finding:
    """Judge whether the farm can listen on a port.

    refused: errno of an attempt to bind it, 0 if it succeeded; holder: who has it, if anyone is found;
    farm_pid: the farm of this state folder, None if none runs.
    """
    name, place = f"port {number}", f"{what} {host}:{number}"
    if number < 0:
        return Finding(what, FINE, "It is switched off.")
    if not refused:
        return Finding(name, FINE, f"{place} is free." if number else f"{what}: any free port is taken.")
    if refused == errno.EADDRINUSE:
        if holder is not None and holder.pid and holder.pid == farm_pid:
            return Finding(name, FINE, f"{place}: the farm listens there, process {farm_pid}.")
        who = (
            f"process {holder.pid} ({holder.name})" if holder and holder.pid else "a process of another user"
        )
        advice = f"Stop it, or choose another port: `luna-farm start {_OPTIONS.get(what, '--port')} NUMBER`."
        return Finding(name, PROBLEM, f"{place} is taken by {who}.", advice)
    if refused == errno.EADDRNOTAVAIL:
        return Finding(
            name, PROBLEM, f"{host} is no address of this machine.", "Set [server] host to one that is."
        )
    if refused == errno.EACCES:
        return Finding(name, PROBLEM, f"{place} may not be taken by this user.", "Choose a port above 1023.")
    return Finding(name, PROBLEM, f"{place}: {os.strerror(refused)}.", "Choose another host or port.")


_OPTIONS = {"job listener": "--port", "status feed": "--feed-port"}


def try_port(host: str, number: int) -> int:
    """Bind a port as the farm would and let it go. Returns the errno of the refusal, 0 if there is none."""
    if number < 0:
        return 0
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        if os.name == "posix":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, number))
            trial.listen()
        except socket.gaierror:
            return errno.EADDRNOTAVAIL
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def find_holder(number: int) -> Holder | None:
    """Return who listens on a port of this machine, as far as this user may know."""
    import psutil

    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):  # macOS answers only root
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == number:
            return Holder(connection.pid or 0, _process_name(connection.pid))
    return None


def _process_name(pid: int | None) -> str:
    import psutil

    try:
        return psutil.Process(pid).name() if pid else ""
    except psutil.Error:
        return ""


# --- systemd's RemoveIPC

LOGIND = tuple(Path(root, "systemd") for root in ("/usr/lib", "/run", "/etc"))
"""Folders of logind.conf and logind.conf.d, the strongest last."""
FIRST_LOGIN_UID = 1000


def remove_ipc(uid: int, logind: bool, removes: bool, lingers: bool) -> Finding:
    """Judge whether systemd takes the arena of a detached farm away at logout.

    logind: whether it runs here; removes: its setting; lingers: whether this user's services outlive the
    logout.
    """
    name = "logout"
    if not logind:
        return Finding(name, FINE, "No systemd-logind runs here: nothing removes shared memory at logout.")
    if uid < FIRST_LOGIN_UID:
        return Finding(name, FINE, "systemd leaves the shared memory of system users alone.")
    if lingers or not removes:
        why = "this user lingers" if lingers else "RemoveIPC=no"
        return Finding(name, FINE, f"systemd leaves shared memory alone at logout: {why}.")
    return Finding(
        name,
        NOTE,
        "At logout systemd removes your shared memory (RemoveIPC=yes), and with it the images that wait.",
        "If the farm runs on then: `loginctl enable-linger`, or RemoveIPC=no in /etc/systemd/logind.conf.",
    )


def removes_ipc(folders: Iterable[Path] = LOGIND) -> bool:
    """Return logind's setting RemoveIPC: the last word of its files; without one it is yes."""
    order = list(folders)
    mains = [folder / "logind.conf" for folder in order]
    drop_ins = {
        path.name: path for folder in order for path in sorted((folder / "logind.conf.d").glob("*.conf"))
    }
    main = [path for path in reversed(mains) if path.is_file()][:1]
    value = True
    for path in [*main, *(drop_ins[name] for name in sorted(drop_ins))]:
        value = _last_word(path, value)
    return value


def _last_word(path: Path, value: bool) -> bool:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return value
    for line in lines:
        key, _, given = line.partition("=")
        if key.strip() == "RemoveIPC":
            value = given.strip().lower() in ("yes", "true", "on", "1")
    return value


def logout() -> Finding:
    """Gather the facts for `remove_ipc`. macOS and Windows keep shared memory at logout as long as the farm
    runs."""
    if sys.platform != "linux":
        return remove_ipc(0, False, False, False)
    import getpass

    lingers = Path("/var/lib/systemd/linger", getpass.getuser()).exists()
    return remove_ipc(os.getuid(), Path("/run/systemd/seats").is_dir(), removes_ipc(), lingers)


# --- clock


def clock(now: float, newest: float) -> Finding:
    """Judge the clock. now: seconds since 1970; newest: when the state folder was last written to, 0 if
    never."""
    shown = datetime.fromtimestamp(now, timezone.utc).astimezone().isoformat(" ", "minutes")
    if now < FIRST_RELEASE:
        advice = "Set the clock: file names carry the time, and would be wrong."
        return Finding("clock", PROBLEM, f"It says {shown}, which is before this program was made.", advice)
    if newest > now + JUMP_S:
        return Finding(
            "clock",
            NOTE,
            f"It says {shown}, {duration(newest - now)} before the farm's last note: it was set back.",
            "No job suffers (none hangs on the clock), but the times in file names can repeat.",
        )
    return Finding("clock", FINE, f"It says {shown}.")


def newest_note(folder: Path) -> float:
    """Return when anything in a folder was last written, in seconds since 1970; 0 if there is nothing."""
    try:
        return max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
    except OSError:
        return 0.0
