"""The one place for calls that differ between platforms: identity of the boot, sizes, priorities, locks,
syncing.

Each function says what it does on Linux and what its counterpart on macOS and Windows is. This module must
never import anything of the project except its errors, and never numpy: the supervisor and every worker load
it.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from luna_farm.errors import DiskError
from luna_farm.system_cgroups import memory_limit as memory_limit
from luna_farm.system_sockets import ACCEPT_AT_ONCE as ACCEPT_AT_ONCE
from luna_farm.system_sockets import let_wait as let_wait
from luna_farm.system_sockets import listener_uid as listener_uid
from luna_farm.system_sockets import peer_uid as peer_uid
from luna_farm.system_sockets import why_not_listening as why_not_listening

if sys.platform != "win32":
    import fcntl
    import resource

SHM_FOLDER = Path("/dev/shm")  # noqa: S108  the system's own folder for it, looked at, never written to by name
"""Where Linux keeps POSIX shared memory; macOS and Windows have no such folder."""

NICENESS = 10
"""How far workers step back behind the program that makes the images (0 .. 19)."""

_MANY_FILES = 65_536


# --- the machine --------------------------------------------------------------------------------------------


def boot_id() -> str:
    """Return a text that is the same until the machine boots again: memory of another boot is gone.

    Linux: the kernel's random boot id. macOS and Windows: the boot time to the minute, which a clock that is
    set anew can shift; the arena's header is then taken for one of another boot and its jobs are reported as
    lost.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        import psutil  # only here: Linux never pays for the import

        return f"boot-{int(psutil.boot_time()) // 60}"


def memory_bytes() -> int:
    """Return how much memory this program may use: the machine's, or the smallest limit of the control groups
    that it is in (a container, a service) if that is less."""
    total = machine_memory_bytes()
    limit = memory_limit()
    return total if limit is None else min(total, limit[0])


def machine_memory_bytes() -> int:
    """Return how much memory this machine has."""
    if sys.platform == "win32" or not hasattr(os, "sysconf"):
        import psutil

        return int(psutil.virtual_memory().total)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def disk_bytes(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (free for this user, total) bytes of the file system that holds `path`, or its nearest existing
    parent.

    Raises DiskError when no parent can be looked at.
    """
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if sys.platform == "win32":
            import shutil

            usage = shutil.disk_usage(folder)
            return usage.free, usage.total
        stat = os.statvfs(folder)
    except OSError as error:
        raise disk_error("look at the file system of", folder, error) from error
    return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize


_LOCAL_DISKS = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "overlay"),
        *("tmpfs", "ramfs", "vfat", "exfat", "apfs", "hfs", "ntfs", "ntfs3", "refs"),
    }
)


def usable_processors() -> int:
    """Return how many processors this process may use: `taskset` and containers may leave it fewer than there
    are. macOS and Windows: all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_local_disk(path: str | os.PathLike[str]) -> bool:
    """Return whether a path (absolute, links resolved) is on a disk of this machine, which answers soon.

    By the table of mounts, without touching the disk. A kind of file system that is not known here counts as
    remote: that costs time, the opposite could hang. Windows: network drives carry "remote".
    """
    import psutil

    text = os.path.normcase(os.fspath(path))
    mounts = [
        (len(point), mount)
        for mount in psutil.disk_partitions(all=True)
        if text.startswith(point := os.path.join(os.path.normcase(mount.mountpoint), ""))
        or text == os.path.normcase(mount.mountpoint)
    ]
    if not mounts:
        return False
    mount = max(mounts, key=lambda pair: pair[0])[1]
    return mount.fstype.lower() in _LOCAL_DISKS and "remote" not in mount.opts.split(",")


def shm_bytes() -> tuple[int, int] | None:
    """Return (free, total) bytes of the file system behind shared memory, or None where memory alone is the
    bound.

    None on macOS and Windows, and on a Linux without /dev/shm.
    """
    if sys.platform != "linux" or not SHM_FOLDER.is_dir():
        return None
    return disk_bytes(SHM_FOLDER)


def open_file_limit() -> tuple[int, int]:
    """Return the (soft, hard) limit of open files of this process; Windows has none that matters here: 8192,
    8192."""
    if sys.platform != "win32":
        return resource.getrlimit(resource.RLIMIT_NOFILE)
    return 8192, 8192


# --- processes ----------------------------------------------------------------------------------------------


def lower_priority() -> None:
    """Let this process step back behind others when the processor is short; a refusal is harmless and
    ignored.

    Linux, macOS: niceness + 10. Windows: BELOW_NORMAL_PRIORITY_CLASS.
    """
    try:
        if sys.platform == "win32":
            import psutil

            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            os.nice(NICENESS)
    except OSError:
        return


def release_memory() -> None:
    """Give memory that this process has freed back to the system: the allocator keeps some for later.

    Linux (glibc): malloc_trim. macOS: malloc_zone_pressure_relief. Windows: _heapmin. Other C libraries, such
    as musl, keep next to nothing.
    """
    import ctypes  # only here: what never encodes never pays for it

    with suppress(AttributeError, OSError):
        if sys.platform == "win32":
            ctypes.cdll.msvcrt._heapmin()
        elif sys.platform == "darwin":
            ctypes.CDLL(None).malloc_zone_pressure_relief(None, ctypes.c_size_t(0))
        else:
            ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def keep_to_processor(nth: int) -> None:
    """Let the calling thread run only on the `nth` of the processors that it may use, counted round.

    A refusal is harmless and ignored. Linux: sched_setaffinity. macOS has no such call; Windows'
    SetThreadAffinityMask is not called, for nothing was seen there that asks for it.
    """
    if sys.platform == "linux":
        usable = sorted(os.sched_getaffinity(0))
        with suppress(OSError):
            os.sched_setaffinity(0, {usable[nth % len(usable)]})


def process_exists(pid: int) -> bool:
    """Return whether a process of this number lives, whichever user owns it.

    Linux, macOS: signal 0. Windows, where that would end it: the process table.
    """
    if sys.platform == "win32":
        import psutil

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def process_started(pid: int) -> float | None:
    """Return when a process started: with its pid, its identity. None if there is none, or only its remains,
    which was not collected yet.

    Linux: clock ticks since the boot, which setting the clock does not change (the time of day of a start
    moves with the clock). macOS and Windows: seconds since 1970, as noted when it started.
    """
    if sys.platform == "linux":
        try:
            # The second field is a name in parentheses that may hold anything; the state and the rest follow.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        alone = int(fields[17]) <= 1  # a first thread that has ended leaves such remains beside the others
        return None if alone and fields[0] in (b"Z", b"X") else float(fields[19])
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def raise_open_file_limit() -> None:
    """Let this process open as many files as the hard limit allows; Windows has no such limit to raise."""
    if sys.platform != "win32":
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
        # macOS refuses more than kern.maxfilesperproc: what we have will do then.
        with suppress(OSError, ValueError):
            if soft != resource.RLIM_INFINITY and soft < wanted:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# --- files --------------------------------------------------------------------------------------------------


NO_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY})
"""What file systems say that cannot sync a file or a folder."""
_NO_FOLDER_SYNC = NO_SYNC | {errno.EACCES, errno.EPERM}


