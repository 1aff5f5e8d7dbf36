"""Shared memory that is small, full, or taken away; and each bound told as busy within 50 ms."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from images import Album
from measured import Figures
from running_farm import IMPORTED_FROM, RunningFarm, Start, until

from luna_farm.errors import FarmBusy
from luna_farm.storage import arena
from luna_farm_client import FarmClient, SaveImage, SaveRequest

BUSY_S = 0.050
MIB = 1 << 20

INSIDE = """
import dataclasses, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from images import Album
from luna_farm_client import FarmClient
from luna_farm_client.farm_client import FarmClient
client = FarmClient("127.0.0.1", int(sys.argv[2]), timeout=60)
client.endpoint = dataclasses.replace(client.endpoint, state_dir=Path(sys.argv[3]))
album = Album(Path(sys.argv[4]), (1024, 1024))
for _ in range(20):
    album.add(client)
print(json.dumps(album.settled(client)))
client.close()
"""
"""A client in the same small world, which writes into the same small memory."""


@pytest.mark.parametrize("mebibytes", [8, 64])
def test_a_small_dev_shm(
    farm: Start, figures: Figures, small_shm: Callable[[int], tuple[str, ...]], mebibytes: int
) -> None:
    """With whatever room there is, and with a program that fills the rest of it later."""
    one = farm(before=small_shm(mebibytes), arena_bytes=0)
    one.workers_ready(2)
    into = ["nsenter", f"--mount=/proc/{one.pid}/ns/mnt"]
    fill = "head -c 100000000 /dev/zero > /dev/shm/filler; df --output=avail /dev/shm | tail -1"
    left = subprocess.run([*into, "sh", "-c", fill], capture_output=True, text=True, check=True).stdout
    assert int(left) == 0
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [*into, sys.executable, "-c", INSIDE, here, str(one.port), str(one.state), str(one.out)],
        env={**os.environ, "PYTHONPATH": str(IMPORTED_FROM.parent / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status = one.status()
    assert one.stop() == 0
    crashes = one.log_text().count("SIGBUS") + one.log_text().count("is lost")
    figures.none(
        "shared memory",
        f"/dev/shm of {mebibytes} MB, the rest of it filled",
        arena_mib=round(status["arena"]["bytes"] / MIB, 1),
        crashes=crashes,
        **json.loads(done.stdout),
    )
    assert any("no room" in note for note in status["notes"]), "the compromise is told"


# --- bounds -----------------------------------------------------------------------------------------------


def how_fast(ask: Callable[[], object], times: int = 20) -> float:
    """Seconds until the busy answer, the slowest of `times`."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        with pytest.raises(FarmBusy) as busy:
            ask()
        took.append(time.perf_counter() - started)
        assert busy.value.retry_after_s >= 0
    return max(took)


@contextmanager
def held(client: FarmClient, *sizes: int) -> Iterator[None]:
    """Hold leases of these sizes, as a client does that copies slowly."""
    connection = client._borrow()
    try:
        ask = connection.session.call
        leases = connection.run(ask({"cmd": "lease", "sizes": list(sizes)}))["leases"]
        yield
        connection.run(ask({"cmd": "release", "leases": [lease["lease"] for lease in leases]}))
    finally:
        client._take_back(connection)


def request(one: RunningFarm, size: int = 64, **options: object) -> SaveRequest:
    pixels = np.zeros((size, size, 3), np.uint8)
    return SaveRequest(images=[SaveImage(pixels)], output_dir=one.out, filename="b", **options)


def test_a_full_arena_is_told_at_once_and_waited_for(farm: Start, figures: Figures) -> None:
    one = farm(arena_bytes="2MiB")
    album = Album(one.out)
    with one.client() as greedy, one.client() as other:
        other.ping()
        with held(greedy, MIB, MIB):
            took_s = how_fast(lambda: other.submit(request(one), when_busy="report"))
            assert other.status()["arena"]["used_bytes"] == 2 * MIB
        album.add(other)
        count = album.settled(other)
    figures.within("shared memory", "arena full: busy", took_s, BUSY_S)
    figures.none("shared memory", "arena full, then free", **count)


