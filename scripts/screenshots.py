#!/usr/bin/env python3
"""Take the images of the dashboard that the README shows: python scripts/screenshots.py [FOLDER]

Over the farm of the tests that saves nothing (tests/feed/fake_farm.py), so that they show no image of
anybody. Needs Chromium, the playwright package and Pillow. It must never touch a running farm.
"""

from __future__ import annotations

import asyncio
import io
import math
import shutil
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, async_playwright

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "feed")]

from fake_farm import FakeFarm, folder  # noqa: E402

VIEWS = {"desktop": (1280, 1290), "phone": (390, 844)}
PAST_S = 121
FLAGS = ["--no-sandbox", "--disable-gpu"]


def fill(farm: FakeFarm) -> None:
    """Let the farm have worked for two minutes."""
    assert farm.feed is not None
    farm.feed.wants_thumbnail = lambda: farm.chance.random() < 0.9  # type: ignore[method-assign, unused-ignore]
    started = datetime.now(timezone.utc) - timedelta(seconds=PAST_S)
    for second in range(PAST_S):
        farm.now = started + timedelta(seconds=second)
        jobs = int(3.2 + 2 * math.sin(second / 14) + farm.chance.uniform(-0.8, 0.8))
        for _ in range(jobs):
            farm.job(images=farm.chance.randrange(1, 4), thumbnails=second > PAST_S - 12)
    farm.dead_letters = farm.dead_letters[-1:]
    farm.folders.append(folder("/mnt/nas/renders", free=1_900_000_000_000, total=4_000_000_000_000))
    farm.workers[0].update(
        state="busy",
        cpu_percent=83.2,
        images_saved=farm.saved // 2,
        mb_per_s=38.4,
        current={"job_id": "c91d20aa", "path": "/home/luna/images/output/flux/night_0312_UPSCALED.png"},
    )
    farm.workers[1].update(cpu_percent=0.3, images_saved=farm.saved // 2)
    farm.queued_images = 31


async def shoot(browser: Browser, address: str, target: Path, size: tuple[int, int], scheme: str) -> None:
    """Open the page and keep what it shows after the first two seconds."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = await context.new_page()
    await page.goto(address)
    await page.locator("#results img").first.wait_for()
    await page.wait_for_timeout(2200)  # two statuses: the queue has a line
    sample = Image.open(io.BytesIO(await page.screenshot()))
    sample.convert("RGB").save(target, quality=90, method=6)
    print(f"{target} {target.stat().st_size / 1000:.0f} kB")
    await context.close()


async def main() -> None:
    """Take every view in both themes."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium on this machine (Debian: apt-get install chromium).")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    target.mkdir(parents=True, exist_ok=True)
    farm = FakeFarm(seed=7)
    feed = await farm.serve()
    fill(farm)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, size in VIEWS.items():
            for scheme in ("dark", "light"):
                file = target / f"dashboard-{name}-{scheme}.webp"
                await shoot(browser, f"http://127.0.0.1:{feed.port}/", file, size, scheme)
        await browser.close()
    await feed.close()


if __name__ == "__main__":
    asyncio.run(main())
