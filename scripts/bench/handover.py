"""The hand-over beside its floor and beside the least farm that one could write.

    python3 scripts/bench handover [--repeat 60]

The floor is that of `luna-farm bench`: the
pixels copied into shared memory, one message to a process and back. The least farm is twenty lines: it
unpacks the same message with msgpack, looks once whether a file is there, appends one record to a file and
answers, in asyncio; it judges nothing, counts nothing, saves nothing. All three find the same cold caches: an
image is saved before each. On Linux everything is measured again with the client on one processor and the
three on another: where a scheduler wakes a process on the processor of the one that woke it, nothing of
theirs happens at the same time. Must never be a test: figures differ.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
import sys
import tempfile
import zlib
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from luna_farm import system
from luna_farm.cli import measure, trial_farm
from luna_farm.cli.floor import Floor
from luna_farm_client import FarmClient, SaveImage, SaveRequest
from luna_farm_client.outgoing import Outgoing

SIDE = 1024
LENGTH = struct.Struct(">I")


def least_farm(port: int, folder: str) -> None:
    """Connect to `port` and answer submits until the other side closes. Runs in a process of its own."""
    space = memoryview(bytearray(65536))
    journal = os.open(os.path.join(folder, "journal"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    numbers = count()

    class Answers(asyncio.BufferedProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def get_buffer(self, sizehint: int) -> memoryview:
            return space

        def buffer_updated(self, nbytes: int) -> None:
            submit = msgpack.unpackb(space[LENGTH.size : nbytes])
            job_id = os.urandom(4).hex()
            path = os.path.join(folder, f"{submit['filename']}_{next(numbers):05d}.png")
            with suppress(FileNotFoundError):
                os.lstat(path)
            record = msgpack.packb({"job_id": job_id, "submit": submit, "paths": [path]})
            os.write(journal, struct.pack(">II", len(record), zlib.crc32(record)) + record)
            lease = {"lease": 1, "segment": "arena", "offset": 0, "size": submit["want"][0]}
            receipt = {"success": True, "job_id": job_id, "num_images": 1, "paths": [path], "leases": [lease]}
            answer = msgpack.packb({**receipt, "id": submit["id"]})
            self.transport.write(LENGTH.pack(len(answer)) + answer)

        def connection_lost(self, error: Exception | None) -> None:
            asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    loop.run_until_complete(loop.create_connection(Answers, sock=connection))
    loop.run_forever()


class LeastFarm(Floor):
    """A client of the least farm, in the place of the floor's bare echo."""

    def __init__(self, images: list[Any], folder: Path) -> None:
        """Start it; its journal comes into `folder`."""
        super().__init__(images, least_farm, str(folder))
        request = SaveRequest([SaveImage(images[0])], output_dir=folder, filename="least")
        out = Outgoing(request)
        self._submit = out.message(out.sizes)

    def exchange(self, connection: socket.socket) -> None:
        """Submit, and read the receipt."""
        frame = msgpack.packb({**self._submit, "request_id": os.urandom(16).hex(), "id": 1})
        connection.sendall(LENGTH.pack(len(frame)) + frame)
        assert msgpack.unpackb(connection.recv(65536)[LENGTH.size :])["success"]


def medians(farm: FarmClient, pixels: Any, folder: Path, repeat: int, floor: Floor) -> tuple[float, float]:
    """Return the milliseconds of our hand-over and of the other's, taken in turns."""
    ours, other = measure.handovers(farm, pixels, folder, repeat, floor)
    return measure.percentile(ours, 0.5) * 1e3, measure.percentile(other, 0.5) * 1e3


def measure_all(folder: Path, repeat: int) -> None:
    """Start all three, measure and print."""
    noise = np.random.default_rng(1).random((SIDE, SIDE, 3), np.float32)
    images = {"uint8": (noise * 255).astype(np.uint8), "float32": noise}
    everything = list(images.values())

    def table(title: str) -> None:
        print(f"{title}\n  type      floor  least farm    ours   ms, medians of {repeat}")
        for name, pixels in images.items():
            _, bare = medians(farm, pixels, folder, repeat, floor)
            ours, small = medians(farm, pixels, folder, repeat, least)
            print(f"  {name:<8} {bare:6.2f} {small:11.2f} {ours:7.2f}")

    with (
        trial_farm.own_farm(folder, 2) as (launched, farm),
        Floor(everything) as floor,
        LeastFarm(everything, folder) as least,
    ):
        trial_farm.wait_ready(farm, 2, launched.open_after_s)
        table("Where the scheduler puts them")
        if sys.platform == "linux" and system.usable_processors() > 1:
            first, second = sorted(os.sched_getaffinity(0))[:2]
            os.sched_setaffinity(0, {first})
            for pid in (farm.status()["pid"], floor.pid, least.pid):
                os.sched_setaffinity(pid, {second})
            table("The client on one processor, they on another")


def main() -> int:
    """Measure in a folder that goes afterwards. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=60, help="hand-overs of each kind (default 60)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="luna-least-") as name:
        measure_all(Path(name), args.repeat)
    return 0
