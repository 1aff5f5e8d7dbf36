"""A farm that has done thousands of jobs is as small as one that has done a few."""

from __future__ import annotations

import random
import shutil
import statistics
import threading
import time

import numpy as np
import psutil
import pytest
from images import Album
from measured import LONG, Figures
from running_farm import RunningFarm, Start, until

from luna_farm_client import SaveImage, SaveRequest

MIXED_S = 1200.0
WARM_S = 300.0
AROUND_S = 120.0
"""Sizes swing with what is saved at the moment: medians over this time are compared."""
SIDES = (64, 256, 512, 768, 1024, 1536)


def size(one: RunningFarm) -> dict[str, int]:
    """Open files, threads, memory of its own and shared memory of supervisor and workers together."""
    processes = [psutil.Process(pid) for pid in (one.pid, *one.worker_pids())]
    memory = [process.memory_info() for process in processes]
    return {
        "descriptors": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "segments": len(one.segments()),
        "rss": sum(each.rss - each.shared for each in memory),
        "processes": len(processes),
    }


def test_thousands_of_jobs_leave_nothing_behind(farm: Start, figures: Figures, long: bool) -> None:
    jobs, before_that = (10_000, 1_000) if long else (1_000, 300)
    one = farm(kept_reports=200, min_workers=2, max_workers=2, journal_bytes="1MiB")
    one.workers_ready(2)
    with one.client() as client:
        for phase in (before_that, jobs):
            album = Album(one.out)
            for number in range(phase):
                album.add(client)
                if number % 50 == 49:
                    album.wait_for_last(client)
                    until(lambda: client.status()["queue"]["jobs"] == 0, "all is done")
                    for path in one.out.iterdir():
                        path.unlink(missing_ok=True)
            if phase == before_that:
                before = size(one)
        # A status that is asked has a connection and threads, a worker of thumbnails its file: all pass.
        most = {**before, "descriptors": before["descriptors"] + 2, "rss": before["rss"] + 20e6}

        def as_small() -> dict[str, int] | None:
            now = size(one)
            return now if all(now[name] <= most[name] for name in most) else None

        after = until(as_small, f"it is as small as {most}")
        totals = client.status()["totals"]
    assert one.stop() == 0
    growth = {name: after[name] - before[name] for name in before}
    figures(
        "growth",
        f"{jobs:,} jobs after {before_that:,}",
        ok=growth["rss"] < 20e6 and not any(growth[name] > 0 for name in ("threads", "segments")),
        rss_growth_mb=round(growth["rss"] / 1e6, 1),
        **{name: growth[name] for name in ("descriptors", "threads", "segments")},
    )
    assert totals["images_saved"] == jobs + before_that
    assert growth["rss"] < 20e6
    assert max(growth["threads"], growth["segments"], growth["processes"]) <= 0


def hand_over(one: RunningFarm, number: int, until_s: float) -> None:
    """Save images of all kinds, one job after the other, with a client that is made anew now and then."""
    chance, made = random.Random(number), 0
    noise = np.random.default_rng(number).integers(0, 256, (max(SIDES), max(SIDES), 4), np.uint8)
    while time.monotonic() < until_s:
        with one.client() as client:
            for _ in range(50):
                side, channels = chance.choice(SIDES), chance.choice((1, 3, 3, 3, 4))
                pixels = np.ascontiguousarray(noise[: chance.choice(SIDES), :side, :channels])
                kind = chance.choice(("png", "png", "jpeg", "webp"))
                images = [SaveImage(pixels, affix=f"I{i}", format=kind) for i in range(chance.randint(1, 3))]
                request = SaveRequest(
                    images,
                    output_dir=one.out / str(number),
                    filename=f"m{made}",
                    quality_gate=chance.choice(("disabled", "both")),
                    durable=chance.random() < 0.2,
                    png_compression=chance.choice((1, 4, 4, 6)),
                    metadata={"prompt": "a mixed load " * chance.randrange(100), "seed": made},
                )
                report = client.wait(client.submit(request).job_id, 300.0)
                assert report.state == "done", report
                client.status()
                made += 1
                if time.monotonic() >= until_s:
                    break
        shutil.rmtree(one.out / str(number), ignore_errors=True)


@pytest.mark.skipif(not LONG, reason="a part of the long form: it takes 20 minutes")
@pytest.mark.timeout(MIXED_S + 900)
def test_memory_is_flat_after_the_first_minutes_of_a_mixed_load(farm: Start, figures: Figures) -> None:
    one = farm(kept_reports=200, min_workers=2, max_workers=2, arena_bytes="256MiB")
    one.workers_ready(2)
    begun = time.monotonic()
    threads = [threading.Thread(target=hand_over, args=(one, n, begun + MIXED_S)) for n in range(3)]
    for thread in threads:
        thread.start()
    sizes: list[tuple[float, dict[str, int]]] = []
    while any(thread.is_alive() for thread in threads):
        threads[0].join(5.0)
        sizes.append((time.monotonic() - begun, size(one)))
    totals = one.status()["totals"]
    assert one.stop() == 0
    early = [found for at, found in sizes if WARM_S <= at < WARM_S + AROUND_S]
    late = [found for at, found in sizes if MIXED_S - AROUND_S <= at < MIXED_S]
    growth = {
        name: statistics.median(found[name] for found in late) - statistics.median(f[name] for f in early)
        for name in ("rss", "descriptors", "threads", "segments")
    }
    figures(
        "growth",
        f"{MIXED_S / 60:.0f} minutes of mixed load, from minute {WARM_S / 60:.0f} on",
        ok=growth["rss"] < 20e6,
        images=totals["images_saved"] + totals["images_discarded"],
        rss_growth_mb=round(growth["rss"] / 1e6, 1),
        **{name: int(growth[name]) for name in ("descriptors", "threads", "segments")},
    )
    assert totals["images_failed"] == 0
    assert growth["rss"] < 20e6, growth
