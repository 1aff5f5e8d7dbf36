"""A farm that saves nothing: statuses and events as a real one makes them, for the feed's tests and
screenshots.

Deterministic: the same seed gives the same history. Run it to look at the dashboard: `python
tests/feed/fake_farm.py`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import random
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from luna_farm.errors import UnknownJob
from luna_farm.feed.metrics import Metrics
from luna_farm.feed.requests import Act
from luna_farm.feed.server import Feed

if TYPE_CHECKING:
    from PIL.Image import Image

TOKEN = "0123456789abcdef" * 4
START = datetime(2026, 5, 4, 21, 0, tzinfo=timezone.utc)
GB = 10**9
SUPERVISOR = ("rss_bytes", "cpu_percent", "threads", "open_files", "uptime_s")


def thumbnail(number: int) -> str:
    """Return a small JPEG of hills under a moon as base64; each number gives another one."""
    out = io.BytesIO()
    picture(number).save(out, "JPEG", quality=80)
    return base64.b64encode(out.getvalue()).decode()


def picture(number: int, scale: int = 1) -> Image:
    """Return hills under a moon, at most 160 pixels wide and high, times `scale`."""
    from PIL import Image, ImageDraw

    chance = random.Random(number)
    width, height = chance.choice([(160, 160), (160, 107), (107, 160)])
    dusk = chance.randrange(360)
    sample = Image.new("HSV", (width * scale, height * scale), (dusk * 255 // 360, 110, 60))
    draw = ImageDraw.Draw(sample)
    for row in range(height * scale):
        shade = (dusk * 255 // 360, 120, 40 + 130 * row // (height * scale))
        draw.line([(0, row), (width * scale, row)], fill=shade)
    left, top, size = (
        chance.randrange(20, width - 40),
        chance.randrange(8, height // 3),
        chance.randrange(14, 26),
    )
    draw.ellipse([at * scale for at in (left, top, left + size, top + size)], fill=(30, 40, 245))
    for layer in range(3):
        base, swing = height * (6 + layer) // 9, chance.randrange(6, 18)
        ridge = [
            (x * scale, scale * (base - swing * math.sin(x / chance.randrange(14, 30) + layer)))
            for x in range(0, width + 8, 8)
        ]
        hue = (dusk + 20 * layer) % 360 * 255 // 360
        corners = [(0, height * scale), *ridge, (width * scale, height * scale)]
        draw.polygon(corners, fill=(hue, 130, 95 - 28 * layer))
    return sample.convert("RGB")


class FakeFarm:
    """Holds a status and makes the events of one job after another. `feed` is made by `serve`."""

    def __init__(self, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        self.metrics = Metrics()
        self.now = START
        self.draining = False
        self.paused = False
        self.notes: list[str] = []
        self.open_jobs: list[dict[str, Any]] = []
        self.running = True
        self.calls = 0
        self.acted: list[tuple[str, str]] = []
        self.saved = 0
        self.discarded = 0
        self.failed = 0
        self.jobs = 0
        self.bytes = 0
        self.queued_images = 0
        self.dead_letters: list[dict[str, Any]] = []
        self.incomplete_jobs: list[dict[str, Any]] = []
        self.catalogue = False
        self.folders = [
            folder("/home/luna/images/output"),
            folder("/mnt/archive/comfy", free=41 * GB, total=500 * GB),
        ]
        self.workers = [worker(4100 + number) for number in range(2)]
        self.feed: Feed | None = None

    async def serve(self, port: int = 0, **options: Any) -> Feed:
        """Start a feed of this farm on a free port."""
        self.feed = Feed(port, "127.0.0.1", self.status, self.act, TOKEN, self.metrics, **options)
        await self.feed.start()
        return self.feed

    def status(self) -> dict[str, Any]:
        """Return the status as docs/feed.md describes it."""
        self.calls += 1
        return {
            "running": self.running,
            "draining": self.draining,
            "paused": self.paused,
            "pid": 4099,
            "supervisor": {
                **{name: value for name, value in worker(4099).items() if name in SUPERVISOR},
                "own_bytes": 24_000_000,
            },
            "version": "0.1.0",
            "uptime_s": 3725.5,
            "workers": [dict(row) for row in self.workers],
            "queue": {
                "jobs": -(-self.queued_images // 3),
                "images": self.queued_images,
                "bytes": self.queued_images * 3145728,
            },
            "arena": {
                "bytes": 268435456,
                "reserved_bytes": 268435456,
                "used_bytes": min(268435456, self.queued_images * 3145728),
            },
            "totals": {
                "jobs": self.jobs,
                "images_saved": self.saved,
                "images_discarded": self.discarded,
                "images_failed": self.failed,
                "bytes_written": self.bytes,
            },
            "folders": [dict(row) for row in self.folders],
            "dead_letters": [dict(row) for row in self.dead_letters],
            "catalogue": self.catalogue,
            "incomplete_jobs": [dict(row) for row in self.incomplete_jobs],
            "limits": {"max_jobs": 10000, "max_images": 512},
            "notes": list(self.notes),
            "open_jobs": list(self.open_jobs),
            "encoders": {"png": "kernel"},
            "state_dir": "/home/luna/.local/state/luna-farm",
            "port": 19283,
            "feed_port": self.feed.port if self.feed else 0,
        }

    async def act(self, action: Act) -> dict[str, Any]:
        """Pause or resume; take a dead letter back into the queue or drop it, or say that there is none."""
        name, job_id = action.name, action.job_id
        self.acted.append((name, job_id))
        if name in ("pause", "resume"):
            self.paused = name == "pause"
            return {"success": True, "paused": self.paused, "waiting": self.queued_images, "running": 0}
        if not any(row["job_id"] == job_id for row in (*self.dead_letters, *self.incomplete_jobs)):
            raise UnknownJob(f"There is no job {job_id}.", job_id)
        self.dead_letters = [row for row in self.dead_letters if row["job_id"] != job_id]
        self.incomplete_jobs = [row for row in self.incomplete_jobs if row["job_id"] != job_id]
        return {"job_id": job_id, "state": "queued"}

    def event(self, name: str, job_id: str | None, **more: Any) -> dict[str, Any]:
        """Publish one event, a few milliseconds after the one before."""
        self.now += timedelta(milliseconds=self.chance.randrange(1, 9))
        event = {
            "event": name,
            "job_id": job_id,
            "timestamp": self.now.isoformat(timespec="milliseconds"),
            **more,
        }
        if self.feed is not None:
            self.feed.publish(event)
        return event

    def job(self, images: int = 3, thumbnails: bool = True) -> list[dict[str, Any]]:
        """Live through one job: queued, started, each image, done. Return its events."""
        job_id = f"{self.chance.randrange(2**32):08x}"
        self.jobs += 1
        names = [
            f"/home/luna/images/output/flux/night_{self.jobs:04d}_{affix}.png" for affix in _affixes(images)
        ]
        handover = round(self.chance.lognormvariate(-1.6, 0.35), 3)
        events = [
            self.event("save_job_queued", job_id, num_images=images, paths=names, handover_ms=handover),
            self.event("save_started", job_id, num_images=images),
        ]
        counts = {"saved": 0, "rejected": 0, "failed": 0}
        for index, path in enumerate(names):
            outcome = self.chance.choices(["saved", "rejected", "failed"], [94, 4, 2])[0]
            counts[outcome] += 1
            events.append(getattr(self, f"_{outcome}")(job_id, index, path, thumbnails))
        state = "failed" if counts["failed"] else "done"
        events.append(
            self.event(
                "save_job_done",
                job_id,
                state=state,
                images_saved=counts["saved"],
                images_discarded=counts["rejected"],
                images_failed=counts["failed"],
                ms=round(20 + 12 * images * self.chance.random(), 2),
            )
        )
        return events

    def _saved(self, job_id: str, index: int, path: str, thumbnails: bool) -> dict[str, Any]:
        self.saved += 1
        size = self.chance.randrange(1_100_000, 1_900_000)
        self.bytes += size
        encode, write = self.chance.lognormvariate(2.1, 0.2), self.chance.lognormvariate(0.6, 0.3)
        wait, gate = self.chance.lognormvariate(0.2, 0.8), self.chance.uniform(0.7, 1.2)
        more: dict[str, Any] = {}
        if thumbnails and self.feed is not None and self.feed.wants_thumbnail():
            more["thumbnail"] = thumbnail(self.saved)
        return self.event(
            "image_saved",
            job_id,
            index=index,
            path=path,
            bytes=size,
            ms=round(wait + gate + encode + write, 3),
            queue_ms=round(wait, 3),
            gate_ms=round(gate, 3),
            encode_ms=round(encode, 3),
            write_ms=round(write, 3),
            format="png",
            width=1024,
            height=1024,
            score=round(self.chance.uniform(0.55, 0.99), 4),
            worker=self.chance.choice(self.workers)["pid"],
            warnings=[],
            **more,
        )

    def _rejected(self, job_id: str, index: int, path: str, thumbnails: bool) -> dict[str, Any]:
        self.discarded += 1
        score = round(self.chance.uniform(0.02, 0.28), 4)
        return self.event(
            "image_rejected", job_id, index=index, path=path, score=score, threshold=0.3, on_reject="discard"
        )

    def _failed(self, job_id: str, index: int, path: str, thumbnails: bool) -> dict[str, Any]:
        self.failed += 1
        error = f"{path} cannot be written: the disk is full. Free some space, then retry the job."
        self.dead_letters.append(
            {
                "job_id": job_id,
                "index": index,
                "path": path,
                "error": error,
                "code": "disk",
                "timestamp": self.now.isoformat(),
            }
        )
        return self.event("image_failed", job_id, index=index, path=path, error=error, code="disk")


def worker(pid: int, state: str = "idle") -> dict[str, Any]:
    """Return the status of one worker."""
    return {
        "pid": pid,
        "state": state,
        "rss_bytes": 61_000_000,
        "cpu_percent": 0.0,
        "images_saved": 0,
        "threads": 2,
        "open_files": 9,
        "uptime_s": 3725.0,
        "current": None,
        "mb_per_s": 0.0,
    }


def folder(path: str, free: int = 212 * GB, total: int = 1000 * GB) -> dict[str, Any]:
    """Return the status of one output folder that works."""
    return {
        "path": path,
        "state": "ok",
        "error": "",
        "since_s": 0.0,
        "free_bytes": free,
        "total_bytes": total,
    }


def _affixes(images: int) -> list[str]:
    known = ["RAW", "UPSCALED", "DETAILED", "IMAGE4", "IMAGE5"]
    return [known[number] if number < len(known) else f"N{number}" for number in range(images)]


async def live(farm: FakeFarm, jobs_per_s: float = 4.0) -> None:
    """Go on saving at wall-clock speed until cancelled."""
    while True:
        farm.now = datetime.now(timezone.utc)
        rate = jobs_per_s * (0.6 + 0.4 * math.sin(farm.jobs / 25))
        farm.job(images=farm.chance.randrange(1, 4))
        farm.queued_images = farm.chance.randrange(0, 9)
        for row in farm.workers:
            busy = farm.chance.random() < 0.7
            row["state"] = "busy" if busy else "idle"
            row["cpu_percent"] = round(farm.chance.uniform(40, 95) if busy else 0.4, 1)
            row["images_saved"] += 1
            row["mb_per_s"] = round(farm.chance.uniform(3, 9), 2) if busy else 0.0
            row["rss_bytes"] = 61_000_000 + farm.chance.randrange(9_000_000)
            job = f"{farm.chance.randrange(2**32):08x}"
            path = f"/home/luna/images/output/flux/night_{farm.jobs:04d}_RAW.png"
            row["current"] = {"job_id": job, "path": path} if busy else None
        await asyncio.sleep(1 / rate)


async def _main() -> None:
    farm = FakeFarm()
    feed = await farm.serve(int(sys.argv[1]) if len(sys.argv) > 1 else 19284)
    print(f"http://127.0.0.1:{feed.port}/#token={TOKEN}")
    await live(farm)


if __name__ == "__main__":
    asyncio.run(_main())
