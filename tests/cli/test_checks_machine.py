"""The doctor's judgement of the machine: which facts are fine, which are not, and what it advises."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
from free_ports import free_port

from luna_farm.cli import checks_machine as checks
from luna_farm.cli.checks_machine import Holder
from luna_farm.cli.findings import FINE, NOTE, PROBLEM
from luna_farm.errors import ArenaError
from luna_farm.storage.arena import Arena

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.parametrize(
    ("room", "asked", "trial", "running", "level", "words"),
    [
        ((10 * GIB, 12 * GIB), 0, "", False, FINE, "the arena takes 1.1 GB"),
        (None, 0, "", False, FINE, "the bound is the memory of 17.2 GB"),
        ((GIB, 8 * GIB), 0, "", True, FINE, "the running farm has its arena"),
        ((64 * MIB, 64 * MIB), 0, "", False, NOTE, "at most 53.7 MB instead of 1.1 GB"),
        ((8 * MIB, 8 * MIB), 0, "", False, NOTE, "a file in the state folder stands in"),
        ((8 * MIB, 8 * MIB), 4 * MIB, "", False, FINE, "the arena takes 4.2 MB"),
        ((12 * GIB, 12 * GIB), 9 * GIB, "", False, PROBLEM, "is 9.7 GB of 17.2 GB memory"),
        ((12 * GIB, 12 * GIB), 0, "Function not implemented", False, PROBLEM, "Function not implemented"),
    ],
)
def test_shared_memory(
    room: tuple[int, int] | None, asked: int, trial: str, running: bool, level: str, words: str
) -> None:
    finding = checks.shared_memory(room, 16 * GIB, asked, trial, running)
    assert finding.level == level
    assert words in finding.text
    assert bool(finding.advice) is (level != FINE)


@pytest.mark.parametrize(
    ("limit", "level", "words"),
    [
        (None, FINE, "nothing limits"),
        ((32 * GIB, "/x/memory.max"), FINE, "nothing limits"),
        ((GIB, "/x/memory.max"), FINE, "may use 1.1 GB (/x/memory.max)"),
        ((64 * MIB, "/x/memory.max"), PROBLEM, "too little"),
    ],
)
def test_memory(limit: tuple[int, str] | None, level: str, words: str) -> None:
    finding = checks.memory(16 * GIB, limit, checks.LEAST_MEMORY)
    assert finding.level == level
    assert words in finding.text
    assert bool(finding.advice) is (level != FINE)


def test_shared_memory_is_really_tried_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    create = Arena.create

    def note(name: str, size: int) -> Arena:
        made.append(name)
        return create(name, size)

    with monkeypatch.context() as patch:
        patch.setattr(Arena, "create", note)
        assert checks.try_shared_memory() == ""
    (name,) = made
    with pytest.raises((ArenaError, OSError)):
        Arena.attach(name)

    def refuse(name: str, size: int = 0) -> Arena:
        raise ArenaError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Arena, "attach", refuse)
        assert checks.try_shared_memory() == "no room"
    monkeypatch.setattr(Arena, "create", refuse)
    assert checks.try_shared_memory() == "no room"


@pytest.mark.parametrize(
    ("hard", "level"), [(-1, FINE), (1_048_576, FINE), (320, FINE), (319, NOTE), (64, NOTE), (63, PROBLEM)]
)
def test_open_files(hard: int, level: str) -> None:
    finding = checks.open_files(hard, 256)
    assert finding.level == level
    assert ("ulimit" in finding.advice) is (level != FINE)


@pytest.mark.parametrize(
    ("refused", "holder", "farm_pid", "level", "words"),
    [
        (0, None, None, FINE, "is free"),
        (errno.EADDRINUSE, Holder(42, "python"), 42, FINE, "the farm listens there, process 42"),
        (errno.EADDRINUSE, Holder(43, "nginx"), 42, PROBLEM, "taken by process 43 (nginx)"),
        (errno.EADDRINUSE, Holder(0, ""), None, PROBLEM, "taken by a process of another user"),
        (errno.EADDRINUSE, None, None, PROBLEM, "taken by a process of another user"),
        (errno.EADDRNOTAVAIL, None, None, PROBLEM, "is no address of this machine"),
        (errno.EACCES, None, None, PROBLEM, "may not be taken by this user"),
        (errno.EAFNOSUPPORT, None, None, PROBLEM, "not supported"),
    ],
)
def test_port(refused: int, holder: Holder | None, farm_pid: int | None, level: str, words: str) -> None:
    finding = checks.port("status feed", "127.0.0.1", 19284, refused, holder, farm_pid)
    assert finding.level == level
    assert words in finding.text
    assert bool(finding.advice) is (level != FINE)
    if refused == errno.EADDRINUSE and level == PROBLEM:
        assert "--feed-port NUMBER" in finding.advice


def test_a_port_that_is_off_or_any_is_fine() -> None:
    assert checks.port("status feed", "127.0.0.1", -1, 0, None, None).text == "It is switched off."
    assert "any free port" in checks.port("job listener", "127.0.0.1", 0, 0, None, None).text


def test_a_port_is_really_tried_and_its_holder_found() -> None:
    number = free_port()  # no other program takes it afterwards
    with socket.create_server(("127.0.0.1", number)):
        assert checks.try_port("127.0.0.1", number) == errno.EADDRINUSE
        holder = checks.find_holder(number)
        assert holder is not None
        assert holder.pid == os.getpid()
        assert holder.name
    assert checks.find_holder(number) is None
    assert checks.try_port("127.0.0.1", 0) == 0
    assert checks.try_port("127.0.0.1", -1) == 0
    assert checks.try_port("203.0.113.1", 0) == errno.EADDRNOTAVAIL
    assert checks.try_port("no.such.host.invalid", 0) == errno.EADDRNOTAVAIL


def test_a_system_that_names_no_holders_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    def refuse(*args: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    assert checks.find_holder(1) is None
    monkeypatch.setattr(psutil, "Process", refuse)
    assert checks._process_name(1) == ""
    assert checks._process_name(None) == ""


@pytest.mark.parametrize(
    ("uid", "logind", "removes", "lingers", "level"),
    [
        (1000, True, True, False, NOTE),
        (1000, True, True, True, FINE),
        (1000, True, False, False, FINE),
        (0, True, True, False, FINE),
        (1000, False, True, False, FINE),
    ],
)
def test_logout(uid: int, logind: bool, removes: bool, lingers: bool, level: str) -> None:
    finding = checks.remove_ipc(uid, logind, removes, lingers)
    assert finding.level == level
    assert ("enable-linger" in finding.advice) is (level == NOTE)


def test_the_last_word_of_logind_counts(tmp_path: Path) -> None:
    vendor, runtime, admin = folders = [tmp_path / name for name in ("usr", "run", "etc")]
    for folder in folders:
        (folder / "logind.conf.d").mkdir(parents=True)
    assert checks.removes_ipc(folders) is True
    (vendor / "logind.conf").write_text("[Login]\nRemoveIPC=no\n")
    assert checks.removes_ipc(folders) is False
    (admin / "logind.conf").write_text("[Login]\n#RemoveIPC=no\n")
    assert checks.removes_ipc(folders) is True  # the administrator's file replaces the vendor's as a whole
    (vendor / "logind.conf.d" / "50.conf").write_text("[Login]\nRemoveIPC=no\n")
    assert checks.removes_ipc(folders) is False
    (runtime / "logind.conf.d" / "40.conf").write_text("[Login]\nRemoveIPC=yes\n")
    assert checks.removes_ipc(folders) is False
    (admin / "logind.conf.d" / "50.conf").write_text("[Login]\nRemoveIPC = yes\n")
    assert checks.removes_ipc(folders) is True
    (admin / "logind.conf.d" / "60.conf").mkdir()
    assert checks.removes_ipc(folders) is True


def test_logout_is_judged_on_any_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.logout().check == "logout"
    monkeypatch.setattr(checks.sys, "platform", "darwin")
    assert checks.logout().level == FINE


NOW = checks.FIRST_RELEASE + 1e6


@pytest.mark.parametrize(
    ("now", "newest", "level", "words"),
    [
        (NOW, NOW - 5, FINE, "It says 20"),
        (NOW, 0, FINE, "It says 20"),
        (NOW, NOW + 3600, FINE, "It says 20"),
        (NOW, NOW + 7200, NOTE, "2.0 h before the farm's last note"),
        (0, 0, PROBLEM, "before this program was made"),
    ],
)
def test_clock(now: float, newest: float, level: str, words: str) -> None:
    finding = checks.clock(now, newest)
    assert finding.level == level
    assert words in finding.text


def test_the_newest_note_of_a_folder(tmp_path: Path) -> None:
    assert checks.newest_note(tmp_path) == checks.newest_note(tmp_path / "none") == 0
    for name, when in (("old", 100), ("new", 200)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (when, when))
    assert checks.newest_note(tmp_path) == 200
