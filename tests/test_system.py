"""Platform calls: what they say of this machine, and what they do when the machine refuses."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from plain_process import start_python

from luna_farm import system, system_sockets
from luna_farm.errors import DiskError


def test_the_boot_id_is_one_line_and_stays() -> None:
    assert system.boot_id() == system.boot_id()
    assert 0 < len(system.boot_id()) <= 64
    assert system.boot_id().isprintable()


def test_without_a_kernel_that_tells_the_boot_time_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, encoding: str) -> str:
        raise FileNotFoundError(2, "none")

    monkeypatch.setattr(Path, "read_text", missing)
    assert system.boot_id().startswith("boot-")
    assert system.boot_id() == system.boot_id()


def test_a_limit_of_the_container_counts_when_it_is_less(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = system.machine_memory_bytes()
    for limit, expected in ((None, whole), ((1_000_000, "here"), 1_000_000), ((2 * whole, "here"), whole)):
        monkeypatch.setattr(system, "memory_limit", lambda limit=limit: limit)
        assert system.memory_bytes() == expected > 0


def test_a_folder_that_is_not_there_yet_is_measured_by_its_parent(tmp_path: Path) -> None:
    free, total = system.disk_bytes(tmp_path / "not" / "yet")
    assert 0 < free <= total
    assert total == system.disk_bytes(tmp_path)[1]


def test_a_file_system_that_cannot_be_asked_is_a_disk_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "statvfs", broken)
    with pytest.raises(DiskError, match=r"Cannot look at the file system of .*\(EIO\)\. The disk reports"):
        system.disk_bytes(tmp_path)


def test_no_shared_memory_folder_is_no_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "SHM_FOLDER", tmp_path / "none")
    assert system.shm_bytes() is None
    monkeypatch.setattr(system, "SHM_FOLDER", tmp_path)
    assert system.shm_bytes() is not None


def test_the_processors_that_count_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5}, raising=False)
    assert system.usable_processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert system.usable_processors() == (os.cpu_count() or 1)


def test_the_limit_of_open_files_is_that_of_this_process() -> None:
    soft, hard = system.open_file_limit()
    assert soft > 0
    assert hard == -1 or soft <= hard


LOWER = """
import os
from luna_farm import system
before = os.nice(0)
system.lower_priority()
print(os.nice(0) - before)
"""


def test_a_worker_steps_back_and_a_refusal_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    with start_python(LOWER) as process:
        assert int(process.communicate(timeout=60)[0]) > 0

    def refuse(step: int) -> int:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "nice", refuse)
    system.lower_priority()


# --- who is at the other end --------------------------------------------------------------------------------


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A listener on a loopback address."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        server = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"NOT TESTED: this machine has no {request.param}")
    server.settimeout(60)
    with server:
        yield server


def test_a_peer_of_this_user_is_known(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()[:2]) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert system.peer_uid(accepted) == os.getuid()
            assert system.peer_uid(client) == os.getuid()


CLIENT = """
import encodings.idna, os, socket, sys  # idna now: that user may not read where Python lies
os.setuid(65534)
with socket.create_connection((sys.argv[1], int(sys.argv[2]))):
    sys.stdin.read()
"""


def test_a_peer_of_another_user_is_known_by_that_users_id(listener: socket.socket) -> None:
    if os.getuid() != 0:
        pytest.skip("NOT TESTED: becoming another user needs root")
    host, port = listener.getsockname()[:2]
    with start_python(CLIENT, host, str(port)) as process:
        accepted, _ = listener.accept()
        with accepted:
            assert system.peer_uid(accepted) == 65534
        process.communicate(timeout=60)


def test_a_peer_that_has_closed_is_not_taken_for_root(listener: socket.socket) -> None:
    client = socket.create_connection(listener.getsockname()[:2])
    accepted, _ = listener.accept()
    client.close()
    with accepted:
        assert system.peer_uid(accepted) is None
    assert system.peer_uid(accepted) is None


def _not_asked(*ends: object) -> None:
    raise PermissionError(1, "no sock_diag here")


def test_where_the_kernel_cannot_be_asked_its_table_is_read(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_sockets, "_asked_uid", _not_asked)
    with socket.create_connection(listener.getsockname()[:2]) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert system.peer_uid(accepted) == os.getuid()
            client.close()
            assert system.peer_uid(accepted) is None


@pytest.mark.parametrize("asked", [True, False])
def test_a_listener_for_both_families_knows_the_user_of_either(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the kernel may not be asked, and by IPv4 in the clothes of IPv6."""
    if not asked:
        monkeypatch.setattr(system_sockets, "_asked_uid", _not_asked)
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
            with socket.create_connection((host, server.getsockname()[1])):
                accepted, _ = server.accept()
                with accepted:
                    assert system.peer_uid(accepted) == os.getuid()


