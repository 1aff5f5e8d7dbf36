"""systemd's notify protocol, against a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from luna_farm.supervisor import notify

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform: systemd is not here"
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        address = str(tmp_path / "notify")
        listener.bind(address)
        listener.settimeout(60)
        yield listener, address


def test_lines_arrive_in_one_datagram(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    notifier = notify.Notifier({"NOTIFY_SOCKET": address})
    notifier.send(notify.READY, "STATUS=listening")
    assert listener.recv(100) == b"READY=1\nSTATUS=listening"
    notifier.close()
    notifier.send(notify.STOPPING)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(100)


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="abstract sockets are Linux's own")
def test_an_abstract_address_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0luna-farm-test-{os.getpid()}")
        listener.settimeout(60)
        notifier = notify.Notifier({"NOTIFY_SOCKET": f"@luna-farm-test-{os.getpid()}"})
        notifier.send(notify.ALIVE)
        assert listener.recv(100) == b"WATCHDOG=1"
        notifier.close()


def test_nobody_listening_is_fine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify.Notifier({}).send(notify.READY)
    assert not caplog.records
    lost = notify.Notifier({"NOTIFY_SOCKET": str(tmp_path / "nowhere")})
    lost.send(notify.READY)
    assert lost.watchdog_s is None
    assert "NOTIFY_SOCKET" in caplog.text


def test_a_manager_that_went_away_is_survived(
    manager: tuple[socket.socket, str], caplog: pytest.LogCaptureFixture
) -> None:
    listener, address = manager
    notifier = notify.Notifier({"NOTIFY_SOCKET": address})
    listener.close()
    notifier.send(notify.READY)
    assert "could not be sent" in caplog.text
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_in_half_of_its_time(
    manager: tuple[socket.socket, str], environ: dict[str, str], wanted: float | None
) -> None:
    notifier = notify.Notifier({"NOTIFY_SOCKET": manager[1], **environ})
    assert notifier.watchdog_s == wanted
    notifier.close()


def test_no_watchdog_without_a_socket() -> None:
    assert notify.Notifier({"WATCHDOG_USEC": "30000000"}).watchdog_s is None