def test_between_the_high_and_the_low_mark_nothing_is_granted(farm: Start) -> None:
    """Bytes in use: refused once, leases wait until use has fallen to three quarters, or they would fight
    for each crumb."""
    one = farm(arena_bytes="4MiB")
    with one.client() as client, one.client() as other, ExitStack() as most:
        most.enter_context(held(client, 3 * MIB + MIB // 2))
        with held(client, MIB // 2):
            how_fast(lambda: other.submit(request(one, 16), when_busy="report"), 2)
        how_fast(lambda: other.submit(request(one, 16), when_busy="report"), 2)
        most.close()
        other.submit(request(one, 16), when_busy="report")


def test_too_many_jobs(farm: Start, figures: Figures) -> None:
    one = farm(max_jobs=4, LUNA_FARM_CRASH="worker.received:1:stop", min_workers=1, max_workers=1)
    with one.client() as client:
        for _ in range(4):
            client.submit(request(one))
        took_s = how_fast(lambda: client.submit(request(one), when_busy="report"))
        with pytest.raises(FarmBusy, match="max_jobs") as busy:
            client.submit(request(one), when_busy="report")
    assert busy.value.depth == 4
    figures.within("shared memory", "max_jobs reached: busy", took_s, BUSY_S)


def test_a_full_journal(farm: Start, figures: Figures) -> None:
    """Its bound, not its disk: open jobs with large workflows fill it, and none of them is forgotten."""
    one = farm(journal_bytes="64KiB", LUNA_FARM_CRASH="worker.received:1:stop", min_workers=1, max_workers=1)
    large = {"text": "x" * 20_000}
    with one.client() as client:
        accepted = []
        for _ in range(10):
            with suppress(FarmBusy):
                accepted.append(client.submit(request(one, prompt=large), when_busy="report").job_id)
        assert 0 < len(accepted) < 10
        took_s = how_fast(lambda: client.submit(request(one, prompt=large), when_busy="report"))
    one.kill()
    one.restart()
    with one.client() as client:
        states = {client.wait(job_id, 300).state for job_id in accepted}
        client.submit(request(one, prompt=large))
    assert states == {"done"}
    figures.within("shared memory", "journal full: busy", took_s, BUSY_S)


def test_too_many_connections(farm: Start, figures: Figures) -> None:
    one = farm(max_connections=4)
    with ExitStack() as clients:
        for _ in range(4):
            client = clients.enter_context(one.client())
            until(lambda: _pings(client), "a place")  # noqa: B023
        late = clients.enter_context(one.client())
        took_s = how_fast(late.ping)
    with one.client() as client:
        until(lambda: _pings(client), "a place is free again")
    figures.within("shared memory", "max_connections reached: busy", took_s, BUSY_S)


def _pings(client: FarmClient) -> bool:
    try:
        return client.ping() > 0
    except FarmBusy:
        return False


def test_an_arena_that_is_unlinked_under_the_farm(farm: Start, figures: Figures) -> None:
    """Who has it mapped goes on; for a worker that starts later the pixels go by way of the disk."""
    one = farm()
    one.workers_ready(2)
    (segment,) = one.segments()
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        assert arena.remove(segment)
        for _ in range(10):
            album.add(client)
        with one.client() as newcomer:  # over the wire: there is nothing to map
            album.add(newcomer)
            album.settled(newcomer)
        old = one.worker_pids()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        until(lambda: set(one.worker_pids()) - set(old), "new workers")
        for _ in range(10):
            album.add(client)
        count = album.settled(client)
        assert client.status()["dead_letters"] == []
    assert one.stop() == 0
    told = one.log_text().count("gone: removed")
    figures.none("shared memory", "arena unlinked", told_in_log=told, **count)
    assert told