def test_without_a_table_of_connections_nobody_is_known(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: Path, *args: object, **kwargs: object) -> None:
        raise FileNotFoundError(2, "none")

    monkeypatch.setattr(system_sockets, "_asked_uid", _not_asked)
    with socket.create_connection(listener.getsockname()[:2]) as client:
        monkeypatch.setattr(Path, "open", missing)
        assert system.peer_uid(client) is None


# --- files --------------------------------------------------------------------------------------------------


def test_syncing_reaches_files_and_folders(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        system.sync_data(file.fileno())
    system.sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        system.sync_folder(tmp_path / "none")


@pytest.mark.parametrize(("number", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synced_is_taken_at_its_word_but_not_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    def fail(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    before = len(os.listdir("/proc/self/fd"))
    if raised:
        with pytest.raises(OSError, match="Input/output"):
            system.sync_folder(tmp_path)
    else:
        system.sync_folder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_disk_error_says_what_why_and_what_to_do() -> None:
    error = system.disk_error("write", "/full/a.png", OSError(errno.ENOSPC, "No space left on device"))
    assert str(error) == (
        "Cannot write /full/a.png: No space left on device (ENOSPC)."
        " Free some space (or inodes: `df -i`) on that disk."
    )
    assert (error.path, error.errno) == ("/full/a.png", errno.ENOSPC)
    assert str(system.disk_error("write", "/x", OSError("odd"))) == "Cannot write /x: odd (0)."


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: only Linux has such a call")
def test_a_thread_keeps_to_its_processor_and_leaves_the_others_alone() -> None:
    usable = sorted(os.sched_getaffinity(0))
    found: list[set[int]] = []

    def keep(nth: int) -> None:
        system.keep_to_processor(nth)
        found.append(os.sched_getaffinity(0))

    for nth in range(len(usable) + 1):
        thread = threading.Thread(target=keep, args=(nth,))
        thread.start()
        thread.join()
    assert found == [{processor} for processor in (*usable, usable[0])]
    assert os.sched_getaffinity(0) == set(usable)


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: only Linux has such a call")
def test_a_processor_that_is_refused_leaves_the_thread_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, processors: set[int]) -> None:
        raise PermissionError(1, "not here")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    system.keep_to_processor(0)


RAISE = """
import resource
from luna_farm import system
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))
system.raise_open_file_limit()
print(*system.open_file_limit())
"""


def test_the_limit_of_open_files_is_raised_as_far_as_allowed() -> None:
    with start_python(RAISE) as process:
        assert process.communicate(timeout=60)[0].split() == ["100", "100"]


def test_a_living_process_exists_and_one_that_was_collected_does_not() -> None:
    assert system.process_exists(os.getpid())
    assert system.process_exists(1)
    with start_python("") as process:
        process.communicate(timeout=60)
    assert not system.process_exists(process.pid)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EADDRINUSE, "[errno 98] address already in use"), "another program listens there"),
        (
            OSError(errno.EACCES, "x"),
            "this user may not listen there; ports below 1024 are for administrators",
        ),
        (socket.gaierror(-2, "Name or service not known"), "no such name is known"),
        (OSError(errno.ENOSPC, "x"), None),
    ],
)
def test_why_an_address_cannot_be_listened_on_is_said_in_words(error: OSError, why: str | None) -> None:
    assert system.why_not_listening(error) == why
