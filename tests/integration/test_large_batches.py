"""Batches that are larger than the arena and than any limit of one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

FRAMES, SIDE, MIB = 900, 512, 2**20
MOST_BYTES = 16 * MIB
CLIENT = """
import json, sys, threading
import numpy as np
from luna_farm_client import FarmClient, SaveImage, SaveRequest

def own_bytes():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

frames, side = int(sys.argv[2]), int(sys.argv[3])
size = side * side * 3
memory = np.zeros(size + 4 * frames, np.uint8)  # frames overlap, and each begins with its number
memory[: 4 * frames] = np.arange(frames, dtype="<u4").view(np.uint8)
images = [SaveImage(memory[4 * n : 4 * n + size].reshape(side, side, 3)) for n in range(frames)]
over = threading.Event()
with FarmClient("127.0.0.1", int(sys.argv[1]), timeout=600) as client:
    client.ping()
    before = most = own_bytes()
    def look():
        global most
        while not over.wait(0.002):
            most = max(most, own_bytes())
    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    receipt = client.submit(SaveRequest(images, filename="frame"))
    over.set()
    looker.join()
    print(json.dumps({"more": most - before, "paths": receipt.paths, "job": receipt.job_id}))
    print(client.wait(receipt.job_id, timeout=600).state)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: /proc tells what memory is a process's own")
def test_900_frames_go_through_an_arena_of_64_mib_as_one_job(start_farm: Callable[..., Any]) -> None:
    """675 MiB of pixels: one receipt, all saved in order, and neither side keeps them."""
    farm = start_farm(arena_bytes="64MiB")
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(farm.port), str(FRAMES), str(SIDE)],
        env={**os.environ, "LUNA_FARM_STATE_DIR": str(farm.state)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told, state = done.stdout.splitlines()
    answer = json.loads(told)
    assert state == "done"
    assert answer["more"] < MOST_BYTES
    with farm.client() as client:
        assert [job.job_id for job in client.jobs()] == [answer["job"]]
        assert client.status()["arena"]["bytes"] <= 64 * MIB
    assert len(answer["paths"]) == len(set(answer["paths"])) == FRAMES
    assert sorted(answer["paths"]) == sorted(map(str, farm.out.iterdir()))
    for number, path in enumerate(answer["paths"]):
        with Image.open(path) as image:
            first = np.asarray(image)[0, :2].ravel()[:4]
        assert int(first.view("<u4")[0]) == number