def sync_data(fd: int) -> None:
    """Return once the bytes of `fd` are on the disk. Linux: fdatasync. macOS: F_FULLFSYNC, since fsync there
    only reaches the drive's cache. Windows: FlushFileBuffers (os.fsync). Never call it again after it failed:
    the kernel has dropped the pages by then, and a second call would report success. File systems that have
    no sync (some network and FUSE ones) are taken at their word."""
    try:
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        elif hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:
            os.fsync(fd)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Return once the names in a folder are on the disk. Windows: nothing to do, NTFS journals its names;
    file systems that do not sync folders (EINVAL, EPERM, some network ones) are taken at their word."""
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_open_folder(fd)
    finally:
        os.close(fd)


def sync_open_folder(fd: int) -> None:
    """Do the same for a folder that is open for reading."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def disk_error(action: str, path: str | os.PathLike[str], error: OSError) -> DiskError:
    """Build the DiskError for `error`: what was tried on which path, the system's reason, and what to do
    about it."""
    number = error.errno or 0
    hint = _HINTS.get(number, "")
    reason = error.strerror or str(error)
    name = errno.errorcode.get(number, number)
    text = f"Cannot {action} {os.fspath(path)}: {reason} ({name}).{hint and ' ' + hint}"
    return DiskError(text, os.fspath(path), number)


_HINTS = {
    errno.ENOSPC: "Free some space (or inodes: `df -i`) on that disk.",
    errno.EDQUOT: "The quota of this user on that disk is used up.",
    errno.EROFS: "The file system is mounted read-only.",
    errno.EACCES: "Give this user the right to write there, or choose another folder.",
    errno.EPERM: "Give this user the right to write there, or choose another folder.",
    errno.ENOENT: "A folder on the way is missing; if it is a network folder, mount it.",
    errno.ELOOP: "A symbolic link is in the way: files are written only to real folders below output_dir.",
    errno.ENOTDIR: "A file or a symbolic link is where a folder should be; move it away.",
    errno.EIO: "The disk reports a hardware error; look at the system log.",
    errno.EMFILE: "Too many open files: raise `ulimit -n`.",
    errno.ENFILE: "Too many open files on the whole machine.",
}
