"""Two networks on this machine, joined by a wire that a test slows down, makes lossy, or cuts.

Each is a network namespace of Linux. The wire is a pair of TUN devices, and threads that carry packets from
one to the other. The thread that opens it is in the near network, and so is every process that it starts;
`before` starts a process in the far one. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

NEAR, FAR, SECOND_FAR = "10.77.0.1", "10.77.0.2", "10.77.0.3"
MTU = 60_000
_CLONE_NEWNET, _TUNSETIFF, _IFF_TUN_NO_PI = 0x4000_0000, 0x4004_54CA, 0x1001


def why_not() -> str:
    """Why there can be no such networks here, "" if there can."""
    if (
        sys.platform != "linux"
        or os.geteuid()
        or not shutil.which("ip")
        or not os.path.exists("/dev/net/tun")
    ):
        return "NOT TESTED: a network that fails needs Linux, root, iproute2 and /dev/net/tun"
    return ""


class Wire:
    """The wire between the two networks; a context manager."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        """Each way."""
        self.loss = 0.0
        """Share of packets that are lost."""
        self.cut = False
        self.lost = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Wire:
        with self._stack:
            self._open()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def before(self) -> list[str]:
        """What a command starts with that runs in the far network."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def _open(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._stack.callback(os.close, home)
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        self._stack.callback(libc.setns, home, _CLONE_NEWNET)
        near = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._stack.callback(os.close, near)
        ends = [self._device(NEAR)]
        # A process keeps the far network in being; it is in it once it has said so.
        self._holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo; exec sleep 3600"], stdout=subprocess.PIPE
        )
        self._stack.callback(self._holder.wait)
        self._stack.callback(self._holder.kill)
        assert self._holder.stdout is not None
        with self._holder.stdout as told:
            told.readline()
        far = os.open(f"/proc/{self._holder.pid}/ns/net", os.O_RDONLY)
        try:
            libc.setns(far, _CLONE_NEWNET)
            ends.append(self._device(FAR, SECOND_FAR))
        finally:
            libc.setns(near, _CLONE_NEWNET)
            os.close(far)
        over = threading.Event()
        carriers = [
            threading.Thread(target=self._carry, args=(*pair, over)) for pair in itertools.permutations(ends)
        ]
        for end in ends:
            self._stack.callback(os.close, end)
        for carrier in carriers:
            carrier.start()
            self._stack.callback(carrier.join)
        self._stack.callback(over.set)

    def _device(self, *addresses: str) -> int:
        """Make a TUN device with these addresses in the network of this thread."""
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"wire", _IFF_TUN_NO_PI))
        commands = ["link set lo up", f"link set wire up mtu {MTU}"]
        commands += [f"addr add {address}/24 dev wire" for address in addresses]
        # Programs find out their own address by looking where a packet to the world would leave.
        for command in (*commands, f"route add default dev wire src {addresses[0]}"):
            subprocess.run(["ip", *command.split()], check=True)
        return device

    def _carry(self, source: int, target: int, over: threading.Event) -> None:
        waiting: list[tuple[float, int, bytes]] = []
        number = itertools.count()
        while not over.is_set():
            wait_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.05
            if select.select([source], [], [], min(wait_s, 0.05))[0]:
                packet = os.read(source, MTU + 100)
                if self.cut or random.random() < self.loss:
                    self.lost += 1
                else:
                    heapq.heappush(waiting, (time.monotonic() + self.delay_s, next(number), packet))
            while waiting and waiting[0][0] <= time.monotonic():
                with contextlib.suppress(OSError):  # a device that is going, or packets of IPv6
                    os.write(target, heapq.heappop(waiting)[2])


@contextlib.contextmanager
def cut(wire: Wire) -> Iterator[Any]:
    """Nothing gets through."""
    wire.cut = True
    try:
        yield
    finally:
        wire.cut = False
