"""Images go to S3 while workers, the uploader and the supervisor are killed and requests fail."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from farm_process import until
from fault_proxy import FaultProxy
from servers import Server
from uploading_farm import UploadingFarm

from luna_farm.errors import FarmError

LONG = {"images": 2000, "kills": 200, "supervisors": 20}
SHORT = {"images": 100, "kills": 10, "supervisors": 2}
AHEAD = 20
"""Images handed over and not waited for."""


def test_everything_is_stored_once_while_everything_is_killed(
    tmp_path: Path, start_server: Callable[[str], Server], proxied: Callable[[Server], FaultProxy]
) -> None:
    size = LONG if os.environ.get("LUNA_FARM_TEST_LONG") else SHORT
    server = start_server("seaweedfs")
    proxy = proxied(server)
    proxy.every = 10
    home = tmp_path / "storm"
    home.mkdir()
    one = UploadingFarm(home, server, proxy, kept_reports=100_000)
    one.put_foreign(range(0, size["images"], 20))
    client = one.start()
    done = {"workers": 0, "uploader": 0, "supervisor": 0}
    failed: list[BaseException] = []
    jobs: list[str] = []

    def kill_all_the_time() -> None:
        plan = ["process"] * size["kills"] + ["supervisor"] * size["supervisors"]
        random.Random(1).shuffle(plan)
        try:
            for number, kind in enumerate(plan):
                due = size["images"] * number / len(plan)
                until(lambda: len(jobs) >= due, "images are handed over")  # noqa: B023
                if kind == "supervisor":
                    ended = one.farm.process
                    ended.kill()
                    done["supervisor"] += 1
                    until(lambda: one.farm.process is not ended, "it is started again")  # noqa: B023
                elif number % 2:
                    done["uploader"] += until(lambda: _kill(one, "uploader"), "an uploader to kill")
                else:
                    done["workers"] += until(lambda: _kill(one, "worker"), "a worker to kill")
        except BaseException as error:
            failed.append(error)

    with one.kept_alive(), client:
        killer = threading.Thread(target=kill_all_the_time)
        killer.start()
        for number in range(size["images"]):
            jobs += [one.save(client, [number])]
            if number >= AHEAD:  # kills shall always hit something
                client.wait(jobs[number - AHEAD], timeout=120)
        killer.join()
        assert not failed, failed
        for job in jobs:
            report = client.wait(job, timeout=120)
            if report.state == "failed" and report.images[0].code == "crash":  # three workers died of it
                client.retry(job)
        states = [client.wait(job, timeout=120).state for job in jobs]
        assert states == ["done"] * size["images"]
        proxy.every = 0
        one.check(size["images"])
    print(f"{size}: killed {done}; {proxy.faults} of {proxy.requests} requests failed")
    assert one.farm.stop() == 0


def _kill(one: UploadingFarm, kind: str) -> bool:
    """kill -9 of the uploader or of a worker; False if there is none now."""
    try:
        status = one.status()
        pids = [worker["pid"] for worker in status["workers"]]
        pid = status["uploader"]["pid"] if kind == "uploader" else random.choice(pids)
        if not pid:
            return False
        os.kill(pid, signal.SIGKILL)
    except (FarmError, ProcessLookupError, IndexError):
        return False
    return True
