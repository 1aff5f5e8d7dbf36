#!/usr/bin/env python3
"""Take the images of dashboard and gallery that the documents show: python scripts/screenshots.py [FOLDER]

Over the farm of the tests that saves nothing (tests/feed/fake_farm.py), so that they show no private
image. Needs Chromium, the playwright package and Pillow. It must never touch a running farm.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import shutil
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "feed")]

from fake_farm import FakeFarm, folder  # noqa: E402
from fake_gallery import FakeGallery  # noqa: E402

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


async def shoot_gallery(
    browser: Browser, folder: str, target: Path, scheme: Literal["dark", "light"]
) -> None:
    """Keep what the gallery shows of some thousand images, and of one."""
    images = FakeGallery(Path(folder))
    images.fill(3000, files=6, small=600)
    farm = FakeFarm()
    feed = await farm.serve(gallery=images.gallery())
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{feed.port}/gallery")
    await page.locator(".shot img.here").nth(30).wait_for()
    await page.wait_for_timeout(400)
    await keep(page, target / f"gallery-desktop-{scheme}.webp")
    await page.locator(".shot button").nth(3).click()
    await page.locator("#preview-image[src^=blob]").wait_for()
    await page.wait_for_timeout(400)
    await keep(page, target / f"gallery-image-{scheme}.webp")
    await context.close()
    await feed.close()
    images.close()


async def keep(page: Page, target: Path) -> None:
    """Write what a page shows."""
    sample = Image.open(io.BytesIO(await page.screenshot()))
    sample.convert("RGB").save(target, quality=80, method=6)
    print(f"{target} {target.stat().st_size / 1000:.0f} kB")


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
        with tempfile.TemporaryDirectory() as folder_of_gallery:
            await shoot_gallery(browser, folder_of_gallery, target, "dark")
        await browser.close()
    await feed.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="where to (default: docs/images)")
    parser.parse_args()
    asyncio.run(main())
