"""What subscribers of the feed cost a farm, and the weight of the dashboard.

    python3 scripts/bench feed [--subscribers 100] [--rate 200] [--seconds 6] [--rounds 5]

Prints the processor time that the supervisor spends more because of the subscribers (at a steady rate of
64x64 images), the farm's own limit with and without them (as many jobs as go), and the first paint and
weight of the dashboard where Chromium and the playwright package are there. The subscribers read in a process
of lower priority and throw away what they read. It must never compare figures of two runs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from luna_farm.cli.launch import launch
from luna_farm_client import FarmClient, SaveImage, SaveRequest

FIRST_PAINT = """new Promise((done) => new PerformanceObserver((list) => done(list.getEntries()[0].startTime))
    .observe({type: "paint", buffered: true}))"""
KEY = base64.b64encode(b"0123456789abcdef").decode()


class Reader(asyncio.Protocol):
    """A subscriber that throws away what it gets."""

    got = 0

    def __init__(self, port: int) -> None:
        self.port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        lines = [
            "GET / HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
        ]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", "", ""]
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write("\r\n".join(lines).encode())

    def data_received(self, data: bytes) -> None:
        Reader.got += len(data)


async def _read(port: int, count: int) -> None:
    os.nice(10)
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await loop.create_connection(lambda: Reader(port), "127.0.0.1", port)
    await asyncio.sleep(0.5)
    print("reading", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(Reader.got)


@contextlib.contextmanager
def watched(port: int, count: int) -> Iterator[list[int]]:
    """Have `count` subscribers read; the list holds the bytes they got when it is over."""
    got = [0]
    if not count:
        yield got
        return
    command = [
        sys.executable,
        str(Path(__file__).parent),
        "--here",
        "feed",
        "--read",
        str(port),
        "--subscribers",
        str(count),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as readers:
        assert readers.stdin is not None
        assert readers.stdout is not None
        readers.stdout.readline()
        yield got
        readers.stdin.close()
        got[0] = int(readers.stdout.read())


def cpu_s(pid: int) -> float:
    """Return the processor seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def request(folder: str) -> SaveRequest:
    """Return a job of one 64x64 image."""
    sample = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    image = SaveImage(sample, affix="F", format="png", subdir=False)
    return SaveRequest(images=[image], output_dir=folder, filename="watched")


def steady(farm: FarmClient, pid: int, folder: str, rate: float, seconds: float) -> tuple[float, float]:
    """Submit at a rate; return (processor seconds of the supervisor per second, images a second)."""
    job = request(folder)
    spent, started, sent = cpu_s(pid), time.perf_counter(), 0
    receipt = None
    while (now := time.perf_counter() - started) < seconds:
        if sent < now * rate:
            receipt = farm.submit(job)
            sent += 1
        else:
            time.sleep(0.001)
    if receipt is not None:
        farm.wait(receipt.job_id)
    taken = time.perf_counter() - started
    return (cpu_s(pid) - spent) / taken, sent / taken


def flat_out(farm: FarmClient, pid: int, folder: str, jobs: int) -> tuple[float, float]:
    """Submit as fast as it goes; return (images a second, the supervisor's milliseconds an image)."""
    job = request(folder)
    spent, started = cpu_s(pid), time.perf_counter()
    receipts = [farm.submit(job) for _ in range(jobs)]
    for receipt in receipts[-8:]:
        farm.wait(receipt.job_id)
    return jobs / (time.perf_counter() - started), 1e3 * (cpu_s(pid) - spent) / jobs


class Weight:
    """Adds up what a page loads."""

    nbytes = 0

    def add(self, answer: Any) -> None:
        """Count one response."""
        self.nbytes += int(answer.headers["content-length"])


async def first_paint(port: int) -> str:
    """Open the dashboard in Chromium; return its first paint and weight in words."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        return "not measured: Chromium or the playwright package is missing"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        paints, weight = [], Weight()
        for _ in range(7):
            page = await (await browser.new_context()).new_page()
            weight = Weight()
            page.on("response", weight.add)
            await page.goto(f"http://127.0.0.1:{port}/", wait_until="load")
            paints.append(await page.evaluate(FIRST_PAINT))
        await browser.close()
    kilobytes = weight.nbytes / 1000
    return (
        f"first paint {median(paints):.0f} ms (worst of 7: {max(paints):.0f} ms), weight {kilobytes:.1f} kB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What watching the farm costs.")
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--read", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        asyncio.run(_read(given.read, given.subscribers))
        return
    with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "LUNA_FARM_STATE_DIR": state}
        launched = launch(["--port", "0", "--feed-port", "0"], Path(state), environ)
        assert launched.feed_port is not None, "asked for with --feed-port 0"
        with FarmClient(port=launched.port, token=(Path(state) / "token").read_text().strip()) as farm:
            try:
                measure(farm, launched.pid, launched.feed_port, folder, given)
            finally:
                farm.shutdown()


def measure(farm: FarmClient, pid: int, feed_port: int, folder: str, given: argparse.Namespace) -> None:
    """Run every round with and without subscribers, alternately."""
    rounds = []
    flat_out(farm, pid, folder, given.jobs // 4)
    for number in range(given.rounds):
        found: dict[int, tuple[float, ...]] = {}
        read = 0
        for count in (0, given.subscribers) if number % 2 else (given.subscribers, 0):
            with watched(feed_port, count) as got:
                even = steady(farm, pid, folder, given.rate, given.seconds)
                found[count] = (*even, *flat_out(farm, pid, folder, given.jobs))
            read += got[0]
        alone, seen = found[0], found[given.subscribers]
        more_ms = seen[3] - alone[3]
        rounds.append(
            (100 * (seen[0] - alone[0]), 100 * (seen[1] / alone[1] - 1), seen[2] / alone[2], more_ms)
        )
        print(
            f"round {number + 1}, alone / watched: {alone[1]:.1f} / {seen[1]:.1f} images/s at the rate,"
            f" supervisor {100 * alone[0]:.1f} / {100 * seen[0]:.1f} % of a core;"
            f" flat out {alone[2]:.0f} / {seen[2]:.0f} images/s,"
            f" supervisor {alone[3]:.2f} / {seen[3]:.2f} ms an image; {read / 1e6:.0f} MB read",
            flush=True,
        )
    cost, even_rate, ratio, more_ms = (median(column) for column in zip(*rounds, strict=True))
    print(f"{given.subscribers} subscribers at {given.rate:.0f} images/s: {cost:.1f} % of one core more,")
    print(f"  throughput {even_rate:+.1f} %; flat out x{ratio:.2f}, supervisor {more_ms:+.2f} ms an image")
    print("  (flat out, the work of the readers on the same cores counts too)")
    print(f"dashboard: {asyncio.run(first_paint(feed_port))}")
