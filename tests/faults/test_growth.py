"""A farm that has done thousands of jobs is as small as one that has done a few."""

from __future__ import annotations

import psutil
from images import Album
from measured import Figures
from running_farm import RunningFarm, Start, until


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
    one = farm(kept_reports=200, min_workers=2, max_workers=2, journal_bytes="1MiB", bare=True)
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
        # A status that is asked has a connection, a worker that keeps thumbnails its file: both pass.
        until(lambda: size(one)["descriptors"] <= before["descriptors"] + 2, "files are closed")
        after = size(one)
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
    assert (growth["threads"], growth["segments"], growth["processes"]) == (0, 0, 0)
